"""Ctrl-C at many moments of a launch and of a resume, on a real cluster: no orphans, no halves."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from jobs.rundir import RunDirectory
from tests.jobs.workplace import Workplace
from tests.slurm.cluster import LONG, SMALL, await_end, slurm, submit

pytestmark = pytest.mark.slurm


def interrupted(workplace: Workplace, seconds: float, *arguments: str) -> tuple[int, str]:
    """Ctrl-C in the terminal of a command after some seconds: exit code and standard output."""
    process = subprocess.Popen(
        [sys.executable, "launch.py", *arguments],
        cwd=workplace.project,
        env=dict(workplace.environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    return process.returncode, output


def jobs_by_folder(workplace: Workplace) -> dict[str, list[str]]:
    """Every job that the controller knows, by the folder it works in."""
    jobs: dict[str, list[str]] = {}
    for line in slurm(workplace, "squeue", "-h", "--states=all", "-o", "%i|%Z").splitlines():
        job, _, folder = line.partition("|")
        jobs.setdefault(folder, []).append(job)
    return jobs


def moments(outcomes: list[bool]) -> Iterator[float]:
    """Later and later in a command, until it was through three times: `outcomes` tells."""
    for step in range(60):
        yield 0.05 * 1.12**step
        if outcomes[-3:] == [True] * 3:
            return
    pytest.fail("it never came through")


def test_a_launch_has_queued_its_job_and_says_so_or_nothing_is_left(workplace: Workplace) -> None:
    command = (*SMALL, *LONG, "--set", "cluster.sbatch.hold=true")
    outcomes: list[bool] = []
    for seconds in moments(outcomes):
        before = set(workplace.runs)

        code, output = interrupted(workplace, seconds, *command)

        added = set(workplace.runs) - before
        told = re.findall(r"^submitted job (\d+)", output, flags=re.MULTILINE)
        jobs = [jobs_by_folder(workplace).get(str(run.code), []) for run in added]
        assert jobs == ([told] if told else []), (seconds, code, output)
        assert code in (0, 130, -signal.SIGINT, 1)
        outcomes.append(bool(told))
    folders = {str(run.code) for run in workplace.runs}
    mine = {folder for folder in jobs_by_folder(workplace) if str(workplace.project) in folder}
    assert mine == folders, "each job has its run"
    assert not list(workplace.logs.glob("**/.*.partial"))
    assert outcomes.count(False) > 5, "in the middle, too"


def test_a_resume_has_queued_its_job_and_says_so_or_the_run_is_as_it_was(
    workplace: Workplace,
) -> None:
    run, job = submit(workplace)
    await_end(workplace, job)
    held = ("--set", "cluster.sbatch.hold=true")
    command = ("resume", run.label, "--set", "schedule.epochs=40", *held)
    as_it_was = state(run)
    outcomes: list[bool] = []
    for seconds in moments(outcomes):
        give_back(workplace, run, as_it_was)

        _, output = interrupted(workplace, seconds, *command)

        told = re.findall(r"^submitted job (\d+)", output, flags=re.MULTILINE)
        queued = slurm(workplace, "squeue", "-h", "-o", "%i").split()
        assert queued == told, (seconds, output)
        assert told or state(run) == as_it_was
        outcomes.append(bool(told))
    assert outcomes.count(False) > 5, "in the middle, too"


def state(run: RunDirectory) -> dict[str, bytes]:
    """What a resume changes."""
    files = [run.config, run.script, *run.path.glob("results*.json")]
    return {path.name: path.read_bytes() for path in files}


def give_back(workplace: Workplace, run: RunDirectory, before: dict[str, bytes]) -> None:
    """Undo a resume that went through."""
    jobs = slurm(workplace, "squeue", "-h", "-o", "%i").split()
    if jobs:
        slurm(workplace, "scancel", *jobs)
    for path in run.path.glob("results-step-*.json"):
        path.unlink()
    for name, content in before.items():
        (run.path / name).write_bytes(content)
