"""When the lines of a rank's log were printed, kept beside the log.

The worker writes its log itself, so that nothing it says can be lost on the way. Its parent looks
at the log's length again and again and notes when it has grown: `<bytes> <seconds since the epoch>`
a line, in rank-000.times.
"""

from __future__ import annotations

import bisect
import contextlib
import math
import time
from pathlib import Path

SUFFIX = ".times"


class Clock:
    """Notes the times of one growing log."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._size = 0

    def look(self) -> None:
        """Note the time if the log has grown; a disk that is full costs the times alone."""
        with contextlib.suppress(OSError):
            size = self._log.stat().st_size
            if size != self._size:
                self._size = size
                with self._log.with_suffix(SUFFIX).open("a", encoding="ascii") as times:
                    times.write(f"{size} {time.time():.3f}\n")


class Times:
    """The times of one log as far as they are known."""

    def __init__(self, log: Path) -> None:
        self._file = log.with_suffix(SUFFIX)
        self._position = 0
        self._ends: list[int] = []
        self._seconds: list[float] = []

    def read(self) -> None:
        """Learn what was noted since the last call."""
        try:
            with self._file.open("rb") as file:
                file.seek(self._position)
                added, newline, _ = file.read().rpartition(b"\n")
        except OSError:
            return
        self._position += len(added) + len(newline)
        for line in added.split(b"\n"):
            end, _, seconds = line.partition(b" ")
            with contextlib.suppress(ValueError):
                number, value = int(end), float(seconds)
                if not math.isfinite(value):
                    continue
                # Only ever forward, also where a node's clock was set back.
                self._ends.append(max([number, *self._ends[-1:]]))
                self._seconds.append(max([value, *self._seconds[-1:]]))

    def at(self, end: int) -> float | None:
        """When the line was there that ends at byte `end`; None if nobody has noted it (yet)."""
        index = bisect.bisect_left(self._ends, end)
        return self._seconds[index] if index < len(self._seconds) else None
