"""The opening of an attempt by rank 0's parent: it holds the run, numbers the attempt, says where.

Nothing of it happens twice for one start, and all of it is undone when the task ends.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from configs.cluster import Cluster
from jobs import (
    budget,
    checkpoints,
    controller,
    deadline,
    failure,
    lease,
    ledger,
    ports,
    rendezvous,
    space,
    told,
    verdict,
)
from jobs.deadline import Limits
from jobs.errors import RequestError
from jobs.lease import Lease
from jobs.ledger import Attempt, Reason
from jobs.place import Place
from jobs.rendezvous import Meeting, StoppedError
from jobs.rundir import RunDirectory, seconds_of
from jobs.stop import StopRequest
from jobs.text import count


@dataclass(frozen=True)
class Opening:
    """An open attempt."""

    meeting: Meeting
    entry: Attempt
    lease: Lease


@contextlib.contextmanager
def hold(run: RunDirectory, here: Place, cluster: Cluster, stop: StopRequest) -> Iterator[Opening]:
    """Open the next attempt for the body of the with.

    Raises:
        RequestError: another start holds the run, or the run has ended for good.
        StoppedError: a request to stop came first.
    """
    where = f"job {here.job_id}" if here.job_id else f"process {os.getppid()} on {here.node}"
    space.await_room(run, lambda: stop.signal is not None)
    _leave_if_asked(stop)
    try:
        held = lease.take(run, here.start_key, where, lambda: stop.signal is not None)
    except RequestError:
        _leave_if_asked(stop)
        raise
    try:
        _leave_if_asked(stop)
        _refuse_if_cancelled(run, here)
        _close_what_was_left(run, here)
        _check_budget(run, here, cluster)
        limits = deadline.ask(here.job_id) if here.job_id else Limits()
        with ports.reserve() as port:
            entry = ledger.open_attempt(run, here)
            address = "127.0.0.1"
            if here.job_id:
                address = rendezvous.address_of(here.node, cluster.host_suffix)
            meeting = Meeting(address, port.number, entry.attempt, limits)
            run.attempt(entry.attempt).mkdir(exist_ok=True)
            _announce(run, here, meeting)
            rendezvous.publish(run, here, meeting)
            yield Opening(meeting, entry, held)
    finally:
        held.release()


def _leave_if_asked(stop: StopRequest) -> None:
    if stop.signal:
        raise StoppedError(f"asked to stop by {stop.signal.name} before the attempt was opened")


def _refuse_if_cancelled(run: RunDirectory, here: Place) -> None:
    jobs = {here.job_id}
    if here.follow_up:
        jobs |= {entry.job_id for entry in ledger.read(run)[-1:]}
    for job in filter(None, jobs):
        if run.cancelled(job).exists():
            raise RequestError(
                f"job {job} was cancelled; to go on: python launch.py resume {run.path}"
            )


def _close_what_was_left(run: RunDirectory, here: Place) -> None:
    """Close the lines of attempts whose node died before they could be settled."""
    for left in ledger.read(run):
        if left.end is None:
            _close(run, here, left)


def _close(run: RunDirectory, here: Place, left: Attempt) -> None:
    first = failure.read(run, left.attempt)
    reason: Reason = "lost"
    if left.job_id:
        words = told.read(
            run, here.log_id if left.job_id == here.job_id else left.job_id, left.restart_count
        )
        starts = controller.recorded_starts(left.job_id)
        reason = verdict.judge_from_afar(words, starts, seconds_of(left.start))
    if reason == "lost" and first:
        reason = "out of memory" if first.out_of_memory else "crash"
    ledger.close_attempt(run, left, reason, first.exit_code if first else None)
    run.note(f"attempt {left.attempt} left no word of its end: {reason}")


def _check_budget(run: RunDirectory, here: Place, cluster: Cluster) -> None:
    entries = ledger.read(run)
    by_itself = here.follow_up or any(entry.job_id == here.job_id for entry in entries)
    if not here.job_id or not by_itself:
        return  # a person wants it
    objection = budget.objection(entries, cluster.max_crashes)
    if objection:
        raise RequestError(
            f"not started again: {objection}; to go on: python launch.py resume {run.path}"
        )


def _announce(run: RunDirectory, here: Place, meeting: Meeting) -> None:
    saved = checkpoints.newest(run)
    job = f"job {here.job_id}" if here.job_id else "this machine"
    text = (
        f"attempt {meeting.attempt}: {job} on {', '.join(here.nodes)}, "
        f"{count(here.world_size, 'worker')}, code {run.code}, "
        f"meeting at {meeting.address}:{meeting.port}"
        + (f", going on from step {saved.step}" if saved else "")
    )
    run.note(text)
    if here.job_id:
        print(text, file=sys.stderr, flush=True)
