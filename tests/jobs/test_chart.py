"""Curves: round ticks around any values, and no peak lost where points are left out."""

from __future__ import annotations

import pytest

from jobs import chart, markup
from jobs.chart import Line


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 128, [0, 25, 50, 75, 100, 125, 150]),
        (85.2, 98.6, [85, 90, 95, 100]),
        (0, 0.0025, [0, 0.0005, 0.001, 0.0015, 0.002, 0.0025]),
        (7, 7, [6, 8, 10, 12, 14]),
        (0, 0, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
    ],
)
def test_ticks_are_round_and_hold_the_values(
    low: float, high: float, expected: list[float]
) -> None:
    wanted = 6 if high == 128 else 5

    assert chart.ticks(low, high, wanted) == pytest.approx(expected)


@pytest.mark.parametrize(
    "values", [[1.0, 1.0 + 2**-52], [5e-324, 0.0], [1e99, -1e99], [0.0], [-3.0, -3.0]]
)
def test_any_values_can_be_drawn(values: list[float]) -> None:
    line = Line("loss", [(float(step), value) for step, value in enumerate(values)], 0, marked=True)
    drawn = markup.write(chart.draw("Loss", [line]))

    assert "<path" in drawn
    assert "nan" not in drawn
    assert "inf" not in drawn


def test_thinned_curves_keep_their_peaks_and_their_order() -> None:
    points = [(float(step), float(step % 7)) for step in range(10_000)]
    points[4321] = (4321.0, 99.0)
    points[8765] = (8765.0, -99.0)
    kept = chart.thin(points)

    assert len(kept) <= chart.MOST_POINTS
    assert kept == sorted(kept)
    assert {points[4321], points[8765]} <= set(kept)
    assert chart.thin(points[:600]) == points[:600]


def test_lines_of_one_label_share_its_entry_in_the_legend() -> None:
    lines = [Line("a", [(1, 2.0)], 0), Line("a", [(1, 3.0)], 0), Line("b", [(1, 4.5)], 9)]
    drawn = chart.draw("Loss", lines)

    entries = ["".join(item.itertext()) for item in drawn.iterfind("ul/li")]
    assert entries == ["a", "b 4.5"]
    styles = [path.get("class") for path in drawn.iterfind("svg/path")]
    assert styles == ["curve c0", "curve c0", "curve c1 dashed"]
