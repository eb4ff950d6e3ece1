"""The ways a command ends badly, each with the exit code that scripts rely on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

# Words of others, which may be long, stand on lines of their own.
NEXT_LINE = "\n  "


class RequestError(Exception):
    """The request was wrong and nothing was done; exit code 2. One problem a line."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class WorkError(Exception):
    """The request was right and the work failed; exit code 1."""


class Problem(NamedTuple):
    """Something wrong with one key of the recipe, found after the recipe itself was read."""

    key: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        """What is wrong and what helps."""
        if not self.remedy:
            return self.message
        return f"{self.message}{NEXT_LINE if NEXT_LINE in self.message else '; '}{self.remedy}"


class RefusedError(Exception):
    """The recipe cannot run here; `problems` names the keys."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(f"{problem.key}: {problem}" for problem in problems))
        self.problems = problems


def locate(problems: Iterable[Problem], origins: Mapping[str, str]) -> list[str]:
    """The problems as the recipe's own are told: where the key was set, the key, what is wrong."""
    return [f"{place_of(problem.key, origins)}: {problem}" for problem in problems]


def place_of(key: str, origins: Mapping[str, str]) -> str:
    """`key` with its file and line, or marked as set on the command line or left at its default."""
    origin = origins.get(key)
    if origin is None:
        return f"{key} (default)"
    return f"{origin} {key}" if origin.startswith("--") else f"{origin}: {key}"
