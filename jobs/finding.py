"""What a check finds out before a run is queued, and how a person is told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from jobs.errors import Problem

Level = Literal["pass", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One thing found: how bad it is, what it is, what helps, and the recipe's key it hangs on."""

    level: Level
    text: str
    remedy: str = ""
    key: str = ""

    @property
    def problem(self) -> Problem:
        """The same as the recipe's own problems are told."""
        return Problem(self.key, self.text, self.remedy)


def passed(text: str) -> Finding:
    """Nothing is wrong."""
    return Finding("pass", text)


def warned(text: str, remedy: str, key: str = "") -> Finding:
    """It may go wrong, or worse than it could."""
    return Finding("warn", text, remedy, key)


def failed(text: str, remedy: str, key: str = "") -> Finding:
    """The run is certain to fail, or to wait for ever."""
    return Finding("fail", text, remedy, key)


def failures(problems: Iterable[Problem]) -> list[Finding]:
    """Problems of the recipe as findings."""
    return [failed(problem.message, problem.remedy, problem.key) for problem in problems]
