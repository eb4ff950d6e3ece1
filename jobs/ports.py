"""A port for the ranks of one job that no other job on the node takes, before or after it listens.

It is probed free, below the ephemeral range (no outgoing connection takes it meanwhile), and
reserved by a lock on a file of the node that is named after it, for as long as the holder lives.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from jobs.errors import WorkError

LOWEST_PORT = 10_000
EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
TRIES = 200


class ReservedPort:
    """A port and the lock on it; the lock ends with this process at the latest."""

    def __init__(self, number: int, file: Path, descriptor: int) -> None:
        self.number = number
        self._file = file
        self._descriptor = descriptor

    def release(self) -> None:
        """Let others have the port."""
        # Removed while still locked: whoever opened it meanwhile sees that it has lost its name.
        self._file.unlink(missing_ok=True)
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def reserve() -> ReservedPort:
    """A port that nobody listens on and nobody else has reserved.

    Raises:
        WorkError: many random ports were all taken.
    """
    highest = 32_767
    if EPHEMERAL_RANGE.exists():
        lowest_ephemeral = int(EPHEMERAL_RANGE.read_text().split()[0])
        # A site may have widened the range down to 1024; then there is nothing below it to choose.
        highest = lowest_ephemeral - 1 if lowest_ephemeral > LOWEST_PORT + 1000 else highest
    for _ in range(TRIES):
        port = reserve_this(random.randint(LOWEST_PORT, highest))  # noqa: S311 - not a secret
        if port and _is_free(port.number):
            return port
        if port:
            port.release()
    raise WorkError(f"no free port found between {LOWEST_PORT} and {highest}")


def reserve_this(number: int) -> ReservedPort | None:
    """The port `number`, unless it is reserved; whether it is free is another question."""
    file = Path(tempfile.gettempdir()) / f"slurm-finetune-port-{number}.lock"
    try:
        descriptor = os.open(file, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
    except OSError:
        return None  # another user's, most likely
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if file.stat().st_ino == os.fstat(descriptor).st_ino:
            return ReservedPort(number, file, descriptor)
    except OSError:
        pass
    os.close(descriptor)
    return None


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
        return True
