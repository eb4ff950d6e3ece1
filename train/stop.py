"""The request to stop: a signal sets a flag, and the loop looks at it between two steps."""

from __future__ import annotations

import os
import signal
from types import FrameType

STOP_SIGNALS = (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)
STOPPED_EXIT_CODE = 75


class StopFlag:
    """Remembers that a stop signal came. Handlers do nothing else, so no user code runs in them."""

    def __init__(self) -> None:
        self.signal_name: str | None = None
        self._pid = os.getpid()

    @classmethod
    def install(cls) -> StopFlag:
        """A flag that USR2, TERM and INT set; call it before anything slow is imported."""
        flag = cls()
        for number in STOP_SIGNALS:
            signal.signal(number, flag._remember)
        return flag

    @property
    def is_set(self) -> bool:
        """Whether a stop signal came."""
        return self.signal_name is not None

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        # A forked child inherits the handler; the request is not meant for it.
        if os.getpid() == self._pid:
            self.signal_name = signal.Signals(number).name
