"""Ending runs for good: nothing starts them again by itself."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from jobs import attachment, controller, ledger, rundir, status
from jobs.errors import RequestError
from jobs.rundir import RunDirectory
from jobs.text import count

# Stands for the job of an element whose turn has not come yet in a sweep without Slurm.
TURN = "turn"


def cancel(text: str | None, root: Path) -> int:
    """End the run or the whole sweep that `text` names, on Slurm or on this machine.

    Raises:
        RequestError: nothing is so named, or nothing of it is running or queued.
        WorkError: Slurm refuses, in its words.
    """
    runs = rundir.find_together(text, root)
    what = runs[0].label if len(runs) == 1 else f"the sweep {_label_of_sweep(runs[0])}"
    ended = _cancel_here(runs)
    jobs = status.live_jobs([run for run in runs if run not in ended])
    # The markers come first: a job that saves because of this must not ask for a requeue.
    for run in jobs:
        for job in jobs[run]:
            _mark(run, job.job_id)
    ids = [job.job_id for run in jobs for job in jobs[run]]
    if ids:
        controller.cancel(*ids)
    for run in jobs:
        for job in jobs[run]:
            run.note(f"job {job.job_id} cancelled")
            print(f"cancelled job {job.job_id} of {run.label}: its workers save and leave")
    if not ended and not ids:
        raise RequestError(f"{what} is neither queued nor running")
    if len(runs) > 1:
        print(f"cancelled {count(len(ended) + len(jobs), 'run')} of {what}")
    return 0


def _cancel_here(runs: list[RunDirectory]) -> list[RunDirectory]:
    """End what runs on this machine without Slurm; returns the runs that this ended."""
    attached = {run: attachment.read(run) for run in runs}
    alive = {run: each for run, each in attached.items() if each and each.is_alive() is not False}
    for run, launcher in alive.items():
        if launcher.is_alive() is None:
            raise RequestError(f"{run.label} runs on {launcher.host}; cancel it there")
    if alive and len(runs) > 1:
        # The process that they are attached to would go on with the next one.
        for run in runs:
            if not ledger.read(run):
                _mark(run, TURN)
    for run, launcher in alive.items():
        _mark(run, launcher.start_key)
        os.kill(launcher.pid, signal.SIGTERM)
        print(f"cancelled {run.label}: its workers save and leave")
    return list(alive)


def is_passed_over(run: RunDirectory) -> bool:
    """Whether the sweep of an element was cancelled before its turn came."""
    return run.cancelled(TURN).exists()


def is_cancelled_here(run: RunDirectory) -> bool:
    """Whether `cancel` has ended the start that this machine made last, and nobody's Ctrl-C."""
    launcher = attachment.read(run)
    return launcher is not None and run.cancelled(launcher.start_key).exists()


def _label_of_sweep(run: RunDirectory) -> str:
    return run.label.rpartition("/")[0]


def _mark(run: RunDirectory, job: str) -> None:
    # A full disk must not keep anybody from ending a job; Slurm's own word is as good there.
    with rundir.warning(f"cannot mark {job} as cancelled"):
        run.cancelled(job).touch()
