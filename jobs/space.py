"""A disk or a quota that is full when an attempt starts: others may soon make room."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable

from jobs.errors import RequestError
from jobs.files import write_whole
from jobs.rundir import RunDirectory

PATIENCE_SECONDS = 60.0
POLL_SECONDS = 2.0
FULL = {errno.ENOSPC, errno.EDQUOT}
# What an attempt writes before its worker starts is less.
PROBE = "." * 65_536


def await_room(run: RunDirectory, given_up: Callable[[], bool]) -> None:
    """Wait until a file can be written, before anything of an attempt is.

    Raises:
        RequestError: the disk stayed full.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while error := _try(run):
        if time.monotonic() > deadline:
            raise RequestError(
                f"cannot write {run.path}: {error.strerror}; make room, and to go on: "
                f"python launch.py resume {run.path}"
            )
        if given_up():
            return
        time.sleep(POLL_SECONDS)


def _try(run: RunDirectory) -> OSError | None:
    probe = run.engine_files / ".room"
    try:
        write_whole(probe, PROBE)
    except OSError as error:
        if error.errno in FULL:
            return error
        raise
    probe.unlink(missing_ok=True)
    return None
