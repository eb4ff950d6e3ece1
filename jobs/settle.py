"""What follows from the end of an attempt, decided in one place when all of its tasks are gone.

The batch script runs `python -m jobs.settle RUN CODE` after srun, with srun's exit status. It
closes the attempt's line in the ledger, starts the run again exactly once if it is to go on, and
leaves with the exit code that the job is to have: 0 finished, 75 stopped, else srun's.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path

from configs import RecipeError, read_resolved
from configs.cluster import Cluster
from jobs import (
    again,
    budget,
    checkpoints,
    controller,
    deadline,
    digest,
    ending,
    failure,
    lease,
    ledger,
    metrics,
    place,
    refusal,
    told,
    verdict,
)
from jobs.again import say, say_last
from jobs.ledger import Attempt, Reason
from jobs.rundir import RunDirectory
from jobs.verdict import Evidence

STOPPED = 75
# So many starts may end in a row of which nothing could be written down.
MAX_UNRECORDED = 3
STOPS: set[Reason] = {"time limit", "preemption", "requeued", "cancelled", "stopped"}


def settle(run: RunDirectory, srun_code: int, environ: Mapping[str, str]) -> int:
    """Settle the start of the Slurm job that calls this; returns the job's exit code."""
    job = place.job_id_of(environ)
    restart_count = int(environ.get("SLURM_RESTART_COUNT", "0"))
    start_key = place.start_key(job, restart_count)
    # All tasks are gone, also one that was killed before it could release the run.
    lease.release(run, start_key)
    entry = ledger.find(run, job, restart_count)
    if entry is None and metrics.results(run) is not None:
        return 0  # the tasks have said so
    refused = refusal.read(run, start_key)
    if entry is None and (refused or srun_code == failure.CONFIGURATION_ERROR):
        say(run, f"job {job} is not started again: {refused or 'its log says why'}")
        return failure.CONFIGURATION_ERROR
    if entry is None and _is_anothers(run, start_key):
        say(run, f"job {job} ended before it held the run, and leaves it to the start that does")
        return srun_code or 1
    cluster = _cluster(run)
    evidence = _gather(run, job, environ["SLURM_JOB_ID"], entry, srun_code, restart_count, cluster)
    if any(each.how == "displaced" for each in evidence.endings):
        say(run, f"job {job} leaves the run to the start that holds it now")
        return srun_code or 1
    reason = verdict.judge(evidence)
    is_opened = entry is not None
    # A start that opened no attempt counts as one, or such starts would go on for ever.
    entry = entry or ledger.open_attempt(run, _place(job, restart_count, environ))
    entry = _close(run, entry, reason, evidence)
    _tell(run, job, entry, reason, evidence, is_opened=is_opened)
    if reason == "finished":
        return 0
    objection = _objection(run, entry, cluster)
    _go_on_or_say_why(run, job, reason, evidence, entry, objection, cluster)
    return STOPPED if reason in STOPS else srun_code or 1


def settle_or_go_on(run: RunDirectory, srun_code: int, environ: Mapping[str, str]) -> int:
    """Settle the start; if that fails by itself, the run still goes on or leaves a word."""
    try:
        return settle(run, srun_code, environ)
    except Exception:
        job = place.job_id_of(environ)
        say(run, f"job {job} could not be settled:\n{traceback.format_exc().rstrip()}")
        return _go_on_unsettled(run, job, srun_code, environ)


def _go_on_unsettled(
    run: RunDirectory, job: str, srun_code: int, environ: Mapping[str, str]
) -> int:
    restart_count = int(environ.get("SLURM_RESTART_COUNT", "0"))
    now = controller.look_at(job)
    if run.cancelled(job).exists() or metrics.results(run) is not None:
        return srun_code
    if now and now.restarts > restart_count:
        return srun_code or STOPPED
    # The next start closes the attempt's line and looks at the budgets, if it comes so far.
    objection = _objection_to_loss(run, job, restart_count)
    refused = objection or controller.requeue(job)
    if refused:
        say_last(run, f"the run is not started again: {refused}")
        return srun_code or 1
    say(run, f"job {job} is requeued")
    return srun_code or STOPPED


def settle_here(run: RunDirectory, attempt: Attempt, start_key: str) -> None:
    """Settle an attempt without Slurm; nothing starts it again by itself."""
    first = failure.read(run, attempt.attempt)
    endings = ending.read_all(run, attempt.attempt)
    evidence = Evidence(
        srun_code=0,
        has_results=metrics.results(run) is not None,
        is_marked=run.cancelled(start_key).exists(),
        first=first,
        endings=endings,
    )
    reason = verdict.judge(evidence)
    if reason in ("time limit", "preemption"):
        reason = "stopped"
    own = [each.exit_code for each in endings if each.rank == 0]
    code = first.exit_code if first else next(iter(own), None)
    ledger.close_attempt(run, attempt, reason, code)


def _is_anothers(run: RunDirectory, start_key: str) -> bool:
    holder = lease.read(run)
    return holder is not None and holder.start_key != start_key and lease.is_alive(run)


def _objection(run: RunDirectory, entry: Attempt, cluster: Cluster) -> str | None:
    """Why the run may not go on by itself after this attempt, which a full disk may not show."""
    entries = ledger.read(run)
    if entry.attempt in {each.attempt for each in entries}:
        return budget.objection(entries, cluster.max_crashes)
    loss = _objection_to_loss(run, entry.job_id, entry.restart_count)
    return loss or budget.objection([*entries, entry], cluster.max_crashes)


def _objection_to_loss(run: RunDirectory, job: str | None, restart_count: int) -> str | None:
    """Why a run may not go on of whose last starts the ledger has nothing: it could be for ever."""
    known = [-1]
    with contextlib.suppress(OSError):
        known += [each.restart_count for each in ledger.read(run) if each.job_id == job]
    if restart_count - max(known) < MAX_UNRECORDED:
        return None
    return f"nothing could be written down of its last {MAX_UNRECORDED} starts"


def _cluster(run: RunDirectory) -> Cluster:
    try:
        return read_resolved(run.config).cluster
    except (OSError, RecipeError):
        return Cluster()


def _gather(
    run: RunDirectory,
    job: str,
    log_id: str,
    entry: Attempt | None,
    srun_code: int,
    restart_count: int,
    cluster: Cluster,
) -> Evidence:
    return Evidence(
        srun_code=srun_code,
        restart_count=restart_count,
        has_results=metrics.results(run) is not None,
        is_marked=run.cancelled(job).exists(),
        is_refused=refusal.read(run, place.start_key(job, restart_count)) is not None,
        first=failure.read(run, entry.attempt) if entry else None,
        endings=ending.read_all(run, entry.attempt) if entry else [],
        told=told.read(run, log_id, restart_count),
        now=controller.look_at(job),
        signal_lead=deadline.stop_lead_seconds(cluster),
    )


def _close(run: RunDirectory, entry: Attempt, reason: Reason, evidence: Evidence) -> Attempt:
    unfit = sorted({each.node for each in evidence.endings if each.how == "unfit"})
    code = evidence.first.exit_code if evidence.first else evidence.srun_code
    if reason in STOPS and code in verdict.STOP_CODES:
        code = STOPPED  # srun may have met the signal, too
    if reason == "finished":
        code = 0  # a signal may still meet a task that has nothing left to do
    return ledger.close_attempt(run, entry, reason, code, unfit)


def _tell(
    run: RunDirectory,
    job: str,
    entry: Attempt,
    reason: Reason,
    evidence: Evidence,
    *,
    is_opened: bool,
) -> None:
    """How the attempt ended, in the run's story and in the job's log."""
    what = f"attempt {entry.attempt}"
    what += "" if is_opened else f" (job {job}, before it was opened)"
    say(run, f"{what}: ended: {reason}")
    for each in evidence.endings:
        if each.how == "unfit":
            say(run, f"{what}: {each.node} is unfit: {each.words or 'its log says why'}")
    if any(each.how == "overdue" for each in evidence.endings):
        saved = checkpoints.newest(run)
        where = f"from the checkpoint of step {saved.step}" if saved else "from the beginning"
        say(run, f"{what}: its workers did not save in time and were killed; it goes on {where}")


def _go_on_or_say_why(
    run: RunDirectory,
    job: str,
    reason: Reason,
    evidence: Evidence,
    entry: Attempt,
    objection: str | None,
    cluster: Cluster,
) -> None:
    """Start the run again, once, or leave a last word."""
    if objection:
        text = digest.write(run, entry.attempt)
        if text and reason in (*budget.CRASHES, "configuration error"):
            say(run, text)
        say_last(run, f"the run is not started again: {objection}")
    elif evidence.comes_back:
        say(run, f"job {job} was requeued, not by this run, and goes on when Slurm starts it")
    elif reason == "preemption" and not evidence.runs:
        say_last(run, f"job {job} was preempted and Slurm does not start it again here")
    elif reason == "cancelled":
        say_last(run, f"job {job} was cancelled and is not started again")
    else:
        again.start(run, job, evidence.restart_count, cluster, entry.unfit_nodes)


def _place(job: str, restart_count: int, environ: Mapping[str, str]) -> place.Place:
    key = place.start_key(job, restart_count)
    nodes = (environ.get("SLURM_JOB_NODELIST", "?"),)
    follow_up = environ.get(place.FOLLOW_UP) == "yes"
    workers = int(environ.get("SLURM_NTASKS", "1"))
    return place.Place(0, 0, workers, 1, job, restart_count, nodes[0], nodes, key, follow_up)


if __name__ == "__main__":
    code = settle_or_go_on(RunDirectory(Path(sys.argv[1])), int(sys.argv[2]), os.environ)
    os._exit(code)  # as in launch.py: quicker than Python's own end
