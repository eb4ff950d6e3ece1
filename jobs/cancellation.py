"""Ending a run for good: nothing starts it again by itself."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from jobs import attachment, controller, rundir, status
from jobs.errors import RequestError


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
            run.cancelled(launcher.start_key).touch()
            os.kill(launcher.pid, signal.SIGTERM)
            print(f"cancelled {run.label}: its workers save and leave")
            return 0
    jobs = status.live_jobs([run]).get(run, [])
    if not jobs:
        raise RequestError(f"{run.label} is neither queued nor running")
    for job in jobs:
        # The marker comes first: a job that saves because of this must not ask for a requeue.
        run.cancelled(job.job_id).touch()
        controller.cancel(job.job_id)
        run.note(f"job {job.job_id} cancelled")
        print(f"cancelled job {job.job_id} of {run.label}: its workers save and leave")
    return 0
