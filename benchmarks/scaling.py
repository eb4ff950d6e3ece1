"""Images a second of 1, 2, 4 ranks on this machine, and what more GPUs would bring by a model.

    python -m benchmarks.scaling [--ranks 1 2 4] [--resolution 64] [--batch-size 16]
        [--output benchmarks/results/scaling.json]

Every rank has the same number of images a step. Without GPUs a rank is a process with one thread
and the gradients travel by gloo; with GPUs each rank has one. The groups of ranks are all started
before the clock runs and take turns, N ranks against one that works alone. 'N alone' are N
processes at the same time that share no gradients: what the machine itself takes away (memory
bandwidth, clock rate, other users) when N work at once. The second table is computed from the one
rank's step: see benchmarks/scaling_model.py.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import record
from benchmarks.pictures import digits_root
from benchmarks.place import environment, free_port
from benchmarks.scaling_model import LINKS, Assumptions, predict, table_of
from benchmarks.timing import in_turn, ratio


def serve(pipe: Connection, place: dict[str, str], overrides: list[str], data_root: Path) -> None:
    """One rank: set up the run, then take as many steps as is asked for and tell their seconds.

    Args:
        pipe: numbers of steps come in, seconds a step go out; 0 ends it. The first thing that goes
            out is the number of parameters.
        place: what the environment says of the rank.
        overrides: of the recipe.
        data_root: folder of the archive.
    """
    os.environ.update(place)
    from benchmarks import ours
    from benchmarks.timing import seconds_per_call
    from train.distributed import process_group

    recipe = ours.make_recipe("finetune.yaml", overrides, data_root)
    with process_group(recipe.train) as ranks, tempfile.TemporaryDirectory() as folder:
        step = ours.start(recipe, ranks, Path(folder))
        step()
        pipe.send(sum(value.numel() for value in step.session.state.model.parameters()))
        while steps := pipe.recv():
            ranks.barrier()
            pipe.send(seconds_per_call(step, steps, ranks.device, warm_up=0))
        step.session.take_step.close()  # its graph would keep NCCL from ending the group


class Group:
    """Ranks that work together, or one that works alone."""

    def __init__(self, size: int, overrides: list[str], batch_size: int, gpu: int | None) -> None:
        # torch is imported once, in the parent of all, which never touches a GPU.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["benchmarks.ours"])
        self.size = size
        self.batch_size = batch_size
        port = free_port()
        overrides = [*overrides, f"train.batch_size={batch_size * size}"]
        self.pipes: list[Connection] = []
        self.processes = []
        for rank in range(size):
            place = {} if torch.cuda.is_available() else {"OMP_NUM_THREADS": "1"}
            if size > 1:
                place |= environment(rank, size, port)
            elif gpu is not None:
                place["CUDA_VISIBLE_DEVICES"] = str(gpu)
            mine, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs, place, overrides, digits_root()))
            process.start()
            theirs.close()
            self.pipes.append(mine)
            self.processes.append(process)

    def wait(self) -> int:
        """Return when all are ready; the number of parameters."""
        return max(int(pipe.recv()) for pipe in self.pipes)

    def begin(self, steps: int) -> None:
        """Let all ranks take their steps."""
        for pipe in self.pipes:
            pipe.send(steps)

    def seconds(self) -> float:
        """Seconds a step of the slowest rank, when all are done."""
        return max(float(pipe.recv()) for pipe in self.pipes)

    def close(self) -> None:
        """End the processes."""
        for pipe in self.pipes:
            with contextlib.suppress(OSError):
                pipe.send(0)
        for process in self.processes:
            process.join(timeout=60)
            process.kill()  # of no effect on one that has ended


def seconds_an_image(groups: list[Group], steps: int) -> float:
    """Of all images that `groups` see when they work at the same time."""
    for group in groups:
        group.begin(steps)
    return 1 / sum(group.size * group.batch_size / group.seconds() for group in groups)


def measure(args: argparse.Namespace) -> tuple[dict[str, dict[str, Any]], float, int]:
    """A row for each number of ranks, the seconds of one rank's step, and its parameters."""
    overrides = [f"data.resolution={args.resolution}", *args.set]
    most = max(args.ranks)
    on_gpus = torch.cuda.is_available()
    singles = [
        Group(1, overrides, args.batch_size, number if on_gpus else None) for number in range(most)
    ]
    together = {n: Group(n, overrides, args.batch_size, None) for n in args.ranks if n > 1}
    everybody = [*singles, *together.values()]
    try:
        parameters = max(group.wait() for group in everybody)
        arms = {"1": lambda: seconds_an_image(singles[:1], args.steps)}
        for n, group in together.items():
            arms[str(n)] = lambda group=group: seconds_an_image([group], args.steps)
            arms[f"{n} alone"] = lambda n=n: seconds_an_image(singles[:n], args.steps)
        seconds = in_turn(arms, args.rounds)
    finally:
        for group in everybody:
            group.close()
    rows = {}
    for name, taken in seconds.items():
        times = ratio(seconds["1"], taken)
        ranks = int(name.split()[0])
        shares = [value / ranks for value in (times.median, times.least, times.most)]
        rows[name] = {
            "images_per_second": round(1 / statistics.median(taken), 2),
            "of_n_times_one": [round(share, 4) for share in shares],
        }
    return rows, statistics.median(seconds["1"]) * args.batch_size, parameters


def main() -> None:
    """Measure, compute, and print and write both tables."""
    on_gpus = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    known = [n for n in (1, 2, 4, 8) if n <= torch.cuda.device_count()] if on_gpus else [1, 2, 4]
    parser.add_argument("--ranks", type=int, nargs="+", default=known)
    parser.add_argument("--resolution", type=int, default=224 if on_gpus else 64)
    parser.add_argument("--batch-size", type=int, default=256 if on_gpus else 16, help="of a rank")
    parser.add_argument("--set", action="append", default=[], metavar="K=V", help="of the recipe")
    parser.add_argument("--steps", type=int, default=20 if on_gpus else 3, help="in a row")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--link", nargs="+", choices=LINKS, default=["ib-400", "eth-100"])
    parser.add_argument("--batch", type=int, default=1024, help="of the model: over all GPUs")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()

    began = time.perf_counter()
    rows, step, parameters = measure(args)
    facts = record.on(torch.device("cuda" if on_gpus else "cpu"))
    if not on_gpus:
        facts["threads"] = 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    title = f"{args.resolution} px, {args.batch_size} images a rank, {facts['device']}"
    table = Table("ranks", "images/s", "of N times one", title=title)
    for name, row in rows.items():
        middle, least, most = row["of_n_times_one"]
        cells = (f"{row['images_per_second']:.2f}", f"{middle:.3f} ({least:.3f} to {most:.3f})")
        table.add_row(name, *cells)
    console = Console()
    console.print(table)
    models = [
        predict(step, args.batch_size, args.batch, LINKS[link], Assumptions(), parameters)
        for link in args.link
    ]
    for model in models:
        console.print(table_of(model))
    if args.output:
        record.save(
            args.output,
            "benchmarks.scaling",
            ("torch", "torchvision"),
            **facts,
            cores=cores,
            resolution=args.resolution,
            batch_size_a_rank=args.batch_size,
            rounds=args.rounds,
            seconds=round(time.perf_counter() - began, 1),
            measured=rows,
            computed_not_measured=models,
        )


if __name__ == "__main__":
    main()
