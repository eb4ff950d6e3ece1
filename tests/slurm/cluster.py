"""What tests on the cluster do again and again: submit, wait for states, look into accounting."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from jobs.rundir import RunDirectory
from tests.conftest import PROJECT
from tests.jobs.workplace import Workplace, eventually, ledger_lines
from tests.train import depth

SMALL = (
    "--config", "stub.yaml", "--engine", "slurm",
    "--set", "cluster.nodes=2", "--set", "cluster.gpus_per_node=1",
    "--set", "cluster.time_limit=00:10:00",
)  # fmt: skip
WIDE = ("--set", "cluster.gpus_per_node=2")
LONG = ("--set", "cluster.env.STUB_STEPS='3000'")
PATIENCE_SECONDS = 300  # four processes share two slow cores


def slurm(workplace: Workplace, *command: str) -> str:
    """What one of Slurm's programs prints."""
    return subprocess.run(
        command, env=dict(workplace.environment), capture_output=True, text=True, check=True
    ).stdout


def take_real_worker(workplace: Workplace) -> None:
    """Put the real worker in the stub's place, with the network of tests/train/depth.py."""
    worker = workplace.project / "train"
    shutil.rmtree(worker)
    shutil.copytree(PROJECT / "train", worker, ignore=shutil.ignore_patterns("__pycache__"))
    model = worker / "model.py"
    line = f"BLOCKS = {depth.blocks()}"
    assert line in model.read_text()
    model.write_text(model.read_text().replace(line, f"BLOCKS = {depth.SHALLOW}"))


def submit(workplace: Workplace, *arguments: str) -> tuple[RunDirectory, str]:
    """Queue a stub worker on each of two nodes, with WIDE two on each; the run and its job id."""
    before = set(workplace.runs)
    done = workplace.launch(*SMALL, *arguments)
    assert done.returncode == 0, done.stderr
    [run] = set(workplace.runs) - before
    match = re.search(r"submitted job (\d+)", done.stdout)
    assert match, done.stdout
    return run, match.group(1)


def await_end(workplace: Workplace, job: str, seconds: float = PATIENCE_SECONDS) -> str:
    """Wait until a job has ended; its state by Slurm's accounting.

    Not its exit code: that is the highest of all tasks, those that srun then ended included.
    """
    going_on = ("PENDING", "RUNNING", "REQUEUED", "RESIZING", "SUSPENDED", "COMPLETING")

    def ended() -> str | None:
        state = slurm(workplace, "sacct", "-X", "-n", "-P", "--format=State", "-j", job).strip()
        return state if state and not state.startswith(going_on) else None

    final: str = eventually(f"job {job} ends", ended, seconds)
    return final


def await_step(run: RunDirectory, attempt: int) -> None:
    """Wait until an attempt has written down a step."""

    def has_steps() -> bool:
        wanted = f'"attempt": {attempt}'
        # The stubs do not wait for each other at their start, as the workers of train/ do.
        if not ledger_lines(run):  # started without launch.py, so it cannot be seen; two seconds on
            return run.metrics.exists() and '"step": 20,' in run.metrics.read_text()
        logs = [log for log in run.attempt(attempt).glob("rank-*.log") if log.stat().st_size]
        are_up = bool(logs) and len(logs) == ledger_lines(run)[attempt - 1]["workers"]
        return are_up and run.metrics.exists() and wanted in run.metrics.read_text()

    eventually(f"a step of attempt {attempt}", has_steps, PATIENCE_SECONDS)


def await_ledger_end(run: RunDirectory, attempt: int) -> dict[str, Any]:
    """Wait until an attempt's line in the ledger is complete, and return it."""

    def line() -> dict[str, Any] | None:
        lines = ledger_lines(run)
        return lines[attempt - 1] if len(lines) >= attempt and lines[attempt - 1]["end"] else None

    found: dict[str, Any] = eventually(f"attempt {attempt} is closed", line, PATIENCE_SECONDS)
    return found


def await_status(workplace: Workplace, run: RunDirectory, state: str) -> None:
    """Wait until `launch.py status` gives a run a state; jobs end over some seconds."""

    def said() -> bool:
        return workplace.launch("status", run.label).stdout.splitlines()[1].split()[1] == state

    eventually(f"{run.label} is {state}", said, PATIENCE_SECONDS)


def await_restart(workplace: Workplace, job: str) -> None:
    """Wait until a requeued job runs again; Slurm holds it back for a while, here for 11 s."""

    def runs() -> bool:
        return slurm(workplace, "squeue", "-h", "-j", job, "-o", "%T").strip() == "RUNNING"

    eventually(f"job {job} runs again", runs, PATIENCE_SECONDS)


def path_without(folder: Path, missing: str) -> str:
    """A PATH on which one program is not found."""
    folder.mkdir()
    for each in reversed(os.environ["PATH"].split(os.pathsep)):
        for program in Path(each).glob("*"):
            (folder / program.name).unlink(missing_ok=True)
            (folder / program.name).symlink_to(program)
    (folder / missing).unlink()
    return str(folder)
