"""The attempt ledger, attempts.jsonl: one line for each time the run's job was started.

Rank 0's parent adds a line when an attempt starts; whoever settles the attempt completes it. Each
time the file is replaced, so that no reader and no crash meets half a line.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Literal

from jobs import checkpoints, files, metrics
from jobs.place import Place
from jobs.rundir import RunDirectory, seconds_of, timestamp, warning

Reason = Literal[
    "finished",
    "time limit",
    "preemption",
    "requeued",  # by someone outside
    "node failure",
    "out of memory",
    "crash",
    "unfit node",
    "cancelled",
    "stopped",  # a local run, by whoever started it
    "configuration error",
    "lost",  # nothing tells more
]


@dataclass(frozen=True)
class Attempt:
    """One line of the ledger; `end` and what follows it are null while the attempt runs.

    `gpu_seconds_lost` is the number of workers times the seconds from this attempt's newest
    checkpoint (from its start if it has none) to its end; 0 if the run finished.
    """

    attempt: int
    job_id: str | None
    restart_count: int
    nodes: list[str]
    start: str
    end: str | None = None
    reason: Reason | None = None
    exit_code: int | None = None
    first_step: int | None = None
    last_step: int | None = None
    workers: int | None = None
    afresh: bool = False
    """A person started this one: budgets count from here."""
    saved_step: int | None = None
    """The newest complete checkpoint when the attempt ended."""
    gpu_seconds_lost: float | None = None
    unfit_nodes: list[str] = field(default_factory=list)


_KEYS = {key.name for key in dataclasses.fields(Attempt)}
_NEEDED = {"attempt", "job_id", "restart_count", "nodes", "start"}


def read(run: RunDirectory) -> list[Attempt]:
    """All attempts so far, oldest first."""
    rows = (files.parse(line) for line in files.read_lines(run.attempts))
    return [
        Attempt(**{key: row[key] for key in row.keys() & _KEYS})
        for row in rows
        if row and row.keys() >= _NEEDED
    ]


def find(run: RunDirectory, job_id: str, restart_count: int) -> Attempt | None:
    """The attempt that one start of a job is, if it came as far as opening one."""
    starts = {(entry.job_id, entry.restart_count): entry for entry in read(run)}
    return starts.get((job_id, restart_count))


def open_attempt(run: RunDirectory, place: Place) -> Attempt:
    """Write down that the next attempt starts here and now."""
    entries = read(run)
    known = place.job_id is not None and any(entry.job_id == place.job_id for entry in entries)
    attempt = Attempt(
        attempt=_next_number(run, entries),
        job_id=place.job_id,
        restart_count=place.restart_count,
        nodes=list(place.nodes),
        start=timestamp(),
        workers=place.world_size,
        # A requeue keeps the job's id, and a follow-up job says that it is one.
        afresh=not known and not place.follow_up,
    )
    _write(run, [*entries, attempt])
    return attempt


def close_attempt(
    run: RunDirectory,
    attempt: Attempt,
    reason: Reason,
    exit_code: int | None,
    unfit_nodes: list[str] | None = None,
) -> Attempt:
    """Complete the line of an attempt that has ended, and return it; a closed one stays as it is.

    A line that a full disk has kept out of the file is added.
    """
    entries = {entry.attempt: entry for entry in read(run)}
    now = entries.get(attempt.attempt, attempt)
    if now.end is None:
        now = _closed(run, now, reason, exit_code, unfit_nodes or [])
        _write(run, [*(entries | {now.attempt: now}).values()])
    return now


def _next_number(run: RunDirectory, entries: list[Attempt]) -> int:
    """One more than any attempt's, also one whose line was lost: its folder is its own."""
    folders = (path.name.partition("-")[2] for path in run.path.glob("attempt-*"))
    numbers = [int(name) for name in folders if name.isdecimal()]
    return 1 + max([*numbers, *(entry.attempt for entry in entries)], default=0)


def _closed(
    run: RunDirectory,
    entry: Attempt,
    reason: Reason,
    exit_code: int | None,
    unfit_nodes: list[str],
) -> Attempt:
    steps = _logged_steps(run, entry.attempt)
    saved = checkpoints.newest(run)
    end = timestamp()
    lost_from = max(entry.start, (saved and saved.saved_at) or "")
    lost = 0.0 if reason == "finished" else seconds_of(end) - seconds_of(lost_from)
    return dataclasses.replace(
        entry,
        end=end,
        reason=reason,
        exit_code=exit_code,
        first_step=min(steps, default=None),
        last_step=max(steps, default=None),
        saved_step=saved.step if saved else None,
        # The clocks of two machines may differ by a little.
        gpu_seconds_lost=max(0.0, lost) * (entry.workers or len(entry.nodes)),
        unfit_nodes=unfit_nodes,
    )


def _logged_steps(run: RunDirectory, number: int) -> list[int]:
    rows = (row for row in metrics.read(run) if row.get("attempt") == number)
    return [row["step"] for row in rows if "step" in row]


def _write(run: RunDirectory, entries: list[Attempt]) -> None:
    lines = (json.dumps(dataclasses.asdict(entry)) for entry in entries)
    with warning(f"cannot write {run.attempts}"):
        files.write_whole(run.attempts, "".join(f"{line}\n" for line in lines))
