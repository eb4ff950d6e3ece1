"""The request to stop as a task sees it: a signal sets a flag, and nothing else happens in it."""

from __future__ import annotations

import os
import signal
import time
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


class StopRequest:
    """The first stop signal that came, and how many did."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.count = 0
        self.by_clock = False
        """Whether the time limit was near and no signal had come."""
        self.termed_at: float | None = None
        """When TERM first came, by the monotonic clock: Slurm may kill KillWait after it."""
        self._pid = os.getpid()

    @classmethod
    def install(cls) -> StopRequest:
        """A request that TERM, INT and USR2 make, in place of any handlers that were there."""
        request = cls()
        for number in STOP_SIGNALS:
            signal.signal(number, request._remember)
        return request

    def request(self, number: signal.Signals) -> None:
        """Ask to stop as if the signal had come, unless one did before."""
        if self.signal is None:
            self._remember(number, None)

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        # A child between fork and exec still has the handler; the request is not meant for it.
        if os.getpid() != self._pid:
            return
        self.signal = self.signal or signal.Signals(number)
        self.count += 1
        if number == signal.SIGTERM and self.termed_at is None:
            self.termed_at = time.monotonic()
