"""Curves as SVG, drawn for a page that loads nothing."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from jobs.markup import tag

WIDTH, HEIGHT = 560, 280
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 10, 40
COLORS = 8
MOST_POINTS = 600

Point = tuple[float, float]
Place = Callable[[Point], Point]


@dataclass(frozen=True)
class Line:
    """One curve: where it goes, and which of the page's colours it has; beyond them it is dashed.

    Lines of one label share an entry of the legend.
    """

    label: str
    points: list[Point]
    color: int
    marked: bool = False
    """Whether every point has a dot, which tells its value."""


@dataclass(frozen=True)
class Event:
    """Something that happened at a step."""

    step: float
    words: str


def draw(
    title: str,
    lines: Sequence[Line],
    *,
    unit: str = "",
    from_zero: bool = False,
    events: Sequence[Event] = (),
) -> Element:
    """A figure with its title, its legend and the curves over the steps."""
    drawn = [line for line in lines if line.points]
    if not drawn:
        nothing = tag("p", "Nothing was logged yet.", class_="quiet")
        return tag("figure", tag("figcaption", title), nothing, class_="chart")
    xs = [x for line in drawn for x, _ in line.points]
    ys = [y for line in drawn for _, y in line.points]
    last = max(*xs, 1)
    x_ticks = ticks(0, last, wanted=6)
    y_ticks = ticks(0 if from_zero else min(ys), max(ys))

    def place(point: Point) -> Point:
        return (
            _between(point[0], 0, last, LEFT, WIDTH - RIGHT),
            _between(point[1], y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP),
        )

    picture = tag(
        "svg",
        *_axes(x_ticks, y_ticks, last, place),
        *(_event(event, place((event.step, y_ticks[0]))[0]) for event in events),
        *(part for line in drawn for part in _curve(line, place, unit)),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=describe(title, drawn, unit),
    )
    return tag("figure", tag("figcaption", title), _legend(drawn, unit), picture, class_="chart")


def describe(title: str, lines: Sequence[Line], unit: str) -> str:
    """The curves in words, for who cannot see them."""
    told = [
        f"{line.label} from {number(line.points[0][1])}{unit} "
        f"to {number(line.points[-1][1])}{unit} at step {number(line.points[-1][0])}"
        for line in lines
    ]
    return f"{title} by step: {'; '.join(told)}"


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers from at most `low` to at least `high`, about so many."""
    if high - low < sys.float_info.min * wanted:
        high = low + (abs(low) or 1.0)
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def thin(points: list[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most about `most` points in which no peak is lost: the ends of each stretch."""
    if len(points) <= most:
        return points
    size = math.ceil(len(points) / (most // 2))
    kept = []
    for start in range(0, len(points), size):
        part = points[start : start + size]
        kept += sorted({min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])})
    return kept


def number(value: float) -> str:
    """A value with four digits, thousands as k."""
    if abs(value) >= 10_000:
        return f"{value / 1000:.4g}k"
    return f"{value:.4g}"


def _between(value: float, low: float, high: float, start: float, end: float) -> float:
    # Values that differ in their last bits alone are equal to the eye.
    share = (value - low) / (high - low) if high > low else 0.5
    return start + share * (end - start)


def _axes(x_ticks: list[float], y_ticks: list[float], last: float, place: Place) -> list[Element]:
    parts = []
    for value in y_ticks:
        _, y = place((0, value))
        parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=_r(y), y2=_r(y), class_="grid"))
        parts.append(tag("text", number(value), x=LEFT - 8, y=_r(y + 4), class_="y"))
    for value in x_ticks:
        if value <= last:
            x, _ = place((value, y_ticks[0]))
            parts.append(tag("text", number(value), x=_r(x), y=HEIGHT - BOTTOM + 18, class_="x"))
    parts.append(tag("text", "step", x=WIDTH - RIGHT, y=HEIGHT - 4, class_="axis"))
    return parts


def _curve(line: Line, place: Place, unit: str) -> list[Element]:
    placed = [place(point) for point in thin(line.points)]
    path = "M" + "L".join(f"{_r(x)} {_r(y)}" for x, y in placed)
    style = f"curve c{line.color % COLORS}" + (" dashed" if line.color >= COLORS else "")
    parts = [tag("path", tag("title", line.label), d=path, class_=style)]
    if line.marked:
        for point in thin(line.points):
            x, y = place(point)
            words = f"{line.label}, step {point[0]:.0f}: {number(point[1])}{unit}"
            dot = tag("circle", tag("title", words), cx=_r(x), cy=_r(y), r=3)
            dot.set("class", f"dot c{line.color % COLORS}")
            parts.append(dot)
    return parts


def _event(event: Event, x: float) -> Element:
    line = tag("line", x1=_r(x), x2=_r(x), y1=TOP, y2=HEIGHT - BOTTOM, class_="event")
    line.append(tag("title", event.words))
    return line


def _legend(lines: Sequence[Line], unit: str) -> Element:
    entries: dict[str, list[Line]] = {}
    for line in lines:
        entries.setdefault(line.label, []).append(line)
    items = []
    for label, together in entries.items():
        color = together[0].color
        swatch = tag(
            "svg",
            tag(
                "line",
                x1=0,
                x2=22,
                y1=5,
                y2=5,
                class_=f"curve c{color % COLORS}" + (" dashed" if color >= COLORS else ""),
            ),
            viewBox="0 0 22 10",
            class_="swatch",
            aria_hidden="true",
        )
        last = f" {number(together[0].points[-1][1])}{unit}" if len(together) == 1 else ""
        items.append(tag("li", swatch, label, tag("b", last) if last else None))
    return tag("ul", *items, class_="legend")


def _r(value: float) -> float:
    """A coordinate: tenths of a pixel are plenty."""
    return round(value, 1)
