"""The attempt ledger, attempts.jsonl: one line for each time the run's job was started.

Only rank 0's parent writes it. A line is added when an attempt starts and completed when it ends,
each time by replacing the file, so that no reader and no crash meets half a line.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Literal

from jobs import metrics
from jobs.place import Place
from jobs.rundir import RunDirectory, timestamp

Reason = Literal["finished", "stopped", "cancelled", "crash", "configuration error", "lost"]


@dataclass(frozen=True)
class Attempt:
    """One line of the ledger; `end` and what follows it are null while the attempt runs."""

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


def read(run: RunDirectory) -> list[Attempt]:
    """All attempts so far, oldest first."""
    try:
        lines = run.attempts.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [Attempt(**json.loads(line)) for line in lines]


def open_attempt(run: RunDirectory, place: Place) -> Attempt:
    """Write down that the next attempt starts here and now.

    A line that the attempt before left open (its node died, say) is closed as lost.
    """
    entries = read(run)
    if entries and entries[-1].end is None:
        entries[-1] = _closed(run, entries[-1], "lost", None)
    attempt = Attempt(
        attempt=len(entries) + 1,
        job_id=place.job_id,
        restart_count=place.restart_count,
        nodes=list(place.nodes),
        start=timestamp(),
    )
    _write(run, [*entries, attempt])
    return attempt


def close_attempt(run: RunDirectory, number: int, reason: Reason, exit_code: int) -> None:
    """Complete the line of an attempt that has ended."""
    _write(
        run,
        [
            _closed(run, entry, reason, exit_code) if entry.attempt == number else entry
            for entry in read(run)
        ],
    )


def is_closed(run: RunDirectory, number: int) -> bool:
    """Whether rank 0 has written down the end of an attempt."""
    return any(entry.attempt == number and entry.end for entry in read(run))


def _closed(run: RunDirectory, entry: Attempt, reason: Reason, exit_code: int | None) -> Attempt:
    steps = _logged_steps(run, entry.attempt)
    return dataclasses.replace(
        entry,
        end=timestamp(),
        reason=reason,
        exit_code=exit_code,
        first_step=min(steps, default=None),
        last_step=max(steps, default=None),
    )


def _logged_steps(run: RunDirectory, number: int) -> list[int]:
    return [line["step"] for line in metrics.read(run) if line.get("attempt") == number]


def _write(run: RunDirectory, entries: list[Attempt]) -> None:
    draft = run.attempts.with_name(".attempts.jsonl.partial")
    lines = (json.dumps(dataclasses.asdict(entry)) for entry in entries)
    draft.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    draft.replace(run.attempts)
