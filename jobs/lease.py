"""Who holds a run directory, so that two starts never write into one at once.

The holder rewrites lease.json every few seconds and marks it released at its end. Whoever comes
next and finds it unreleased watches whether it still changes: no clocks are compared, so machines
may disagree about the time, and a holder that died with its node is found out by its silence.

Holders are numbered, and a start becomes the next one by creating a file of that number, which of
two that come at once only one can. That is no lock, which a dead holder could keep and which not
every shared file system has: a number that nobody went on with is left out by whoever comes next.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

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
    number: int = 0
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
        self._holder = replace(self._holder, beat=self._holder.beat + 1)
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
    another = before is not None and before.start_key != start_key
    if another and (living := _living(run, given_up)):
        raise _HeldError(living)
    number = before.number if before else 0
    while not given_up():
        seen = _state(run)
        if _claim(run, number + 1):
            return Lease(run, Holder(start_key, where, number + 1))
        # Somebody came first, and holds the run in a moment unless it died just then.
        if _changes(run, seen, given_up) and (now := read(run)):
            raise _HeldError(now)
        number = max(int(each.name) for each in run.claims.iterdir())
    raise RequestError("asked to stop before it held the run")


def is_alive(run: RunDirectory, given_up: Callable[[], bool] = lambda: False) -> bool:
    """Whether somebody holds `run` and shows it; takes some seconds after an unclean end."""
    return _living(run, given_up) is not None


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
            write_json(run.lease, asdict(replace(now, released=True)))


class _HeldError(RequestError):
    def __init__(self, holder: Holder) -> None:
        super().__init__(f"{holder.where} holds this run; two at once would spoil it")


def _living(run: RunDirectory, given_up: Callable[[], bool]) -> Holder | None:
    before = read(run)
    if before is None or before.released or not _changes(run, _state(run), given_up):
        return None
    now = read(run)
    return None if now is None or now.released else now


def _claim(run: RunDirectory, number: int) -> bool:
    """Become the holder of that number; False if another start did."""
    with warning(f"cannot claim {run.path}"):  # on a full disk: the lease itself says it then
        run.claims.mkdir(parents=True, exist_ok=True)
        try:
            (run.claims / str(number)).touch(exist_ok=False)
        except FileExistsError:
            return False
    return True


def _changes(
    run: RunDirectory, seen: tuple[int, int, str] | None, given_up: Callable[[], bool]
) -> bool:
    """Whether the lease becomes another one than `seen` within the time that a holder is given."""
    deadline = time.monotonic() + WATCHED_PERIODS * REFRESH_SECONDS
    while time.monotonic() < deadline and not given_up():
        time.sleep(0.2)
        if _state(run) != seen:
            return True
    return False


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
