"""The progress of a local run: a live bar on a terminal, plain lines elsewhere; on stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from jobs.metrics import Progress

PLAIN_SECONDS = 10.0


class Display:
    """Shows how far a run is; use it as a context manager."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self._console = Console(stderr=True)
        self._shown = Progress()
        self._said_at = 0.0
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeRemainingColumn(compact=True),
            console=self._console,
            expand=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=None)

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

    def update(self, progress: Progress) -> None:
        """Show the newest figures."""
        if progress == self._shown:
            return
        scored = progress.last_score != self._shown.last_score
        self._shown = progress
        line = self.describe(progress)
        if self._console.is_terminal:
            self._bar.update(
                self._task, description=line, completed=progress.step or 0, total=progress.steps
            )
        elif scored or time.monotonic() - self._said_at > PLAIN_SECONDS:
            self._said_at = time.monotonic()
            self.say(line)

    def say(self, text: str) -> None:
        """Print a line without disturbing the bar."""
        if self._console.is_terminal:
            self._console.print(text, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def describe(self, progress: Progress) -> str:
        """The figures in one short line."""
        parts = [f"epoch {progress.epoch or 1}/{self._epochs}"]
        if progress.step is not None:
            parts.append(f"step {progress.step}/{progress.steps or '?'}")
        if progress.images_per_second is not None:
            parts.append(f"{progress.images_per_second:.0f} img/s")
        if progress.loss is not None:
            parts.append(f"loss {progress.loss:.3f}")
        if progress.last_score is not None:
            parts.append(f"top-1 {progress.last_score:.2f} %")
        return ", ".join(parts)
