"""The curves of a run, read on as they grow."""

from __future__ import annotations

import math
import os
from pathlib import Path

from jobs import files
from jobs.curves import Point


class History:
    """The loss and the accuracy by step; only what was added since is read again.

    Args:
        path: a run's metrics.jsonl; it may not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self.losses: list[Point] = []
        self.scores: list[Point] = []
        self._path = path
        self._position = 0
        self._file_number = 0

    def update(self) -> None:
        """Read what is new."""
        try:
            with self._path.open("rb") as file:
                state = os.fstat(file.fileno())
                # A new attempt drops the lines after its checkpoint, in place or by a new file.
                if state.st_ino != self._file_number or state.st_size < self._position:
                    self._start_again(state.st_ino)
                file.seek(self._position)
                added, newline, _ = file.read().rpartition(b"\n")
        except OSError:
            return
        self._position += len(added) + len(newline)
        for line in added.decode(errors="replace").split("\n"):
            self._add(files.parse(line) or {})

    def _start_again(self, file_number: int) -> None:
        self.losses, self.scores = [], []
        self._position, self._file_number = 0, file_number

    def _add(self, row: dict[str, object]) -> None:
        step, loss, score = row.get("step"), row.get("loss"), row.get("accuracy_top-1")
        if not isinstance(step, int):
            return
        if row.get("mode") == "train" and isinstance(loss, int | float) and math.isfinite(loss):
            _append(self.losses, (step, loss))
        elif isinstance(score, int | float) and math.isfinite(score):
            _append(self.scores, (step, score))


def _append(points: list[Point], point: Point) -> None:
    # The file may have been cut and have grown beyond its old end between two looks.
    while points and points[-1][0] >= point[0]:
        points.pop()
    points.append(point)
