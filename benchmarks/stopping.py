"""What it costs to lose nothing: the look at the stop flag, the pause of a save, the way out.

    python -m benchmarks.stopping [--ranks 2] [--output benchmarks/results/stopping.json]

Workers of this machine train ResNet-50 on scikit-learn's digits under DDP. Measured inside them:
the time that a step spends on agreeing whether to stop, and how long a save keeps training waiting
and then writes. From outside: how long after TERM to one of them the last one is gone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.place import environment, free_port
from benchmarks.record import save
from configs import dump_recipe
from configs.archives import ARCHIVE_NAME
from configs.schema import Checkpoint, Data, Logging, Recipe, Schedule, Train
from train.digits import write_digits

PROJECT = Path(__file__).resolve().parents[1]
STEPS_PER_EPOCH = 10


def recipe(root: Path, resolution: int, batch_size: int, epochs: int) -> Recipe:
    """Epochs of ten steps with a checkpoint after each."""
    return Recipe(
        data=Data(
            root=str(root),
            md5="none",
            train_images=STEPS_PER_EPOCH * batch_size,
            test_images=20,
            resolution=resolution,
        ),
        schedule=Schedule(epochs=epochs),
        train=Train(batch_size=batch_size),
        checkpoint=Checkpoint(every_epochs=1),
        logging=Logging(every_steps=1),
    )


def timed(work: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    """`work`, noting how long each call takes."""

    def call(*args: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return work(*args, **options)
        finally:
            seconds.append(time.perf_counter() - began)

    return call


def observe(rank: int, ranks: int, port: int, run_dir: Path, queue: Any) -> None:
    """Train as the worker does, with clocks around what is measured; rank 0 reports."""
    os.environ |= environment(rank, ranks, port)
    sys.stdout = (run_dir / f"rank-{rank}.log").open("w")
    from train import checkpoint, loop
    from train.stop import StopFlag
    from train.vote import StopVote
    from train.worker import run

    looks: list[float] = []
    pauses: list[float] = []
    writes: list[float] = []
    StopVote.is_agreed = timed(StopVote.is_agreed, looks)
    loop.save = timed(loop.save, pauses)
    checkpoint.write = timed(checkpoint.write, writes)
    run(run_dir, StopFlag())
    if rank == 0:
        rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
        steps = [row["time"] for row in rows if row["mode"] == "train"][STEPS_PER_EPOCH:]
        queue.put(
            {"look": looks[STEPS_PER_EPOCH:], "pause": pauses, "write": writes, "step": steps}
        )


def inside(run_dir: Path, ranks: int) -> dict[str, list[float]]:
    """Seconds of looks, pauses, writes and steps in a whole run."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    port = free_port()
    workers = [
        context.Process(target=observe, args=(rank, ranks, port, run_dir, queue))
        for rank in range(ranks)
    ]
    for worker in workers:
        worker.start()
    found: dict[str, list[float]] = queue.get(timeout=1800)
    for worker in workers:
        worker.join()
    return found


def way_out(run_dir: Path, ranks: int) -> float:
    """Seconds from TERM to rank 0 until every worker has left with exit code 75."""
    port = free_port()
    command = [sys.executable, "-u", "-m", "train", "--run", str(run_dir)]
    with (run_dir / "output.log").open("w") as log:
        workers = [
            subprocess.Popen(
                command,
                cwd=PROJECT,
                env=os.environ | environment(rank, ranks, port),
                stdout=log,
                stderr=log,
            )
            for rank in range(ranks)
        ]
        metrics = run_dir / "metrics.jsonl"
        while not metrics.exists() or len(metrics.read_text().splitlines()) < 5:
            if any(worker.poll() is not None for worker in workers):
                for worker in workers:
                    worker.kill()
                raise SystemExit((run_dir / "output.log").read_text())
            time.sleep(0.05)
        began = time.perf_counter()
        workers[0].send_signal(signal.SIGTERM)
        codes = [worker.wait() for worker in workers]
    assert codes == [75] * ranks, (run_dir / "output.log").read_text()
    return time.perf_counter() - began


def main() -> None:
    """Measure, and print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--stops", type=int, default=3)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_digits(folder / ARCHIVE_NAME)

        def new_run(label: str) -> Path:
            run_dir = folder / label
            run_dir.mkdir()
            text = dump_recipe(recipe(folder, args.resolution, args.batch_size, args.epochs))
            (run_dir / "config.yaml").write_text(text)
            return run_dir

        found = inside(new_run("whole"), args.ranks)
        found["way out"] = [
            way_out(new_run(f"stopped-{number}"), args.ranks) for number in range(args.stops)
        ]

    words = {
        "step": "one step",
        "look": "agreeing whether to stop, in each step",
        "pause": "training waits for a save",
        "write": "the save is written, while training goes on",
        "way out": "from TERM to one worker until all have saved and left",
    }
    table = Table("what", "median ms", "most ms", "share of a step")
    figures = {}
    step = statistics.median(found["step"])
    for key, text in words.items():
        median, most = statistics.median(found[key]), max(found[key])
        figures[key] = {"median_ms": round(1e3 * median, 3), "most_ms": round(1e3 * most, 3)}
        share = f"{100 * median / step:.2f} %"
        table.add_row(text, f"{1e3 * median:.2f}", f"{1e3 * most:.2f}", share)
    Console().print(table)
    if args.output:
        save(
            args.output,
            "benchmarks.stopping",
            ("torch", "torchvision"),
            ranks=args.ranks,
            resolution=args.resolution,
            batch_size=args.batch_size,
            milliseconds=figures,
        )


if __name__ == "__main__":
    main()
