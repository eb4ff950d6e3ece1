"""Ctrl-C and the end of a connection, put off or remembered where they would leave half a run."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_raised: list[int] = []


def raise_interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    """Handle a signal: end the command, with what it has half made undone.

    Raises:
        KeyboardInterrupt: always, but see `meet_dropped`.
    """
    _raised.append(number)
    raise KeyboardInterrupt


def meet_dropped() -> None:
    """Call this before something is started.

    An extension module that calls Python may drop any exception. Of 588 that were raised while the
    schema was imported, with pydantic, two were never seen again (Python 3.11, 2026-11-29).

    Raises:
        KeyboardInterrupt: one was raised, and yet we are here.
    """
    if _raised:
        raise KeyboardInterrupt


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Put off Ctrl-C and the like to the end of the with, also for the programs started in it.

    Ended while sbatch talks to the controller, we would not know whether a job was queued, and
    would remove the run directory of one that was.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        # Blocked, so that what comes meanwhile is met at the end. Ignored, too, because that is
        # what a site's sbatch inherits which is a shell script: shells unblock every signal.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Interrupt:
    """Ctrl-C and TERM, remembered; a second one means at once."""

    def __init__(self) -> None:
        self.count = 0

    def _remember(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1

    @contextlib.contextmanager
    def watch(self) -> Iterator[Self]:
        """Remember them for the body of the with."""
        before = {number: signal.getsignal(number) for number in SIGNALS}
        for number, handler in before.items():
            # Under nohup the end of the terminal is not a wish to stop.
            if handler != signal.SIG_IGN:
                signal.signal(number, self._remember)
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
