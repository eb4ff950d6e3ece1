"""How much of something large has been read, copied or fetched; on stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

PLAIN_SECONDS = 10.0


class Meter:
    """A bar on a terminal, a line every ten seconds elsewhere; use it as a context manager."""

    def __init__(self, what: str, total: int | None, done: int = 0) -> None:
        """`total` and `done` are bytes; a total of None is not known."""
        self._what = what
        self._total = total
        self._done = done
        self._said_at = time.monotonic()
        console = Console(stderr=True)
        self._is_live = console.is_terminal
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            disable=not self._is_live,
        )
        self._task = self._bar.add_task(what, total=total, completed=done)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def advance(self, size: int) -> None:
        """So many bytes more are done."""
        self._done += size
        if self._is_live:
            self._bar.advance(self._task, size)
        elif time.monotonic() - self._said_at > PLAIN_SECONDS:
            self._said_at = time.monotonic()
            of_total = f" of {decimal(self._total)}" if self._total else ""
            print(f"{self._what}: {decimal(self._done)}{of_total}", file=sys.stderr, flush=True)
