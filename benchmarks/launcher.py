"""How long the launcher takes to start: `--help` and `--dry-run`, interpreter included.

    python -m benchmarks.launcher [--runs 20] [--output benchmarks/results/launcher.json]

Each figure is a whole process, timed from outside, after one run that is not counted. The commands
take turns, so a machine that slows down slows them all. Where Slurm answers, its dry run includes
the question to Slurm (sbatch --test-only).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.record import save

PROJECT = Path(__file__).resolve().parents[1]
PACKAGES = ("pydantic", "pyyaml", "rich", "submitit", "torch")


def commands(archive_folder: str) -> dict[str, list[str]]:
    """The commands that are timed, by name; `python -c pass` is what none of them can go below."""
    recipe = ["--config", "scratch.yaml", "--dry-run", "--set", f"data.root={archive_folder}"]
    return {
        "python -c pass": ["-c", "pass"],
        "launch.py --help": ["launch.py", "--help"],
        "launch.py --dry-run, Slurm": ["launch.py", *recipe, "--engine", "slurm"],
        "launch.py --dry-run, local": ["launch.py", *recipe, "--engine", "local"],
        "import torch": ["-c", "import torch"],
    }


def seconds(command: list[str]) -> float:
    """Wall time of one whole process."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *command], cwd=PROJECT, check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    """Time every command and print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        # A dry run asks whether the archive is there, and reads nothing of it.
        Path(folder, "cifar-10-python.tar.gz").touch()
        timed = commands(folder)
        times: dict[str, list[float]] = {name: [] for name in timed}
        for run in range(args.runs + 1):
            for name, command in timed.items():
                taken = seconds(command)
                if run:
                    times[name].append(taken)

    table = Table("command", "least s", "median s", "most s")
    figures = {}
    for name, values in times.items():
        figures[name] = {
            "least": round(min(values), 3),
            "median": round(statistics.median(values), 3),
            "most": round(max(values), 3),
        }
        table.add_row(name, *(f"{value:.3f}" for value in figures[name].values()))
    Console().print(table)
    if args.output:
        save(args.output, "benchmarks.launcher", PACKAGES, runs=args.runs, seconds=figures)


if __name__ == "__main__":
    main()
