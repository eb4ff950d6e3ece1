"""What metrics.jsonl and results.json say about a run, for people to look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jobs import files
from jobs.rundir import RunDirectory


@dataclass(frozen=True)
class Progress:
    """How far a run has come; None where nothing was written down yet."""

    epoch: int | None = None
    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    images_per_second: float | None = None
    last_score: float | None = None
    best_score: float | None = None


def read(run: RunDirectory) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl."""
    return [row for line in _lines(run) if (row := files.parse(line))]


def progress(run: RunDirectory) -> Progress:
    """Where the run stands by its metrics."""
    lines = _lines(run)
    # A long run has thousands of training lines and few others: only what is needed is parsed.
    newest = next(filter(None, map(files.parse, reversed(lines))), {})
    logged = (files.parse(line) for line in reversed(lines) if '"train"' in line)
    training = next(filter(None, logged), {})
    rows = (files.parse(line) or {} for line in lines if '"val"' in line)
    scores = [row["accuracy_top-1"] for row in rows if "accuracy_top-1" in row]
    return Progress(
        epoch=newest.get("epoch"),
        step=newest.get("step"),
        steps=training.get("steps"),
        loss=training.get("loss"),
        images_per_second=training.get("images_per_second"),
        last_score=scores[-1] if scores else None,
        best_score=max(scores, default=None),
    )


def results(run: RunDirectory) -> dict[str, Any] | None:
    """The content of results.json, or None before the run has finished."""
    return files.read_json(run.results)


def _lines(run: RunDirectory) -> list[str]:
    """The complete lines of metrics.jsonl; one that is still being written is left out."""
    return files.read_lines(run.metrics)[:-1]
