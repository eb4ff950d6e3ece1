"""Starting a run again, once: the same job if Slurm requeues it, else a job that follows it.

`cancel` may come at any moment: its marker is looked at before each order and after it, so that
whichever of the two is later, the job ends.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from pathlib import Path

from configs.cluster import Cluster
from jobs import controller, files, ledger
from jobs.errors import WorkError
from jobs.rundir import RunDirectory

# A controller that is restarted or busy is asked again.
PAUSE_SECONDS = 10.0
PATIENCE_SECONDS = 180.0
# What is left of the job's time for the last word.
LAST_SECONDS = 20.0


def start(
    run: RunDirectory, job: str, restart_count: int, cluster: Cluster, newly_unfit: list[str]
) -> None:
    """Start the run again or leave a last word."""
    if _is_cancelled(run, job):
        return
    excluded = exclusions(run, cluster)
    refusal = _requeue(run, job, restart_count)
    if refusal is None:
        say(run, f"job {job} is requeued")
        # Slurm keeps a requeued job's exclusions, but says nothing of those in its script.
        refusal = controller.exclude(job, excluded) if newly_unfit else None
        if refusal:
            say(run, f"and may get {', '.join(newly_unfit)} again: {refusal}")
        _end_if_cancelled(run, job, job)
        return
    if _is_cancelled(run, job):
        return
    say(run, f"job {job} cannot be requeued: {refusal}")
    follower, refusal = controller.follow(job, run.script, excluded)
    if follower:
        say(run, f"job {follower} follows it")
        _end_if_cancelled(run, job, follower)
    else:
        say_last(run, f"no job can follow it either: {refusal}")


def exclusions(run: RunDirectory, cluster: Cluster) -> list[str]:
    """The nodes to leave out: what Slurm is told replaces the recipe's own, so both together.

    Empty if no node was unfit: then the script says it all.
    """
    trusted = (files.read_json(_trusted(run)) or {}).get("attempt", 0)
    entries = [entry for entry in ledger.read(run) if entry.attempt > trusted]
    unfit = sorted({node for entry in entries for node in entry.unfit_nodes})
    own = cluster.sbatch.get("exclude")
    return [str(own), *unfit] if own and unfit else unfit


def trust_nodes(run: RunDirectory) -> None:
    """Leave no node out any more for what was found until now."""
    attempts = [entry.attempt for entry in ledger.read(run)]
    files.write_json(_trusted(run), {"attempt": max(attempts, default=0)})


def _trusted(run: RunDirectory) -> Path:
    return run.engine_files / "trusted.json"


def say(run: RunDirectory, text: str) -> None:
    """Tell the run's story and the job's own log."""
    run.note(text)
    print(text, file=sys.stderr, flush=True)


def say_last(run: RunDirectory, text: str) -> None:
    """Say why the run does not go on by itself, and how it goes on."""
    say(run, f"{text}; to go on: python launch.py resume {run.path}")


def _requeue(run: RunDirectory, job: str, restart_count: int) -> str | None:
    """Requeue the job; returns Slurm's words if it refuses, or does not answer for long."""
    ends_at = time.monotonic() + PATIENCE_SECONDS
    with contextlib.suppress(KeyError, ValueError):
        left = float(os.environ["SLURM_JOB_END_TIME"]) - time.time()
        ends_at = min(ends_at, time.monotonic() + left - LAST_SECONDS)
    is_told = False
    while (refusal := controller.requeue(job)) is not None:
        now = controller.look_at(job)
        if now and now.restarts > restart_count:
            return None  # it took place, and Slurm did not say so in time
        # Who answers questions has meant the refusal.
        silent = now is None and shutil.which("scontrol") is not None
        if not silent or time.monotonic() > ends_at or run.cancelled(job).exists():
            break
        if not is_told:
            say(run, f"job {job} is not requeued yet, Slurm will be asked again: {refusal}")
        is_told = True
        time.sleep(PAUSE_SECONDS)
    return refusal


def _is_cancelled(run: RunDirectory, job: str) -> bool:
    if run.cancelled(job).exists():
        say_last(run, f"job {job} was cancelled and is not started again")
        return True
    return False


def _end_if_cancelled(run: RunDirectory, job: str, started: str) -> None:
    if _is_cancelled(run, job):
        # The next start looks for the marker too.
        with contextlib.suppress(WorkError):
            controller.cancel(started)
