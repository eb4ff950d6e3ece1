"""How each run stands, one line a run: state, attempt, progress, scores, why it waits.

Slurm is asked once for all runs. What it no longer knows is in the run directory: results.json,
the ledger, the first failure; and sacct, where a site has it, knows jobs that never started.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from jobs import attachment, controller, failure, ledger, metrics, rundir
from jobs.controller import Job
from jobs.errors import WorkError
from jobs.ledger import Attempt, Reason
from jobs.metrics import Progress
from jobs.rundir import RunDirectory

State = Literal[
    "queued", "running", "ending", "finished", "failed", "cancelled", "stopped", "lost", "unknown"
]

QUEUED = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
RUNNING = {"RUNNING", "CONFIGURING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT"}
ENDING = {"COMPLETING"}
ENDED_BADLY = {"FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE", "TIMEOUT"}
FAILURES: tuple[Reason, ...] = (
    "crash", "out of memory", "unfit node", "configuration error",
)  # fmt: skip
RESUME = "to go on: launch.py resume"
REASONS = {
    "Resources": "waits for free nodes",
    "Priority": "waits behind jobs of higher priority",
    "BeginTime": "held back until its start time, after a requeue for two minutes",
    "Dependency": "waits for another job",
    "PartitionTimeLimit": "its time limit is over the partition's; cancel it and ask for less",
    "ReqNodeNotAvail": "a node that it needs is down or reserved",
    "JobHeldUser": "held; release it with scontrol release",
    "JobHeldAdmin": "held by an administrator",
    "QOSMaxJobsPerUserLimit": "waits: too many jobs of yours run",
}


@dataclass(frozen=True)
class Status:
    """What one line says."""

    run: RunDirectory
    state: State
    attempt: int
    progress: Progress
    note: str


def show(texts: list[str], root: Path) -> int:
    """Print the status of the named runs, or of all.

    Raises:
        RequestError: a name fits no run, or there are no runs.
    """
    runs = rundir.find_many(texts, root)
    rows = [_HEADER, *(_row(status) for status in collect(runs))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADER))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    return 0


def collect(runs: list[RunDirectory]) -> list[Status]:
    """The status of each run, with one question to squeue and at most one to sacct."""
    try:
        live, answers = live_jobs(runs), True
    except WorkError as error:
        print(f"Slurm does not answer: {error}", file=sys.stderr)
        live, answers = {}, False
    unknown = {run: newest_job_id(run) for run in runs if not live.get(run)}
    ask = [job for run, job in unknown.items() if answers and job and not _is_told(run)]
    recorded = controller.recorded_states(ask)
    statuses = [
        _status(run, live.get(run, []), recorded.get(unknown.get(run) or "")) for run in runs
    ]
    return statuses if answers else [_without_slurm(status) for status in statuses]


def live_jobs(runs: list[RunDirectory]) -> dict[RunDirectory, list[Job]]:
    """The queued and running jobs of each run.

    They are recognised by the folder they work in, so a job that somebody queued by hand with
    `sbatch job.sbatch` is found too.

    Raises:
        WorkError: Slurm is there and does not answer.
    """
    by_folder = {run.code.resolve(): run for run in runs if run.script.exists()}
    if not by_folder or not controller.is_installed():
        return {}
    users = {str(run.path.stat().st_uid) for run in by_folder.values()}
    jobs: dict[RunDirectory, list[Job]] = {}
    for job in controller.queued_jobs(users):
        run = by_folder.get(Path(job.work_dir).resolve())
        if run and job.state in QUEUED | RUNNING | ENDING:
            jobs.setdefault(run, []).append(job)
    return jobs


def _is_told(run: RunDirectory) -> bool:
    """Whether the run directory itself says how the run ended."""
    attempts = ledger.read(run)
    if metrics.results(run):
        return True
    # A newer job than the last attempt's may have ended before it opened one.
    return bool(attempts and attempts[-1].end and attempts[-1].job_id == newest_job_id(run))


def _is_marked(run: RunDirectory) -> bool:
    """Whether `cancel` has ended the run's newest job, which may never have started."""
    job = newest_job_id(run)
    return job is not None and run.cancelled(job).exists()


def newest_job_id(run: RunDirectory) -> str | None:
    """The last job of a run by the pickles that its jobs were started from."""
    files = run.engine_files.glob("*_submitted.pkl")
    ids = [file.name.removesuffix("_submitted.pkl") for file in files]
    jobs = [job for job in ids if re.fullmatch(r"\d+(_\d+)?", job)]
    return max(jobs, key=lambda job: int(job.partition("_")[0]), default=None)


def _status(run: RunDirectory, jobs: list[Job], recorded: str | None) -> Status:
    try:
        return _read_status(run, jobs, recorded)
    except (OSError, ValueError, KeyError, TypeError) as error:
        # One damaged or foreign folder must not hide the others.
        return Status(run, "unknown", 0, Progress(), f"cannot be read: {error!r}")


def _without_slurm(status: Status) -> Status:
    """What is still known when Slurm cannot be asked: a job not heard of is not a job lost."""
    if status.state == "lost" and status.run.script.exists():
        return replace(status, state="unknown", note="Slurm does not answer")
    return status


def _read_status(run: RunDirectory, jobs: list[Job], recorded: str | None) -> Status:
    attempts = ledger.read(run)
    number = attempts[-1].attempt if attempts else 0
    if jobs:
        job = jobs[-1]
        state: State = "queued" if job.state in QUEUED else "running"
        note = f"job {job.job_id}"
        if state == "queued":
            note += f": {REASONS.get(job.reason, job.reason)}"
        elif job.state in ENDING:
            state = "ending"
    else:
        state, note = _ended(run, recorded)
    return Status(run, state, number, metrics.progress(run), note)


def _ended(run: RunDirectory, recorded: str | None) -> tuple[State, str]:
    """The state of a run that Slurm does not have (any more), or never had."""
    launcher = attachment.read(run)
    attempts = ledger.read(run)
    last = attempts[-1] if attempts else None
    first = failure.read(run, last.attempt) if last else None
    state: State = "lost"
    note = "its job is gone without a word" if last else "it never started"
    if metrics.results(run):
        return "finished", ""
    if launcher and launcher.is_alive() is not False:
        return "running", f"process {launcher.pid} on {launcher.host}"
    if not last and not launcher and not run.script.exists():
        return "unknown", "not started by launch.py"
    if first and (last is None or last.reason in (None, *FAILURES)):
        state, note = "failed", f"rank {first.rank} on {first.node}: {first.summarize()}"
    elif (last and last.reason == "cancelled") or recorded == "CANCELLED" or _is_marked(run):
        state, note = "cancelled", ""
    elif recorded == "PREEMPTED":
        state, note = "stopped", "preempted, and not started again on this site"
    elif recorded in ENDED_BADLY:
        state, note = "failed", f"Slurm says {recorded}"
    elif last and last.reason in FAILURES:
        state, note = "failed", _nodes_or_reason(last)
    elif last and last.reason == "stopped":
        state, note = "stopped", "saved and not started again"
    elif last and last.reason not in (None, "lost"):
        state, note = "stopped", f"{last.reason}, and not started again"
    return state, "; ".join(filter(None, [note, RESUME]))


def _nodes_or_reason(last: Attempt) -> str:
    nodes = ", ".join(last.unfit_nodes)
    return f"unfit: {nodes}" if nodes else str(last.reason)


_HEADER = ("RUN", "STATE", "ATTEMPT", "STEP", "EPOCH", "BEST", "LAST", "NOTE")


def _row(status: Status) -> tuple[str, ...]:
    progress = status.progress
    steps = f"{progress.step}/{progress.steps or '?'}" if progress.step is not None else "-"
    return (
        status.run.label,
        status.state,
        str(status.attempt or "-"),
        steps,
        str(progress.epoch or "-"),
        _percent(progress.best_score),
        _percent(progress.last_score),
        status.note,
    )


def _percent(score: float | None) -> str:
    return "-" if score is None else f"{score:.2f}"
