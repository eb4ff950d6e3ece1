"""One process at a time, where the file system has locks; where it has none, nobody is kept out."""

from __future__ import annotations

import contextlib
import errno
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

# Where there are no locks, some versions would wait for a file that a killed process leaves.
OPTIONS: dict[str, Any] = (
    {"fallback_to_soft": False}
    if "fallback_to_soft" in inspect.signature(FileLock.__init__).parameters
    else {}
)
# What file systems without locks answer.
NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}


class HeldError(Exception):
    """Another process holds the lock."""


@contextlib.contextmanager
def hold(path: Path, patience: float = 0) -> Iterator[None]:
    """Hold the lock file `path`, which is left behind, for the body of the with.

    Raises:
        HeldError: another process holds it, for `patience` seconds.
        OSError: the file cannot be made.
    """
    lock = FileLock(path, timeout=patience, **OPTIONS)
    try:
        lock.acquire()
    except Timeout:
        raise HeldError(str(path)) from None
    except NotImplementedError:  # older versions, where there are no locks
        pass
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    try:
        yield
    finally:
        lock.release()
