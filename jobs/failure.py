"""Which rank failed first, and what it said last: failure.json in the attempt's folder."""

from __future__ import annotations

import os
import signal
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path

from jobs import files
from jobs.files import write_json
from jobs.rundir import RunDirectory, warning

LAST_LINES = 20
CONFIGURATION_ERROR = 2
FILE_NAME = "failure.json"
# torch's name of the exception when a GPU has no memory left.
OUT_OF_MEMORY = "OutOfMemoryError"


@dataclass(frozen=True)
class Failure:
    """The first failing rank of an attempt, as its own parent saw it."""

    rank: int
    node: str
    exit_code: int
    last_lines: list[str]
    out_of_memory: bool = False

    def describe(self) -> str:
        """The failure for a person: what happened where, then the end of the rank's log."""
        head = f"rank {self.rank} on {self.node} failed first: {self._how()}"
        return "\n".join([head, *(f"  | {line}" for line in self.last_lines)])

    def summarize(self) -> str:
        """How the rank ended, in a few words."""
        if self.exit_code == CONFIGURATION_ERROR:
            return self.last_words().splitlines()[0]
        return self._how()

    def last_words(self) -> str:
        """What the worker said was wrong: its log from the last line that begins with `error:`."""
        text = "\n".join(self.last_lines)
        _, found, message = text.rpartition("error: ")
        return message if found else self.describe()

    def _how(self) -> str:
        how = describe_exit(self.exit_code)
        return f"out of memory ({how})" if self.out_of_memory else how


def describe_exit(code: int) -> str:
    """An exit code in words; Python reports a signal as its negative number."""
    if code >= 0:
        return f"exit code {code}"
    return f"killed by {signal.Signals(-code).name}"


def examine(run: RunDirectory, attempt: int, rank: int, code: int, *, killed: bool) -> Failure:
    """What is known of a worker that has just failed on this node.

    Args:
        run: the run directory.
        attempt: which attempt.
        rank: whose worker it was.
        code: its exit code, as Python reports it.
        killed: whether the kernel has killed something here for lack of memory meanwhile.
    """
    lines = tail(run.rank_log(attempt, rank))
    starved = (killed and code == -signal.SIGKILL) or any(OUT_OF_MEMORY in line for line in lines)
    return Failure(
        rank, os.environ.get("SLURMD_NODENAME", os.uname().nodename), code, lines, starved
    )


def claim(run: RunDirectory, attempt: int, failure: Failure) -> bool:
    """Record `failure` unless another rank was first; returns whether this one was."""
    claimed = _file(run, attempt)
    draft = claimed.with_name(f".failure-{failure.rank}.json")
    with warning(f"cannot write down that rank {failure.rank} failed"):
        try:
            write_json(draft, asdict(failure))
            _link(draft, claimed)
        except FileExistsError:
            return False
        finally:
            draft.unlink(missing_ok=True)
    return True


def _link(draft: Path, claimed: Path) -> None:
    try:
        # A hard link appears whole or not at all, and only one rank can make it.
        os.link(draft, claimed)
    except FileExistsError:
        raise
    except OSError:
        # Some file systems have none. Half a file is read as no failure until it is whole.
        with claimed.open("x", encoding="utf-8") as file:
            file.write(draft.read_text(encoding="utf-8"))


def is_claimed(run: RunDirectory, attempt: int) -> bool:
    """Whether any rank of an attempt has failed.

    Listing the folder, not opening the file: a network file system caches for many seconds that a
    file was missing.
    """
    try:
        return FILE_NAME in {path.name for path in run.attempt(attempt).iterdir()}
    except OSError:
        return False


def read(run: RunDirectory, attempt: int) -> Failure | None:
    """The first failure of an attempt, if there was one."""
    content = files.read_json(_file(run, attempt))
    try:
        return Failure(**content) if content else None
    except TypeError:
        return None


def tail(log: Path, count: int = LAST_LINES) -> list[str]:
    """The last lines of a log that may hold anything."""
    try:
        with log.open(encoding="utf-8", errors="replace") as lines:
            return [line.rstrip("\n") for line in deque(lines, maxlen=count)]
    except OSError:
        return []


def _file(run: RunDirectory, attempt: int) -> Path:
    return run.attempt(attempt) / FILE_NAME
