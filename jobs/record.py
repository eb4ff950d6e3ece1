"""What is known of one run, finished or not, gathered from its directory for a report."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from configs import yaml12
from configs.schema import Recipe
from jobs import files, ledger, metrics, timing
from jobs.ledger import Attempt
from jobs.rundir import RunDirectory, seconds_of
from jobs.status import Status
from jobs.timing import Span, Times

TOP1, TOP5 = "accuracy_top-1", "accuracy_top-5"


@dataclass(frozen=True)
class Record:
    """One run. What is missing or damaged is None or empty; the rest is shown all the same.

    `recipe` maps each dotted key to its value, in the schema's order, defaults filled in.
    """

    run: RunDirectory
    state: str
    note: str
    recipe: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    times: Times = field(default_factory=Times)

    @property
    def is_finished(self) -> bool:
        """Whether its scores are final."""
        return self.state == "finished"

    @property
    def seed(self) -> int | None:
        """`run.seed`."""
        seed = self.recipe.get("run.seed")
        return seed if isinstance(seed, int) else None

    @property
    def workers(self) -> int | None:
        """The workers of the newest attempt, or as many as the recipe asks for."""
        reached = self.results.get("world_size")
        if isinstance(reached, int):
            return reached
        if self.attempts and self.attempts[-1].workers:
            return self.attempts[-1].workers
        nodes, gpus = self.recipe.get("cluster.nodes"), self.recipe.get("cluster.gpus_per_node")
        return nodes * gpus if isinstance(nodes, int) and isinstance(gpus, int) else None

    @property
    def device(self) -> str | None:
        """What a worker computed on; known at the end."""
        return text_of(self.results.get("device"))

    def last(self, key: str) -> float | None:
        """The score after the last evaluation, in percent; `key` is `TOP1` or `TOP5`."""
        scores = [row[key] for row in self.evaluations if key in row]
        return number_of(self.results.get(key, scores[-1] if scores else None))

    def best(self, key: str) -> float | None:
        """The score, in percent, or the `epoch` of the evaluation with the highest top-1."""
        best = self.results.get("best")
        if not isinstance(best, dict):
            scored = [row for row in self.evaluations if number_of(row.get(TOP1)) is not None]
            best = max(scored, key=lambda row: float(row[TOP1]), default={})
        return number_of(best.get(key))

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl that tell scores."""
        return [row for row in self.rows if row.get("mode") == "val"]

    @property
    def training(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl that tell of training."""
        return [row for row in self.rows if row.get("mode") == "train"]

    def newest(self, key: str) -> float | None:
        """The newest value of `key` in metrics.jsonl."""
        values = (number_of(row.get(key)) for row in reversed(self.rows))
        return next((value for value in values if value is not None), None)

    def values(self) -> dict[str, Any]:
        """Everything that is one value, unrounded, under the keys of the csv and json reports."""
        code, commit = self.provenance.get("code_sha256"), self.provenance.get("commit")
        return {
            "run": self.run.label,
            "path": str(self.run.path),
            "state": self.state,
            "note": self.note,
            "created": text_of(self.provenance.get("created")),
            "workers": self.workers,
            "device": self.device,
            TOP1: self.last(TOP1),
            TOP5: self.last(TOP5),
            f"best_{TOP1}": self.best(TOP1),
            f"best_{TOP5}": self.best(TOP5),
            "best_epoch": self.best("epoch"),
            "epoch": self.newest("epoch"),
            "step": self.newest("step"),
            "steps": self.newest("steps"),
            "images_per_second": self.images_per_second,
            "wall_seconds": self.times.wall,
            "queue_seconds": self.times.queue,
            "gpu_seconds": self.times.gpu,
            "attempts": len(self.attempts),
            "gpu_seconds_lost": self.times.lost,
            "commit": text_of(commit),
            "uncommitted_changes": self.has_uncommitted_changes,
            "code_sha256": text_of(code),
            "weights_sha256": text_of(self.results.get("weights_sha256")),
        }

    @property
    def images_per_second(self) -> float | None:
        """Over all training steps or, of an unfinished run, over the last few."""
        key = "images_per_second"
        return number_of(self.results.get(key)) if key in self.results else self.newest(key)

    @property
    def has_uncommitted_changes(self) -> bool | None:
        """Whether the code was other than its commit's; None if there is no commit to compare."""
        if not text_of(self.provenance.get("commit")):
            return None
        return any(self.provenance.get(key) for key in ("diff_sha256", "new_files"))


def gather(status: Status, now: float) -> Record:
    """The record of a run whose state is known; `now` in seconds since the epoch."""
    try:
        return _gather(status, now)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        # One damaged or foreign folder must not hide the others.
        return Record(status.run, status.state, status.note or f"cannot be read: {error!r}")


def _gather(status: Status, now: float) -> Record:
    run = status.run
    entries = [entry for entry in ledger.read(run) if _is_sound(entry)]
    parts = timing.spans(run, entries, status.state, now)
    return Record(
        run=run,
        state=status.state,
        note=status.note,
        recipe=read_recipe(run),
        provenance=files.read_json(run.provenance) or {},
        results=metrics.results(run) or {},
        rows=metrics.read(run),
        attempts=entries,
        spans=parts,
        times=timing.total(run, entries, parts, status.state, now),
    )


def _is_sound(entry: Attempt) -> bool:
    """Whether the values in a line of the ledger are of their kinds; a damaged line is left out."""
    try:
        seconds_of(entry.start)
        seconds_of(entry.end or entry.start)
    except (TypeError, ValueError):
        return False
    if not isinstance(entry.nodes, list):
        return False
    texts = (entry.reason or "", entry.job_id or "", *entry.nodes)
    numbers = (
        entry.attempt,
        entry.restart_count,
        entry.workers or 0,
        entry.first_step or 0,
        entry.gpu_seconds_lost or 0,
    )
    return all(isinstance(each, str) for each in texts) and None not in map(number_of, numbers)


def read_recipe(run: RunDirectory) -> dict[str, Any]:
    """The resolved recipe by dotted keys; empty if it cannot be read.

    A key that the run's recipe does not have, because it is younger, has its default.
    """
    try:
        value = yaml12.read(run.config.read_text(encoding="utf-8")).value
    except (OSError, ValueError):
        return {}
    if not isinstance(value, dict) or not value:
        return {}
    return flatten(Recipe().model_dump()) | flatten(value)


def flatten(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Sections and their keys as dotted keys."""
    return {
        f"{section}.{key}": value
        for section, content in sections.items()
        if isinstance(content, dict)
        for key, value in content.items()
    }


def as_json(record: Record) -> dict[str, Any]:
    """Everything that is known of a run, for the json report."""
    return record.values() | {
        "recipe": record.recipe,
        "provenance": record.provenance,
        "results": record.results,
        "ledger": [
            dataclasses.asdict(entry) | {"queue_seconds": part.waited, "wall_seconds": part.lasted}
            for entry, part in zip(record.attempts, record.spans, strict=True)
        ],
    }


def number_of(value: object) -> float | None:
    """`value` if it is a number that can be drawn and compared."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def text_of(value: object) -> str | None:
    """`value` if it is a text."""
    return value if isinstance(value, str) else None


def shown(value: object) -> str:
    """A recipe's value as a person would write it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
