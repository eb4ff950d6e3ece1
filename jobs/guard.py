"""What ends a worker that does not end by itself: each look gives the reason, once there is one."""

from __future__ import annotations

import select
import signal
import sys
import time
from typing import Literal

from jobs import failure
from jobs.deadline import Deadline
from jobs.lease import Lease
from jobs.rundir import RunDirectory
from jobs.stop import StopRequest

LOOK_SECONDS = 1.0
SAVE_SECONDS = 30.0

Verdict = Literal["overdue", "followed", "displaced"]


class Guard:
    """Watches one rank from inside its task."""

    def __init__(
        self,
        run: RunDirectory,
        attempt: int,
        stop: StopRequest,
        deadline: Deadline | None,
        lease: Lease | None,
    ) -> None:
        """Watch a rank under Slurm with a `deadline`, a local one without.

        Only rank 0 has a lease, and only it stops its worker because time is running out: the
        workers agree among themselves to stop together.
        """
        self._run = run
        self._attempt = attempt
        self._stop = stop
        self._deadline = deadline
        self._lease = lease
        self._looked_at = 0.0
        self._local_deadline: float | None = None

    def look(self) -> Verdict | None:
        """Why the worker is to be ended now; may also ask it to stop by itself."""
        if self._lease and not self._lease.refresh():
            return "displaced"
        if self._deadline:
            if self._lease and self._stop.signal is None and self._deadline.is_near():
                self._stop.by_clock = True
                self._stop.request(signal.SIGUSR2)
            if self._deadline.has_passed(self._stop):
                return "overdue"
        elif self._is_overdue_here():
            return "overdue"
        if time.monotonic() - self._looked_at > LOOK_SECONDS:
            self._looked_at = time.monotonic()
            if failure.is_claimed(self._run, self._attempt):
                return "followed"
        return None

    def _is_overdue_here(self) -> bool:
        """Whether a local worker had its time: nobody kills it from outside, as Slurm would."""
        if launcher_is_gone():
            self._stop.request(signal.SIGTERM)
        if self._stop.signal and self._local_deadline is None:
            self._local_deadline = time.monotonic() + SAVE_SECONDS
        passed = self._local_deadline is not None and time.monotonic() > self._local_deadline
        return passed or self._stop.count > 1


def launcher_is_gone() -> bool:
    """Whether the process at the other end of stdin, which never writes, has ended in any way."""
    readable, _, _ = select.select([sys.stdin], [], [], 0)
    return bool(readable)
