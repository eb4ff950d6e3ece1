"""The rows of `status`: one a run, a summary for a sweep, as wide as the terminal allows."""

from __future__ import annotations

import textwrap
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.status import State, Status
from jobs.text import clock, count, short_duration

if TYPE_CHECKING:
    from rich.text import Text

COLUMNS = (
    "RUN", "STATE", "ATTEMPT", "STEP", "DONE", "EPOCH",
    "IMG/S", "BEST", "LAST", "LEFT", "ENDS", "NOTE",
)  # fmt: skip
# What fits into 80 characters; the rest is told in a line below.
NARROW = ("RUN", "STATE", "DONE", "IMG/S", "BEST", "LAST", "ENDS")
# The state of a sweep is the first of these that any of its runs has.
PRECEDENCE: tuple[State, ...] = (
    "running", "ending", "queued", "failed", "lost", "unknown", "stopped", "cancelled", "finished",
)  # fmt: skip
SMALL_SWEEP = 10
GAP = 2


@dataclass(frozen=True)
class Row:
    """One row: what is in each column, and in words what a narrow table leaves out."""

    state: State
    cells: dict[str, str]
    short_label: str
    ends: str = ""
    """ENDS as people say it."""
    details: list[str] = field(default_factory=list)
    is_alive: bool = False

    @property
    def note(self) -> str:
        """The last column."""
        return self.cells["NOTE"]


def make_rows(statuses: Sequence[Status], *, with_elements: bool) -> list[Row]:
    """The rows for some runs, those of one sweep below a summary.

    Args:
        statuses: of the runs, the elements of a sweep next to each other.
        with_elements: whether every element gets a row. If not, only those of a sweep that is
            small and not over yet do.
    """
    rows: list[Row] = []
    for _, group in groupby(statuses, key=lambda status: status.run.sweep or status.run.path):
        together = list(group)
        if len(together) == 1:
            rows.append(make_row(together[0]))
            continue
        rows.append(_summary(together))
        is_alive = any(status.is_alive for status in together)
        if with_elements or (is_alive and len(together) < SMALL_SWEEP):
            rows += [make_row(status, label=f"  {status.run.path.name}") for status in together]
    return rows


def make_row(status: Status, label: str | None = None) -> Row:
    """The row of one run; on a terminal it is called `label`."""
    progress, plan = status.progress, status.plan
    steps = epochs = done = "-"
    if progress.step is not None:
        steps = f"{progress.step}/{progress.steps or '?'}"
        done = _percent_done(_share(status))
    if progress.epoch is not None:
        epochs = f"{progress.epoch}/{plan.epochs}" if plan.epochs else str(progress.epoch)
    left = short_duration(status.ends_at - time.time()) if status.ends_at else "-"
    cells = {
        "RUN": status.run.label,
        "STATE": status.state,
        "ATTEMPT": str(status.attempt or "-"),
        "STEP": steps,
        "DONE": done,
        "EPOCH": epochs,
        "IMG/S": _speed(progress.images_per_second),
        "BEST": _score(progress.best_score),
        "LAST": _score(progress.last_score),
        "LEFT": left,
        "ENDS": _moment(status.finishes_at),
        "NOTE": status.note,
    }
    details = []
    if status.is_alive and progress.step is not None:
        details += [f"epoch {epochs}", f"step {steps}"]
    if status.is_alive and status.attempt:
        details.append(f"attempt {status.attempt}" + (f" ({left} left)" if status.ends_at else ""))
    return Row(
        state=status.state,
        cells=cells,
        short_label=label or status.run.label,
        ends=clock(status.finishes_at) if status.finishes_at else "-",
        details=[*details, *([status.note] if status.note else [])],
        is_alive=status.is_alive,
    )


def _summary(statuses: list[Status]) -> Row:
    """The row of a sweep as a whole."""
    states = Counter(status.state for status in statuses)
    state = next(each for each in PRECEDENCE if each in states)
    scores = [each.progress.best_score for each in statuses if each.progress.best_score is not None]
    speeds = [
        each.progress.images_per_second
        for each in statuses
        if each.state == "running" and each.progress.images_per_second
    ]
    # While some have not begun, nobody knows when they will.
    waits = any(each.is_alive and not each.finishes_at for each in statuses)
    ends = None if waits else max((each.finishes_at or 0.0 for each in statuses), default=0.0)
    sweep = statuses[0].run.path.parent
    parts = (f"{states[each]} {each}" for each in PRECEDENCE if each in states)
    note = f"{count(len(statuses), 'run')}: {', '.join(parts)}"
    cells = dict.fromkeys(COLUMNS, "-") | {
        "RUN": _label(sweep),
        "STATE": state,
        "DONE": _percent_done(sum(map(_share, statuses)) / len(statuses)),
        "IMG/S": _speed(sum(speeds) or None),
        "BEST": _score(max(scores, default=None)),
        "ENDS": _moment(ends or None),
        "NOTE": note,
    }
    return Row(
        state=state,
        cells=cells,
        short_label=_label(sweep),
        ends=clock(ends) if ends else "-",
        details=[note],
        is_alive=any(status.is_alive for status in statuses),
    )


def _label(sweep: Path) -> str:
    return "/".join(sweep.parts[-2:])


def _share(status: Status) -> float:
    """How much of the run is done, from 0 to 1."""
    if status.state == "finished":
        return 1.0
    step, steps = status.progress.step, status.progress.steps
    return min(1.0, step / steps) if step and steps else 0.0


def _percent_done(share: float) -> str:
    # Rounded down: 100% is said of what is done.
    return f"{int(100 * share)}%"


def _score(score: float | None) -> str:
    return "-" if score is None else f"{score:.2f}"


def _speed(images_per_second: float | None) -> str:
    return "-" if images_per_second is None else f"{images_per_second:.0f}"


def _moment(seconds: float | None) -> str:
    return time.strftime("%Y-%m-%dT%H:%M", time.localtime(seconds)) if seconds else "-"


def plain_lines(rows: Iterable[Row]) -> list[str]:
    """All columns in one line a row, for scripts: no cell but the last one has a blank in it."""
    table = [list(COLUMNS), *([row.cells[name] for name in COLUMNS] for row in rows)]
    return ["  ".join(cells).rstrip() for cells in _padded(table)]


def terminal_lines(rows: Sequence[Row], width: int) -> list[Text]:
    """The table for a terminal: what does not fit beside a run is told in a line below it."""
    from rich.text import Text

    from jobs.table import STATE_STYLES

    for columns in (COLUMNS[:-1], NARROW):
        table = _padded([columns, *(_terminal_cells(row, columns) for row in rows)])
        lines = [Text("  ".join(cells)) for cells in table]
        if len(lines[0]) <= width:
            break
    shown = [lines[0]]
    lines[0].stylize("bold")
    for row, line in zip(rows, lines[1:], strict=True):
        start = len(line.plain) - len(line.plain.lstrip())
        state_at = line.plain.index(row.state, start + len(row.short_label.strip()))
        line.stylize(STATE_STYLES.get(row.state, ""), state_at, state_at + len(row.state))
        words = row.note if columns is not NARROW else ", ".join(filter(None, row.details))
        shown.append(line)
        if words and len(line) + GAP + len(words) <= width:
            line.append("  " + words)
        elif words:
            indent = " " * (start + GAP)
            below = textwrap.wrap(words, width, initial_indent=indent, subsequent_indent=indent)
            shown += [Text(piece, style="dim") for piece in below]
        line.rstrip()
    return shown


def fit(rows: Sequence[Row], width: int, height: int) -> tuple[list[Text], int]:
    """The table in at most `height` lines, and how many rows that cost: the oldest that are over.

    Where what is alive is too much alone, the oldest of that goes too.
    """
    kept = list(rows)
    lines = terminal_lines(kept, width)
    while len(lines) > height and kept:
        over = [row for row in kept if not row.is_alive]
        kept.remove((over or kept)[0])
        lines = terminal_lines(kept, width)
    return lines, len(rows) - len(kept)


def _terminal_cells(row: Row, columns: Sequence[str]) -> list[str]:
    special = {"RUN": row.short_label, "ENDS": row.ends}
    return [special.get(name, row.cells[name]) for name in columns]


def _padded(table: Sequence[Sequence[str]]) -> list[list[str]]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)] for cells in table
    ]
