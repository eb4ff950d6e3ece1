"""How long a run waited and how long it worked, from its ledger and its story.

Nothing is asked of Slurm, whose accounting may be off, or forget: the run directory has it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from jobs import files
from jobs.ledger import Attempt
from jobs.rundir import RunDirectory, seconds_of

LIVE = ("running", "ending")
SUBMITTED = re.compile(r"(\S+Z) (?:submitted|resumed by hand) as job (\S+)")


@dataclass(frozen=True)
class Span:
    """One attempt: the seconds that it waited in the queue and that it ran; None if unknown."""

    waited: float | None
    lasted: float | None
    workers: int


@dataclass(frozen=True)
class Times:
    """All attempts together, in seconds; None where a part is unknown.

    `queue`: from each submission or requeue to the start that followed, and of a queued run until
    now. `wall`: the attempts, start to end. `gpu`: the same times the workers of each. `lost`: what
    the ledger counts as lost.
    """

    queue: float | None = None
    wall: float | None = None
    gpu: float | None = None
    lost: float = 0.0


def spans(run: RunDirectory, attempts: list[Attempt], state: str, now: float) -> list[Span]:
    """The times of each attempt.

    Args:
        run: the run directory.
        attempts: its ledger, oldest first.
        state: of the run, as `status` tells it.
        now: in seconds since the epoch.
    """
    submitted = submissions(run)
    found = []
    before: Attempt | None = None
    for entry in attempts:
        end = _end(run, entry, now if entry is attempts[-1] and state in LIVE else None)
        found.append(
            Span(
                waited=_waited(entry, before, submitted),
                lasted=None if end is None else max(0.0, end - seconds_of(entry.start)),
                workers=entry.workers or len(entry.nodes),
            )
        )
        before = entry
    return found


def total(
    run: RunDirectory, attempts: list[Attempt], parts: list[Span], state: str, now: float
) -> Times:
    """The sums over a run's attempts, whose times are `parts`."""
    waits = [part.waited for part in parts]
    if state == "queued":
        waits.append(_waiting(run, attempts, now))
    return Times(
        queue=_sum(waits),
        wall=_sum([part.lasted for part in parts]),
        gpu=_sum([None if part.lasted is None else part.lasted * part.workers for part in parts]),
        lost=sum(entry.gpu_seconds_lost or 0.0 for entry in attempts),
    )


def submissions(run: RunDirectory) -> dict[str, float]:
    """When each job of the run was given to Slurm, in seconds since the epoch, by its id."""
    lines = (SUBMITTED.match(line) for line in files.read_lines(run.launcher_log))
    found = {}
    for match in filter(None, lines):
        try:
            found[match[2]] = seconds_of(match[1])
        except ValueError:
            continue
    return found


def _waited(entry: Attempt, before: Attempt | None, submitted: dict[str, float]) -> float | None:
    if entry.job_id is None:
        return 0.0  # without Slurm there is no queue
    came: float | None = None
    if before and not entry.afresh:
        # Requeued, or followed by another job, when the attempt before it ended.
        came = seconds_of(before.end) if before.end else None
    elif entry.restart_count == 0 or before is None:
        came = submitted.get(entry.job_id)
    return None if came is None else max(0.0, seconds_of(entry.start) - came)


def _waiting(run: RunDirectory, attempts: list[Attempt], now: float) -> float | None:
    """How long a queued run has waited by now."""
    since = list(submissions(run).values())
    since += [seconds_of(entry.end) for entry in attempts if entry.end]
    return max(0.0, now - max(since)) if since else None


def _end(run: RunDirectory, entry: Attempt, now: float | None) -> float | None:
    if entry.end:
        return seconds_of(entry.end)
    if now is not None:
        return now
    try:
        # Nobody could write down the end. Whoever holds a run refreshes its lease while it lives.
        return run.lease.stat().st_mtime
    except OSError:
        return None


def _sum(parts: list[float | None]) -> float | None:
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None
