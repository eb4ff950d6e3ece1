"""What it brings on a CPU that a worker keeps the memory that it has freed.

    python -m benchmarks.kept_memory [--data-root DIR] [--sizes 64x8 64x32 224x8]
        [--output benchmarks/results/kept_memory.json]

Processes with and without the variable that the launcher sets (`KEEP_MEMORY` in jobs/worker.py), in
turn; each takes steps of `finetune.yaml` on one thread, and says how long one took.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import ours, record
from benchmarks.pictures import digits_root
from benchmarks.timing import in_turn, ratio, seconds_per_call
from jobs.worker import KEEP_MEMORY

CPU = torch.device("cpu")


def steps_of(size: str) -> list[str]:
    """The recipe's keys of a size: 64x8 are 8 images of 64 pixels."""
    resolution, images = size.split("x")
    return [f"data.resolution={resolution}", f"train.batch_size={images}", "train.device=cpu"]


def time_a_step(size: str, steps: int, data_root: Path | None) -> tuple[float, float]:
    """Seconds and page faults of one step in this process, two having come before."""
    torch.set_num_threads(1)
    with ours.our_step(ours.make_recipe("finetune.yaml", steps_of(size), data_root)) as step:
        seconds_per_call(step, 2, CPU, warm_up=0)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        seconds = seconds_per_call(step, steps, CPU, warm_up=0)
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    return seconds, faults / steps


def in_process(
    size: str, variables: dict[str, str], args: argparse.Namespace
) -> tuple[float, float]:
    """The same in a new process with `variables`, and without them where there are none."""
    environment = {name: each for name, each in os.environ.items() if name not in KEEP_MEMORY}
    command = [sys.executable, "-m", "benchmarks.kept_memory", "--steps", str(args.steps)]
    command += ["--alone", "--sizes", size]
    command += ["--data-root", str(args.data_root or digits_root())]
    done = subprocess.run(
        command, env=environment | variables, stdout=subprocess.PIPE, text=True, check=True
    )
    seconds, faults = map(float, done.stdout.split()[-2:])
    return seconds, faults


def arm(
    size: str, variables: dict[str, str], args: argparse.Namespace, faults: list[float]
) -> Callable[[], float]:
    """The seconds of `in_process`, to be called; its page faults go into `faults`."""

    def call() -> float:
        seconds, found = in_process(size, variables, args)
        faults.append(found)
        return seconds

    return call


def main() -> None:
    """Measure, and print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data-root", type=Path, help="folder of the archive; without: digits")
    parser.add_argument(
        "--sizes", nargs="+", default=["64x8", "64x32", "224x8"], help="px x images"
    )
    parser.add_argument("--steps", type=int, default=4, help="that a process times")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--alone", action="store_true", help="time the first size here, no more")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()
    if args.alone:
        print(*time_a_step(args.sizes[0], args.steps, args.data_root))
        return

    results: list[dict[str, Any]] = []
    facts = record.on(CPU) | {"threads": 1}
    columns = ("px x images", "given back, ms", "kept, ms", "of that", "page faults a step")
    table = Table(*columns, title=facts["device"])
    for size in args.sizes:
        faults: dict[str, list[float]] = {"given back": [], "kept": []}
        ways = {"given back": {}, "kept": dict(KEEP_MEMORY)}
        arms = {name: arm(size, given, args, faults[name]) for name, given in ways.items()}
        seconds = in_turn(arms, args.rounds)
        share = ratio(seconds["kept"], seconds["given back"])
        medians = [1e3 * statistics.median(taken) for taken in seconds.values()]
        shown = " to ".join(f"{statistics.median(found):,.0f}" for found in faults.values())
        table.add_row(size, *(f"{each:.0f}" for each in medians), str(share), shown)
        results.append(
            {
                "size": size,
                "seconds": seconds,
                "kept_over_given_back": vars(share),
                "page_faults_a_step": faults,
            }
        )
    Console().print(table)
    if args.output:
        record.save(args.output, "benchmarks.kept_memory", ("torch",), **facts, results=results)


if __name__ == "__main__":
    main()
