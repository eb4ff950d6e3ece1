"""How each run stands: state, attempt, progress, how long it still takes, why it waits.

Slurm is asked once for all runs. What it no longer knows is in the run directory: results.json,
the ledger, the first failure; and sacct, where a site has it, knows jobs that never started. Of
each run as few files as possible are opened, one of a finished run: they lie on network storage.
"""

from __future__ import annotations

import contextlib
import re
import sys
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from jobs import (
    attachment,
    controller,
    estimate,
    failure,
    ledger,
    metrics,
    reasons,
    sweep,
    text,
)
from jobs.attachment import Launcher
from jobs.errors import WorkError
from jobs.estimate import Plan
from jobs.ledger import Attempt, Reason
from jobs.metrics import Progress
from jobs.queue import Job
from jobs.rundir import RunDirectory
from jobs.sweep import Element

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
ALIVE: tuple[State, ...] = ("queued", "running", "ending")
RESUME = "to go on: launch.py resume"
# Between two questions to Slurm while somebody watches.
POLL_SECONDS = 10.0
NO_PLAN = Plan()


@dataclass(frozen=True)
class Status:
    """How one run stands.

    `ends_at`: when the time of its attempt is over. `finishes_at`: when it will have ended, if it
    goes on as now. Both in seconds since the epoch, None where nobody can tell.
    """

    run: RunDirectory
    state: State
    attempt: int
    progress: Progress
    note: str
    plan: Plan = NO_PLAN
    ends_at: float | None = None
    finishes_at: float | None = None

    @property
    def is_alive(self) -> bool:
        """Whether it waits or runs."""
        return self.state in ALIVE


class Slurm:
    """What Slurm says about runs, asked again when `patience` seconds have gone by."""

    def __init__(self, patience: float = 0.0) -> None:
        self._patience = patience
        self._asked_at = float("-inf")
        self._live: dict[RunDirectory, list[Job]] = {}
        self._recorded: dict[str, str] = {}
        self.problem: str | None = None

    def live(self, runs: list[RunDirectory]) -> dict[RunDirectory, list[Job]]:
        """The queued and running jobs of each run; none, and a `problem`, if Slurm is silent."""
        if time.monotonic() - self._asked_at >= self._patience:
            self._live, self._recorded, self.problem = {}, {}, None
            try:
                self._live = live_jobs(runs)
            except WorkError as error:
                self.problem = str(error)
            self._asked_at = time.monotonic()
        return self._live

    def forget(self) -> None:
        """Ask anew at the next look."""
        self._asked_at = float("-inf")

    def recorded(self, jobs: set[str]) -> dict[str, str]:
        """The final states of jobs that the queue does not have, from accounting."""
        unasked = jobs - self._recorded.keys()
        if unasked and self.problem is None:
            answer = controller.recorded_states(sorted(unasked))
            self._recorded |= {job: answer.get(job, "") for job in unasked}
        return self._recorded


def collect(runs: list[RunDirectory], slurm: Slurm | None = None) -> list[Status]:
    """The status of each run, with one question to squeue and at most one to sacct.

    Args:
        runs: which ones.
        slurm: what was asked before, for whoever looks again and again and tells of its problem.
    """
    told = slurm is not None
    slurm = slurm or Slurm()
    live = slurm.live(runs)
    if slurm.problem and not told:
        print(f"Slurm does not answer: {slurm.problem}", file=sys.stderr)
    records = [_Record(run) for run in runs]
    ended = (each.untold_job for each in records if not live.get(each.run))
    recorded = slurm.recorded({job for job in ended if job})
    statuses = [_status(each, live.get(each.run, []), recorded) for each in records]
    return [_without_slurm(status) for status in statuses] if slurm.problem else statuses


def live_jobs(runs: list[RunDirectory]) -> dict[RunDirectory, list[Job]]:
    """The queued and running jobs of each run.

    They are recognised by the folder they work in, so a job that somebody queued by hand with
    `sbatch job.sbatch` is found too. The elements of an array work in one folder, their sweep's,
    and are told apart by their index.

    Raises:
        WorkError: Slurm is there and does not answer.
    """
    if not controller.is_installed() or not any(run.script.exists() for run in runs):
        return {}
    # Resolving looks at every folder above, so once for all runs that lie together.
    parents = {parent: parent.resolve() for parent in {run.path.parent for run in runs}}
    by_folder = {parents[run.path.parent] / run.path.name: run for run in runs}
    jobs: dict[RunDirectory, list[Job]] = {}
    elements: dict[Path, list[Element]] = {}
    for job in controller.queued_jobs(_owners(runs)):
        if job.state not in QUEUED | RUNNING | ENDING or Path(job.work_dir).name != "code":
            continue
        folder = Path(job.work_dir).parent.resolve()
        if job.index is not None:
            if folder not in elements:
                elements[folder] = sweep.read(folder)
            if job.index < len(elements[folder]):
                folder = folder / elements[folder][job.index].folder
        if folder in by_folder:
            jobs.setdefault(by_folder[folder], []).append(job)
    return jobs


def _owners(runs: list[RunDirectory]) -> set[str]:
    owners = set()
    for run in runs:
        with contextlib.suppress(OSError):  # removed meanwhile
            owners.add(str(run.path.stat().st_uid))
    return owners


def newest_job_id(run: RunDirectory) -> str | None:
    """The last job of a run by the pickles that its jobs were started from."""
    files = run.engine_files.glob("*_submitted.pkl")
    ids = [file.name.removesuffix("_submitted.pkl") for file in files]
    jobs = [job for job in ids if re.fullmatch(r"\d+(_\d+)?", job)]
    return max(jobs, key=lambda job: int(job.partition("_")[0]), default=None)


class _Record:
    """What lies in one run directory, each file read when it is first needed and once."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run

    @cached_property
    def results(self) -> dict[str, Any] | None:
        return metrics.results(self.run)

    @cached_property
    def attempts(self) -> list[Attempt]:
        return ledger.read(self.run)

    @cached_property
    def launcher(self) -> Launcher | None:
        return attachment.read(self.run)

    @cached_property
    def job(self) -> str | None:
        return newest_job_id(self.run)

    @property
    def last(self) -> Attempt | None:
        return self.attempts[-1] if self.attempts else None

    @property
    def untold_job(self) -> str | None:
        """The run's newest job if the run directory itself does not say how that ended."""
        try:
            if self.results:
                return None
            # A newer job than the last attempt's may have ended before it opened one.
            is_told = self.last and self.last.end and self.last.job_id == self.job
            return None if is_told else self.job
        except OSError:
            return None

    @property
    def is_marked(self) -> bool:
        """Whether `cancel` has ended the run's newest job, which may never have started."""
        return self.job is not None and self.run.cancelled(self.job).exists()


def _status(record: _Record, jobs: list[Job], recorded: dict[str, str]) -> Status:
    try:
        if jobs:
            return _live_status(record, jobs[-1])
        if record.results:
            return _finished_status(record, record.results)
        return _ended_status(record, recorded)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        # One damaged or foreign folder must not hide the others.
        return Status(record.run, "unknown", 0, Progress(), f"cannot be read: {error!r}")


def _without_slurm(status: Status) -> Status:
    """What is still known when Slurm cannot be asked: a job not heard of is not a job lost."""
    if status.state == "lost" and status.run.script.exists():
        return replace(status, state="unknown", note="Slurm does not answer")
    return status


def _live_status(record: _Record, job: Job) -> Status:
    state: State = "running"
    note = f"job {job.job_id}"
    if job.state in QUEUED:
        state = "queued"
        note += f": {reasons.explain(job.reason)}"
        if job.starts_at and job.starts_at > time.time():
            note += f", starts about {text.clock(job.starts_at)}"
    elif job.state in ENDING:
        state = "ending"
    return _with_times(record, state, note, job.ends_at)


def _finished_status(record: _Record, results: dict[str, Any]) -> Status:
    attempt = results.get("attempts")
    if not isinstance(attempt, int):
        attempt = record.last.attempt if record.last else 0
    progress = metrics.final_progress(results)
    return Status(record.run, "finished", attempt, progress, "", Plan(progress.epoch))


def _ended_status(record: _Record, recorded: dict[str, str]) -> Status:
    """A run that Slurm does not have (any more), or never had, and that is not finished."""
    if record.launcher and record.launcher.is_alive() is not False:
        note = f"process {record.launcher.pid} on {record.launcher.host}"
        return _with_times(record, "running", note, None)
    state, note = _end(record, recorded.get(record.job or "", ""))
    return _with_times(record, state, note, None)


def _with_times(record: _Record, state: State, note: str, ends_at: float | None) -> Status:
    plan, progress = estimate.read_plan(record.run), metrics.progress(record.run)
    finishes_at = None
    if state == "running":
        last = record.last
        if ends_at is None and last and last.job_id:
            ends_at = estimate.attempt_end(last, plan)
        # The lines may be an earlier attempt's, and of another number of GPUs.
        if last is None or progress.attempt in (None, last.attempt):
            finishes_at = estimate.run_end(progress, plan)
        if finishes_at and ends_at and finishes_at > ends_at:
            note += ", will need another attempt"
    else:
        ends_at = None
    number = record.last.attempt if record.last else 0
    return Status(record.run, state, number, progress, note, plan, ends_at, finishes_at)


def _end(record: _Record, recorded: str) -> tuple[State, str]:
    """How a run ended that is not finished, and what to do about it."""
    run, last = record.run, record.last
    if not last and not record.launcher and not run.script.exists():
        return "unknown", "not started by launch.py"
    first = failure.read(run, last.attempt) if last else None
    state: State = "lost"
    note = "its job is gone without a word" if last else "it never started"
    if first and (last is None or last.reason in (None, *FAILURES)):
        state, note = "failed", f"rank {first.rank} on {first.node}: {first.summarize()}"
    elif (last and last.reason == "cancelled") or recorded == "CANCELLED" or record.is_marked:
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
