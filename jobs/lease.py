"""Who holds a run directory, so that two starts never write into one at once.

The holder rewrites lease.json every few seconds and marks it released at its end. Whoever comes
next and finds it unreleased watches whether it still changes: no clocks are compared, so machines
may disagree about the time, and a holder that died with its node is found out by its silence.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from jobs.errors import RequestError
from jobs.files import write_json
from jobs.rundir import RunDirectory, warning

REFRESH_SECONDS = 3.0
WATCHED_PERIODS = 5


@dataclass(frozen=True)
class Holder:
    """The content of the lease."""

    start_key: str
    where: str
    """The holder as a person would look for it: a job, or a process on a machine."""
    beat: int = 0
    released: bool = False


class Lease:
    """A held run directory; call `refresh` again and again."""

    def __init__(self, run: RunDirectory, holder: Holder) -> None:
        self._run = run
        self._holder = holder
        self._refreshed_at = time.monotonic()
        _write(run, holder)

    def refresh(self) -> bool:
        """Show that the holder lives, if it is time to; False if another start holds the run."""
        if time.monotonic() - self._refreshed_at < REFRESH_SECONDS:
            return True
        self._refreshed_at = time.monotonic()
        if not self._is_mine():
            return False
        beat = self._holder.beat + 1
        self._holder = Holder(self._holder.start_key, self._holder.where, beat)
        _write(self._run, self._holder)
        return True

    def release(self) -> None:
        """Let the next start begin without watching."""
        release(self._run, self._holder.start_key)

    def _is_mine(self) -> bool:
        try:
            now = read(self._run)
        except OSError:
            return True  # an unreadable lease is nobody's claim
        return now is None or now.start_key == self._holder.start_key


def take(
    run: RunDirectory,
    start_key: str,
    where: str,
    given_up: Callable[[], bool] = lambda: False,
) -> Lease:
    """Hold `run`, after watching a holder that did not release it.

    Raises:
        RequestError: the run is held, or this start was asked to stop while it watched.
    """
    before = read(run)
    if before and before.start_key != start_key and is_alive(run, given_up):
        raise RequestError(f"{before.where} holds this run; two at once would spoil it")
    if given_up():
        raise RequestError("asked to stop before it held the run")
    held = Lease(run, Holder(start_key, where))
    # Of two that came at once the last one to write has it, and both look after both have written.
    # No lock, which not every shared file system has, and which a dead holder could keep.
    time.sleep(REFRESH_SECONDS / 3)
    now = read(run)
    if now and now != before and now.start_key != start_key:
        raise RequestError(f"{now.where} holds this run; two at once would spoil it")
    return held


def is_alive(run: RunDirectory, given_up: Callable[[], bool] = lambda: False) -> bool:
    """Whether somebody holds `run` and shows it; takes some seconds after an unclean end."""
    before = read(run)
    if before is None or before.released:
        return False
    seen = _state(run)
    deadline = time.monotonic() + WATCHED_PERIODS * REFRESH_SECONDS
    while time.monotonic() < deadline and not given_up():
        time.sleep(0.2)
        if _state(run) != seen:
            now = read(run)
            return now is not None and not now.released
    return False


def read(run: RunDirectory) -> Holder | None:
    """Who holds the run, or held it last; None if nobody ever did."""
    try:
        return Holder(**json.loads(run.lease.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def release(run: RunDirectory, start_key: str) -> None:
    """Mark the lease of one start as released, unless another start has it."""
    with warning(f"cannot release {run.lease}"):
        now = read(run)
        if now and now.start_key == start_key and not now.released:
            write_json(run.lease, asdict(Holder(start_key, now.where, now.beat, released=True)))


def _write(run: RunDirectory, holder: Holder) -> None:
    try:
        write_json(run.lease, asdict(holder))
    except OSError:
        # On a full disk the file's time still says that somebody is there.
        with warning(f"cannot refresh {run.lease}"):
            os.utime(run.lease)


def _state(run: RunDirectory) -> tuple[int, int, str] | None:
    try:
        # Opening asks a network file system's server; looking at the name may ask a cache.
        with run.lease.open(encoding="utf-8") as file:
            stat = os.fstat(file.fileno())
            return stat.st_ino, stat.st_mtime_ns, file.read()
    except OSError:
        return None
