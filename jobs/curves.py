"""A curve drawn in characters, for terminals far away."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

Point = tuple[float, float]

BRAILLE = 0x2800
# The bit of each dot of a braille character, by column and row.
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
LABEL_WIDTH = 7


def draw(points: Sequence[Point], width: int, height: int, *, braille: bool) -> list[str]:
    """`height` lines of at most `width` characters: the highest and lowest value, and the curve.

    Args:
        points: (step, value), steps rising. Where several share a column their mean is drawn.
        width: in characters, labels included.
        height: in characters.
        braille: eight dots a character; without, stars.
    """
    if not points:
        return [""] * height
    columns, rows = (2, 4) if braille else (1, 1)
    across, down = max(1, width - LABEL_WIDTH - 1) * columns, height * rows
    values = _column_values(points, across)
    low, high = min(values), max(values)
    span = high - low or 1.0
    heights = [round((value - low) / span * (down - 1)) for value in values]
    if high == low:
        heights = [(down - 1) // 2] * len(heights)
    filled = [[False] * len(heights) for _ in range(down)]
    before = heights[0]
    for column, now in enumerate(heights):
        # From where the last column ended, so that a steep curve has no holes.
        first, last = sorted((now, before + (now > before) - (now < before)))
        for row in range(first, last + 1):
            filled[down - 1 - row][column] = True
        before = now
    cells = _braille_lines(filled) if braille else ["".join(" *"[dot] for dot in r) for r in filled]
    labels = [""] * height
    labels[-1], labels[0] = _label(low), _label(high)
    return [
        f"{label:>{LABEL_WIDTH}} {line}".rstrip() for label, line in zip(labels, cells, strict=True)
    ]


def _column_values(points: Sequence[Point], across: int) -> list[float]:
    """The value in each of `across` columns: means, and straight lines over what is between."""
    first, last = points[0][0], points[-1][0]
    scale = (across - 1) / (last - first) if last > first else 0.0
    found: dict[int, list[float]] = {}
    for step, value in points:
        found.setdefault(round((step - first) * scale), []).append(value)
    means = {column: sum(values) / len(values) for column, values in sorted(found.items())}
    known = list(means)
    values = [means[known[0]]]
    for left, right in itertools.pairwise(known):
        slope = (means[right] - means[left]) / (right - left)
        values += [means[left] + slope * (column - left) for column in range(left + 1, right + 1)]
    return values


def _braille_lines(filled: Sequence[Sequence[bool]]) -> list[str]:
    lines = []
    for top in range(0, len(filled), 4):
        codes = [BRAILLE] * (-(-len(filled[0]) // 2))
        for row in range(4):
            for column, dot in enumerate(filled[top + row]):
                if dot:
                    codes[column // 2] |= DOTS[column % 2][row]
        lines.append("".join(map(chr, codes)))
    return lines


def _label(value: float) -> str:
    """A value in at most LABEL_WIDTH characters."""
    return f"{value:.4g}" if value == 0 or 0.1 <= abs(value) < 1e4 else f"{value:.1e}"
