"""The screen of `watch` for one run: bars, figures, curves, the end of its log."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from jobs import curves, estimate
from jobs.curves import Point
from jobs.status import Status
from jobs.table import STATE_STYLES
from jobs.text import clock, printable, short_duration

GAP = 2
BLANK = Text("")
LEAST_CURVE_LINES, MOST_CURVE_LINES = 4, 20


@dataclass(frozen=True)
class View:
    """What there is to show of one run at one moment."""

    status: Status
    losses: Sequence[Point]
    scores: Sequence[Point]
    log_name: str
    log_lines: Sequence[str]


def render(view: View, console: Console, height: int) -> Group:
    """The screen, not higher than `height` lines and as wide as the console."""
    parts: list[RenderableType] = [*_head(view.status, console.width)]
    left = height - len(parts)
    bars = _bars(view.status)
    if bars:
        figures = _figures(view.status)
        parts += [bars, *map(_line, figures)]
        left -= bars.row_count + len(figures)
    lines = [clean(line, console) for line in view.log_lines]
    has_curves = len(view.losses) + len(view.scores) > 0
    log_height = min(len(lines) + 2, max(5, left // 3) if has_curves else left) if lines else 0
    curve_height = min(left - log_height - 1, MOST_CURVE_LINES)
    if has_curves and curve_height >= LEAST_CURVE_LINES:
        parts += [BLANK, *_curves(view, console, curve_height - 1)]
        left -= curve_height + 1
    if lines and left > 2:
        parts += [BLANK, _line(view.log_name, style="dim"), *map(_line, lines[-(left - 2) :])]
    return Group(*parts)


def footer(text: str) -> Text:
    """The last line of the screen."""
    return _line(text, style="dim")


def clean(line: str, console: Console) -> str:
    """A line of a log as a screen takes it."""
    # Of a bar that draws itself anew only the last state.
    text = line.rstrip("\r").rpartition("\r")[2].expandtabs(4)
    return text.encode(console.encoding, "replace").decode(console.encoding)


def _line(text: str, style: str = "") -> Text:
    return Text(printable(text), style=style, no_wrap=True, overflow="crop")


def _head(status: Status, width: int) -> list[Text]:
    state = status.state + (f", attempt {status.attempt}" if status.attempt else "")
    gap = max(GAP, width - len(status.run.label) - len(state))
    head = _line(status.run.label + " " * gap + state, style="bold")
    head.stylize(STATE_STYLES.get(status.state, ""), len(status.run.label) + gap)
    return [head, _line(status.note)]


def _bars(status: Status) -> Table | None:
    """How far the epoch and the run are; None before the first line of its metrics."""
    progress, plan = status.progress, status.plan
    if progress.step is None:
        return None
    bars = Table.grid(padding=(0, 1), expand=True)
    for ratio in (None, 1, None, None):
        bars.add_column(ratio=ratio, no_wrap=True)
    length = estimate.steps_per_epoch(progress, plan)
    done = progress.epoch_step or 0
    if length and progress.epoch_step is None:
        done = length  # what was written last is the evaluation after its last step
    epoch = f"epoch {progress.epoch}/{plan.epochs or '?'}" if progress.epoch else ""
    if length and epoch:
        bars.add_row(epoch, *_bar(done, length))
        epoch = ""
    bars.add_row(", ".join(filter(None, ["run", epoch])), *_bar(progress.step, progress.steps))
    return bars


def _bar(done: int, total: int | None) -> tuple[RenderableType, str, str]:
    share = f"{int(100 * done / total)}%" if total else ""
    return (
        ProgressBar(total=total or 1, completed=done if total else 0),
        f"{share:>4}",
        f"{done}/{total or '?'}",
    )


def _figures(status: Status) -> list[str]:
    progress = status.progress
    speed, times = [], []
    if progress.images_per_second is not None:
        speed.append(f"{progress.images_per_second:.0f} images/s")
    if progress.memory_mb is not None:
        speed.append(f"memory {progress.memory_mb / 1024:.1f} GB")
    if progress.loss is not None:
        speed.append(f"loss {progress.loss:.4f}")
    if progress.lr is not None:
        speed.append(f"lr {progress.lr:.3g}")
    if progress.last_score is not None:
        times.append(f"top-1 {progress.last_score:.2f} % (best {progress.best_score:.2f} %)")
    if status.ends_at:
        left = short_duration(status.ends_at - time.time())
        times.append(f"{left} left in this attempt")
    if status.finishes_at:
        left = short_duration(status.finishes_at - time.time())
        times.append(f"ends in {left}, {clock(status.finishes_at)}")
    return ["   ".join(words) for words in (speed, times) if words]


def _curves(view: View, console: Console, height: int) -> list[Text]:
    """Loss and accuracy side by side, each with its title."""
    width = (console.width - GAP) // 2
    braille = console.encoding.startswith("utf")
    columns = []
    for title, points in (("loss", view.losses), ("top-1 %", view.scores)):
        lines = curves.draw(points, width, height, braille=braille)
        head = f"{'':{curves.LABEL_WIDTH}} {title}" + (_steps(points) if points else ": none yet")
        columns.append([head, *lines])
    return [
        _line(f"{left:<{width}}{' ' * GAP}{right}".rstrip())
        for left, right in zip(*columns, strict=True)
    ]


def _steps(points: Sequence[Point]) -> str:
    first, last = points[0][0], points[-1][0]
    return f", step {first:.0f}" + (f" to {last:.0f}" if last > first else "")
