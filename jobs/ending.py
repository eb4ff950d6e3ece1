"""How each rank of an attempt ended, as its own parent saw it: ended-000.json and so on.

Settling an attempt needs it after the last task is gone, and the digest of a failure shows it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from jobs import files
from jobs.files import write_json
from jobs.rundir import RunDirectory, warning

How = Literal["done", "stopped", "overdue", "failed", "followed", "unfit", "displaced"]


@dataclass(frozen=True)
class Ending:
    """The end of one rank's worker.

    done and stopped are its own exit codes 0 and 75; overdue was asked to stop and killed at the
    deadline; followed was ended because another rank had failed; displaced, because another start
    had taken the run directory.
    """

    rank: int
    node: str
    how: How
    exit_code: int
    stopped_by: str | None = None
    """The first signal that asked for the stop, by name."""
    seconds_left: float | None = None
    """From that signal, or from the end if none came to this rank, to the job's time limit."""
    asked_by_clock: bool = False
    """Whether no signal came: the task saw by itself that the time limit was near."""
    words: str = ""
    """What an unfit node's worker said is wrong with it."""

    @property
    def stopped_unready(self) -> bool:
        """Whether the worker died of the stop signal, before it could handle it."""
        return self.how == "stopped" and self.exit_code < 0


def record(run: RunDirectory, attempt: int, ending: Ending) -> None:
    """Write down an ending; a full disk costs no more than a warning."""
    with warning(f"cannot write down how rank {ending.rank} ended"):
        write_json(run.attempt(attempt) / f"ended-{ending.rank:03d}.json", asdict(ending))


def read_all(run: RunDirectory, attempt: int) -> list[Ending]:
    """The endings of an attempt, by rank; a rank whose parent was killed has none."""
    files = sorted(run.attempt(attempt).glob("ended-*.json"))
    return [ending for file in files if (ending := _read(file))]


def _read(file: Path) -> Ending | None:
    content = files.read_json(file)
    try:
        return Ending(**content) if content else None
    except TypeError:
        return None
