"""Ends workers of a local run that do not leave by themselves, as Slurm does for those of a job."""

from __future__ import annotations

import select
import signal
import sys
import time

from jobs import failure
from jobs.rundir import RunDirectory
from jobs.stop import StopRequest

SAVE_SECONDS = 30.0
PEER_SECONDS = 5.0


class Guard:
    """Watches one local rank from inside its task."""

    def __init__(self, run: RunDirectory, attempt: int, stop: StopRequest) -> None:
        self._run = run
        self._attempt = attempt
        self._stop = stop
        self._deadline: float | None = None

    def worker_must_end(self) -> bool:
        """Whether the worker had its time to leave and is to be killed now."""
        if launcher_is_gone():
            self._stop.request(signal.SIGTERM)
        if self._stop.count > 1:
            return True
        if self._stop.signal:
            self._allow(SAVE_SECONDS)
        if failure.read(self._run, self._attempt):
            # The worker waits in a collective for one that will not come.
            self._allow(PEER_SECONDS)
        return self._deadline is not None and time.monotonic() > self._deadline

    def _allow(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        self._deadline = min(self._deadline or deadline, deadline)


def launcher_is_gone() -> bool:
    """Whether the process at the other end of stdin, which never writes, has ended in any way."""
    readable, _, _ = select.select([sys.stdin], [], [], 0)
    return bool(readable)
