"""Ending a run for good: nothing starts it again by itself."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from jobs import attachment, controller, rundir, status
from jobs.errors import RequestError
from jobs.rundir import RunDirectory


def cancel(text: str | None, root: Path) -> int:
    """End the run that `text` names, on Slurm or on this machine.

    Raises:
        RequestError: no run is so named, or it is not running and not queued.
        WorkError: Slurm refuses, in its words.
    """
    run = rundir.find_one(text, root)
    launcher = attachment.read(run)
    if launcher:
        if launcher.is_alive() is None:
            raise RequestError(f"{run.label} runs on {launcher.host}; cancel it there")
        if launcher.is_alive():
            _mark(run, launcher.start_key)
            os.kill(launcher.pid, signal.SIGTERM)
            print(f"cancelled {run.label}: its workers save and leave")
            return 0
    jobs = status.live_jobs([run]).get(run, [])
    if not jobs:
        raise RequestError(f"{run.label} is neither queued nor running")
    for job in jobs:
        # The marker comes first: a job that saves because of this must not ask for a requeue.
        _mark(run, job.job_id)
        controller.cancel(job.job_id)
        run.note(f"job {job.job_id} cancelled")
        print(f"cancelled job {job.job_id} of {run.label}: its workers save and leave")
    return 0


def _mark(run: RunDirectory, job: str) -> None:
    # A full disk must not keep anybody from ending a job; Slurm's own word is as good there.
    with rundir.warning(f"cannot mark {job} as cancelled"):
        run.cancelled(job).touch()
