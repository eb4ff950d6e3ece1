"""Which rank failed first, and what it said last: failure.json in the attempt's folder."""

from __future__ import annotations

import json
import os
import signal
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path

from jobs.rundir import RunDirectory, write_json

LAST_LINES = 20
CONFIGURATION_ERROR = 2


@dataclass(frozen=True)
class Failure:
    """The first failing rank of an attempt, as its own parent saw it."""

    rank: int
    node: str
    exit_code: int
    last_lines: list[str]

    def describe(self) -> str:
        """The failure for a person: what happened where, then the end of the rank's log."""
        head = f"rank {self.rank} on {self.node} failed first: {describe_exit(self.exit_code)}"
        return "\n".join([head, *(f"  | {line}" for line in self.last_lines)])

    def summarize(self) -> str:
        """How the rank ended, in a few words."""
        if self.exit_code == CONFIGURATION_ERROR:
            return self.last_words().splitlines()[0]
        return describe_exit(self.exit_code)

    def last_words(self) -> str:
        """What the worker said was wrong: its log from the last line that begins with `error:`."""
        text = "\n".join(self.last_lines)
        _, found, message = text.rpartition("error: ")
        return message if found else self.describe()


def describe_exit(code: int) -> str:
    """An exit code in words; Python reports a signal as its negative number."""
    if code >= 0:
        return f"exit code {code}"
    hint = " (often: out of memory)" if -code == signal.SIGKILL else ""
    return f"killed by {signal.Signals(-code).name}{hint}"


def claim(run: RunDirectory, attempt: int, failure: Failure) -> bool:
    """Record `failure` unless another rank was first; returns whether this one was."""
    claimed = _file(run, attempt)
    draft = claimed.with_name(f".failure-{failure.rank}.json")
    write_json(draft, asdict(failure))
    try:
        # A hard link appears whole or not at all, and only one rank can make it.
        os.link(draft, claimed)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    return True


def read(run: RunDirectory, attempt: int) -> Failure | None:
    """The first failure of an attempt, if there was one."""
    try:
        return Failure(**json.loads(_file(run, attempt).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def tail(log: Path, count: int = LAST_LINES) -> list[str]:
    """The last lines of a log that may hold anything."""
    with log.open(encoding="utf-8", errors="replace") as lines:
        return [line.rstrip("\n") for line in deque(lines, maxlen=count)]


def _file(run: RunDirectory, attempt: int) -> Path:
    return run.attempt(attempt) / "failure.json"
