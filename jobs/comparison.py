"""Several runs side by side: where their recipes differ, and what is equal but for the seed."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from configs import continuation
from jobs.record import TOP1, TOP5, Record, shown, text_of
from jobs.text import printable

# What a run is called and where it lies; free text about it.
OWN = ("run.name", "run.root", "run.notes")
# `resume` may change these, for they do not shape the result: whole sections, and single keys.
NOT_SHAPING = ("run", "cluster", "checkpoint", "logging", *continuation.FREE_KEYS)
# What a run reads, by what provenance.json knows it by.
INPUTS = {"archive_sha256": "read different archives", "weights_sha256": "began with other weights"}
SCORES = {
    TOP1: lambda record: record.last(TOP1),
    TOP5: lambda record: record.last(TOP5),
    f"best_{TOP1}": lambda record: record.best(TOP1),
    f"best_{TOP5}": lambda record: record.best(TOP5),
}


@dataclass(frozen=True)
class Score:
    """Mean and standard deviation (n - 1) of the `n` runs that have the score, in percent."""

    n: int
    mean: float | None
    sd: float | None


@dataclass(frozen=True)
class Group:
    """Runs that differ in run.seed alone, as far as the result goes."""

    number: int
    records: list[Record]

    @property
    def finished(self) -> list[Record]:
        """The runs whose scores count."""
        return [record for record in self.records if record.is_finished]

    @property
    def seeds(self) -> list[int | None]:
        """The seeds of the finished runs."""
        return [record.seed for record in self.finished]

    @property
    def code(self) -> Literal["same", "differs", "unknown"]:
        """Whether the runs had the same code."""
        hashes = self._known("code_sha256")
        if len(hashes) > 1:
            return "differs"
        return "unknown" if None in hashes else "same"

    @property
    def differing_inputs(self) -> list[str]:
        """In which files, of those whose content is known, the runs differed."""
        return [words for key, words in INPUTS.items() if len(self._known(key) - {None}) > 1]

    def _known(self, key: str) -> set[str | None]:
        return {text_of(record.provenance.get(key)) for record in self.finished}

    def score(self, key: str) -> Score:
        """Over the finished runs; `key` is one of `SCORES`."""
        found = [SCORES[key](record) for record in self.finished]
        values = [value for value in found if value is not None]
        return Score(
            n=len(values),
            mean=statistics.mean(map(float, values)) if values else None,
            sd=statistics.stdev(map(float, values)) if len(values) > 1 else None,
        )

    def values(self) -> dict[str, Any]:
        """What the json report says about the group."""
        return {
            "group": self.number,
            "runs": [record.run.label for record in self.records],
            "finished": len(self.finished),
            "seeds": self.seeds,
            "code": self.code,
            **{key: vars(self.score(key)) for key in SCORES},
        }


def differences(records: Sequence[Record]) -> list[str]:
    """The keys of the recipes that have not the same value in all runs, in the schema's order."""
    readable = [record.recipe for record in records if record.recipe]
    keys = dict.fromkeys(key for recipe in readable for key in recipe if key not in OWN)
    return [key for key in keys if len({_frozen(recipe.get(key)) for recipe in readable}) > 1]


def group(records: Sequence[Record]) -> list[Group]:
    """The runs by what shapes their result: the recipe but for the seed, and the workers.

    A run whose recipe cannot be read is alone.
    """
    found: dict[str, list[Record]] = {}
    for record in records:
        shape = {key: record.recipe[key] for key in shaping(list(record.recipe))}
        # Each worker's share of a batch is what batch normalisation sees.
        name = _frozen([shape, record.workers]) if shape else str(record.run.path)
        found.setdefault(name, []).append(record)
    return [Group(number, together) for number, together in enumerate(found.values(), start=1)]


def shaping(keys: Sequence[str]) -> list[str]:
    """Those of the recipe's `keys` that tell groups apart."""
    return [key for key in keys if not {key, key.partition(".")[0]} & set(NOT_SHAPING)]


def cell(record: Record, key: str) -> str:
    """The value of a recipe's key, short enough for a table; `-` where it is not known."""
    if key not in record.recipe:
        return "-"
    value = record.recipe[key]
    text = printable(shown(value))
    return text if len(text) <= LONGEST else "…" + text[1 - LONGEST :]


LONGEST = 28


def _frozen(value: object) -> str:
    return json.dumps(value, sort_keys=True)
