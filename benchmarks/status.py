"""How long `status` takes with many runs, what it asks Slurm and how many files it opens.

    python -m benchmarks.status [--finished 1000] [--live 50]
        [--output benchmarks/results/status.json]

The runs are made up, with the files that real ones have: half of the live ones run, with a long
metrics.jsonl, half wait. Slurm's programs are stand-ins that write down how they are called and
answer for those runs. Each time is that of a whole process, timed from outside, after one that is
not counted.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.record import save
from configs import dump_recipe
from configs.schema import Recipe

PROJECT = Path(__file__).resolve().parents[1]
STEPS_PER_EPOCH = 1563
EPOCHS = 20
RUNNING_EPOCHS = 12
COMMANDS = {
    "launch.py status": ["status"],
    "launch.py status --all": ["status", "--all"],
}
# Counts the files that a command opens below a folder, by name.
COUNT_OPENED = """
import collections, json, os, sys
folder, opened = sys.argv[1], collections.Counter()
def note(event, arguments):
    if event == "open" and str(arguments[0]).startswith(folder):
        opened[os.path.basename(str(arguments[0]))] += 1
sys.addaudithook(note)
sys.path.insert(0, "")
from jobs.cli import main
main(sys.argv[2:])
print(json.dumps(opened), file=sys.stderr)
"""


def metrics_lines(epochs: int, every: int) -> str:
    """What the worker logs in some epochs, a line every so many steps."""
    lines = []
    for step in range(every, epochs * STEPS_PER_EPOCH + 1, every):
        epoch, batch = divmod(step - 1, STEPS_PER_EPOCH)
        row: dict[str, Any] = {"mode": "train", "epoch": epoch + 1, "iter": batch + 1}
        row |= {"lr": 0.0025, "memory": 5123, "data_time": 0.0004, "loss": 2.3 / (1 + step / 900)}
        row |= {"time": 0.0261, "step": step, "steps": EPOCHS * STEPS_PER_EPOCH}
        lines.append(row | {"images_per_second": 1226.1, "attempt": 1})
        if batch + 1 + every > STEPS_PER_EPOCH:
            scores = {"accuracy_top-1": 97 - 9 / (epoch + 1), "accuracy_top-5": 99.9}
            row = {"mode": "val", "epoch": epoch + 1, "iter": 40, "lr": 0.0025, **scores}
            row |= {"loss": 0.1, "seconds": 3.2, "step": (epoch + 1) * STEPS_PER_EPOCH}
            lines.append(row | {"steps": EPOCHS * STEPS_PER_EPOCH, "attempt": 1})
    return "".join(json.dumps(line) + "\n" for line in lines)


def make_run(folder: Path, job: int, templates: Path) -> None:
    """What every run has from its submission on."""
    (folder / "submitit").mkdir(parents=True)
    (folder / "code").mkdir()
    for name in ("config.yaml", "job.sbatch", "provenance.json"):
        os.link(templates / name, folder / name)
    os.link(templates / "job.sbatch", folder / "submitit" / f"{job}_submitted.pkl")


def start_run(folder: Path, job: int, templates: Path, metrics: str) -> dict[str, Any]:
    """What its first attempt adds; the line of the ledger."""
    (folder / "attempt-01").mkdir()
    os.link(templates / metrics, folder / "metrics.jsonl")
    os.link(templates / metrics, folder / "attempt-01" / "rank-000.log")
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    line = {"attempt": 1, "job_id": str(job), "restart_count": 0, "nodes": ["node1"], "start": now}
    (folder / "attempts.jsonl").write_text(json.dumps(line) + "\n")
    return line


def finish_run(folder: Path, line: dict[str, Any]) -> None:
    """What its end adds."""
    ended = line | {"end": line["start"], "reason": "finished", "exit_code": 0}
    (folder / "attempts.jsonl").write_text(json.dumps(ended) + "\n")
    scores = {"accuracy_top-1": 97.23, "accuracy_top-5": 99.92}
    results = scores | {"best": scores | {"epoch": 20}, "confusion_matrix": [[100] * 10] * 10}
    results |= {"epochs": EPOCHS, "steps": EPOCHS * STEPS_PER_EPOCH, "images_per_second": 1226.1}
    results |= {"attempts": 1, "world_size": 1, "device": "NVIDIA H200", "weights_sha256": "0" * 64}
    (folder / "results.json").write_text(json.dumps(results, indent=2))


def make_runs(logs: Path, finished: int, live: int) -> list[str]:
    """Finished runs and, after them, live ones; squeue's lines about these."""
    templates = logs.parent / "templates"
    templates.mkdir()
    (templates / "config.yaml").write_text(dump_recipe(Recipe()))
    (templates / "job.sbatch").write_text("#!/bin/bash\n")
    (templates / "provenance.json").write_text(json.dumps({"commit": "0" * 40}))
    (templates / "finished").write_text(metrics_lines(EPOCHS, every=100))
    (templates / "running").write_text(metrics_lines(RUNNING_EPOCHS, every=5))
    first = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    queue = []
    for number in range(finished + live):
        stamp = (first + datetime.timedelta(hours=number)).strftime("%Y%m%d-%H%M%S")
        folder, job = logs / "finetune" / f"{stamp}-{number:04x}", 1000 + number
        make_run(folder, job, templates)
        now = round(time.time())
        if number < finished:
            finish_run(folder, start_run(folder, job, templates, "finished"))
        elif number % 2 == 0:
            start_run(folder, job, templates, "running")
            queue.append(f"{job}|RUNNING|{now + 9000}|{now - 5400}|None|{folder}/code")
        else:
            queue.append(f"{job}|PENDING|N/A|{now + 7200}|Resources|{folder}/code")
    return queue


def make_programs(folder: Path, queue: list[str]) -> dict[str, str]:
    """Stand-ins of Slurm's programs, and the environment in which they are found."""
    (folder / "queue").write_text("".join(f"{line}\n" for line in queue))
    for name in ("squeue", "scontrol", "sacct", "sbatch"):
        answer = f"cat {folder}/queue" if name == "squeue" else "true"
        program = folder / name
        program.write_text(f"#!/bin/sh\necho {name} >> {folder}/calls\n{answer}\n")
        program.chmod(0o755)
    return os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}


def seconds(command: list[str], folder: Path, environment: dict[str, str]) -> float:
    """Wall time of one whole process."""
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "launch.py", *command],
        cwd=folder,
        env=environment,
        check=True,
        capture_output=True,
    )
    return time.perf_counter() - began


def count(
    command: list[str], folder: Path, environment: dict[str, str]
) -> tuple[dict[str, int], dict[str, int]]:
    """The questions that a command asks Slurm, and the files of runs that it opens."""
    calls = folder / "bin" / "calls"
    calls.unlink()
    counted = subprocess.run(
        [sys.executable, "-c", COUNT_OPENED, str(folder / "logs"), *command],
        cwd=folder,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return Counter(calls.read_text().split()), json.loads(counted.stderr.splitlines()[-1])


def measure(folder: Path, environment: dict[str, str], runs: int) -> dict[str, dict[str, Any]]:
    """All commands, in turns, so a machine that slows down slows them all."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for run in range(runs + 1):
        for name, command in COMMANDS.items():
            taken = seconds(command, folder, environment)
            if run:
                times[name].append(taken)
    figures: dict[str, dict[str, Any]] = {}
    for name, command in COMMANDS.items():
        queries, opened = count(command, folder, environment)
        figures[name] = {
            "least": round(min(times[name]), 3),
            "median": round(statistics.median(times[name]), 3),
            "most": round(max(times[name]), 3),
            "queries": queries,
            "opened": opened,
        }
    return figures


def main() -> None:
    """Measure, and print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--finished", type=int, default=1000)
    parser.add_argument("--live", type=int, default=50)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ignored = shutil.ignore_patterns("__pycache__", "site.yaml")
        for part in ("jobs", "configs"):
            shutil.copytree(PROJECT / part, folder / part, ignore=ignored)
        shutil.copy(PROJECT / "launch.py", folder)
        (folder / "bin").mkdir()
        queue = make_runs(folder / "logs", args.finished, args.live)
        environment = make_programs(folder / "bin", queue)
        figures = measure(folder, environment, args.runs)

    table = Table("command", "median s", "most s", "questions to Slurm", "files opened")
    for name, found in figures.items():
        asked = ", ".join(f"{number} {program}" for program, number in found["queries"].items())
        opened = sum(found["opened"].values())
        table.add_row(
            name, f"{found['median']:.3f}", f"{found['most']:.3f}", asked or "none", str(opened)
        )
    console = Console()
    console.print(f"{args.finished} finished and {args.live} live runs")
    console.print(table)
    if args.output:
        save(
            args.output,
            "benchmarks.status",
            ("pydantic", "rich"),
            finished=args.finished,
            live=args.live,
            runs=args.runs,
            seconds=figures,
        )


if __name__ == "__main__":
    main()
