"""One rank's log as it is read: in blocks of lines that belong together, each with its time."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from jobs.linetimes import Times

TAIL_BYTES = 1 << 16
READ_BYTES = 1 << 22
# What begins several lines of which only the last is not indented.
TRACEBACK = ("Traceback (", "Thread 0x", "Current thread 0x", "Fatal Python error")


@dataclass
class Block:
    """Lines that belong together, and when the first of them was printed."""

    seconds: float
    rank: int
    lines: list[str]


class RankLog:
    """Reads what was added to a log since it last looked."""

    def __init__(self, path: Path, rank: int, position: int = 0) -> None:
        self.path = path
        self.rank = rank
        self.position = position
        self._times = Times(path)
        self._seconds = 0.0
        self._in_traceback = False

    def read(self, now: float | None = None, *, is_last: bool = False) -> list[Block]:
        """The next complete lines, some megabytes of them at most.

        Args:
            is_last: whether nothing more will come, so that a line without an end is one, too.
            now: when lines were printed whose time nobody has noted; for None, together with the
                last line whose time is known.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self.position)
                added, newline, _ = file.read(READ_BYTES).rpartition(b"\n")
                if not newline:  # a very long line
                    file.seek(self.position)
                    added, newline, _ = file.read().rpartition(b"\n")
                if not newline and is_last:
                    file.seek(self.position)
                    added = file.read()
        except OSError:
            return []
        if not added and not newline:
            return []
        self._times.read()
        blocks: list[Block] = []
        for line in added.split(b"\n"):
            self.position += len(line) + 1
            self._add(blocks, line.decode(errors="replace"), now)
        self.position -= not newline
        return blocks

    def _add(self, blocks: list[Block], line: str, now: float | None) -> None:
        begins = line.startswith(TRACEBACK)
        follows = self._in_traceback or line.startswith((" ", "\t"))
        if not follows:
            noted = self._times.at(self.position)
            self._seconds = max(self._seconds, noted or now or 0.0)
        if self._in_traceback or begins:
            self._in_traceback = begins or not line or line.startswith((" ", "\t"))
        if blocks and (follows or blocks[-1].seconds == self._seconds):
            blocks[-1].lines.append(line)
        else:
            blocks.append(Block(self._seconds, self.rank, [line]))

    @property
    def is_in_traceback(self) -> bool:
        """Whether the lines read so far end in the middle of a traceback."""
        return self._in_traceback


def start_of_tail(path: Path, lines: int) -> int:
    """Where the last `lines` lines of a file begin, in bytes; only its end is read."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        position, seen = end, 0
        while position > 0:
            size = min(TAIL_BYTES, position)
            position -= size
            file.seek(position)
            block = file.read(size)
            # The newline that ends the last line begins no further one.
            stop = size - 1 if position + size == end else size
            while (found := block.rfind(b"\n", 0, stop)) >= 0:
                seen += 1
                if seen == lines:
                    return position + found + 1
                stop = found
    return 0
