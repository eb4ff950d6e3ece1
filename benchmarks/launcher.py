"""How long the launcher takes: `--help`, `--dry-run`, and a submission until sbatch has answered.

    python -m benchmarks.launcher [--runs 20] [--output benchmarks/results/launcher.json]

Each figure is a whole process, timed from outside, after one run that is not counted; of a
submission, the time from its start until a stand-in of sbatch, which answers at once, has answered.
The commands take turns, so a machine that slows down slows them all. Where Slurm answers, the dry
run for it includes the question to Slurm (sbatch --test-only). Where hydra-core and
hydra-submitit-launcher are installed, an application of theirs that does nothing is timed beside
ours.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.record import save

PROJECT = Path(__file__).resolve().parents[1]
PACKAGES = (
    "pydantic",
    "pyyaml",
    "rich",
    "submitit",
    "torch",
    "hydra-core",
    "hydra-submitit-launcher",
)
HYDRA = ("hydra-core", "hydra-submitit-launcher")
HYDRA_APPLICATION = """
import hydra
from omegaconf import DictConfig


@hydra.main(version_base=None, config_path=None)
def main(config: DictConfig) -> None:
    pass


main()
"""
SUBMIT_TIMEOUT_S = 60


def has_hydra() -> bool:
    """Whether hydra can be timed, too; it is no dependency."""
    try:
        return all(version(package) for package in HYDRA)
    except PackageNotFoundError:
        return False


def archive_in(folder: str) -> list[str]:
    """The options for an archive that is not the official one."""
    return ["--set", f"data.root={folder}", "--set", "data.md5=none"]


def commands(archive_folder: str, application: Path) -> dict[str, list[str]]:
    """The commands that are timed, by name; `python -c pass` is what none of them can go below."""
    recipe = ["--config", "scratch.yaml", "--dry-run", *archive_in(archive_folder)]
    found = {
        "python -c pass": ["-c", "pass"],
        "launch.py --help": ["launch.py", "--help"],
        "launch.py --dry-run, Slurm": ["launch.py", *recipe, "--engine", "slurm"],
        "launch.py --dry-run, local": ["launch.py", *recipe, "--engine", "local"],
        "import torch": ["-c", "import torch"],
    }
    if has_hydra():
        found["hydra --help"] = [str(application), "--help"]
        found["hydra --cfg job"] = [str(application), "--cfg", "job"]
    return found


def submissions(folder: Path, application: Path) -> dict[str, list[str]]:
    """The commands that call sbatch, by name."""
    ours = ["launch.py", "--config", "scratch.yaml", "--engine", "slurm"]
    ours += [*archive_in(str(folder)), "--set", f"run.root={folder / 'logs'}"]
    found = {"launch.py, until sbatch has answered": ours}
    if has_hydra():
        theirs = [str(application), "-m", "hydra/launcher=submitit_slurm"]
        theirs += [f"hydra.sweep.dir={folder / 'multirun'}"]
        found["hydra -m, until sbatch has answered"] = theirs
    return found


def make_programs(folder: Path) -> dict[str, str]:
    """Stand-ins of Slurm's programs, and the environment in which they are found."""
    programs = folder / "bin"
    programs.mkdir()
    answers = {
        # The time counts when the job is taken on, not when it is only tried.
        "sbatch": f"""
case " $* " in
  *" --test-only "*) exit 0 ;;
  *" --parsable "*) echo 1 ;;
  *) echo Submitted batch job 1 ;;
esac
date +%s.%N > {folder}/answered""",
        "scontrol": "echo 'Slurmctld(primary) at here is UP'",
    }
    for name in ("sbatch", "scontrol", "squeue", "sacct", "sinfo", "srun"):
        program = programs / name
        program.write_text(f"#!/bin/sh\n{answers.get(name, 'true')}\n")
        program.chmod(0o755)
    return os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}


def seconds(command: list[str]) -> float:
    """Wall time of one whole process."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *command], cwd=PROJECT, check=True, capture_output=True)
    return time.perf_counter() - began


def seconds_to_answer(command: list[str], folder: Path, environment: dict[str, str]) -> float:
    """Seconds from the start of a process until sbatch has answered it; then it is ended.

    hydra's launcher would wait for its job.
    """
    answered = folder / "answered"
    answered.unlink(missing_ok=True)
    began = time.time()
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=PROJECT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not answered.exists() or not answered.read_text().endswith("\n"):
        assert time.time() - began < SUBMIT_TIMEOUT_S, f"{command} submits nothing"
        time.sleep(0.01)
    at = float(answered.read_text())
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return at - began


def main() -> None:
    """Time every command and print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        # A launch asks whether the archive is there, and reads nothing of it.
        (folder / "cifar-10-python.tar.gz").write_bytes(b"any")
        application = folder / "application.py"
        application.write_text(HYDRA_APPLICATION)
        environment = make_programs(folder)
        timed = commands(temporary, application)
        submitted = submissions(folder, application)
        times: dict[str, list[float]] = {name: [] for name in [*timed, *submitted]}
        for run in range(args.runs + 1):
            for name, command in timed.items():
                taken = seconds(command)
                times[name] += [taken] if run else []
            for name, command in submitted.items():
                taken = seconds_to_answer(command, folder, environment)
                times[name] += [taken] if run else []

    table = Table("command", "least s", "median s", "most s")
    figures = {}
    for name, values in times.items():
        figures[name] = {
            "least": round(min(values), 3),
            "median": round(statistics.median(values), 3),
            "most": round(max(values), 3),
        }
        table.add_row(name, *(f"{value:.3f}" for value in figures[name].values()))
    console = Console()
    console.print(table)
    if not has_hydra():
        console.print(f"not installed, so not compared with: {', '.join(HYDRA)}")
    if args.output:
        save(args.output, "benchmarks.launcher", PACKAGES, runs=args.runs, seconds=figures)


if __name__ == "__main__":
    main()
