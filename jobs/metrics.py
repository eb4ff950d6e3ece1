"""What metrics.jsonl and results.json say about a run, for people to look at."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

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
    return [json.loads(line) for line in _lines(run)]


def progress(run: RunDirectory) -> Progress:
    """Where the run stands by its metrics."""
    lines = _lines(run)
    if not lines:
        return Progress()
    newest = json.loads(lines[-1])
    # A long run has thousands of training lines and few others: only what is needed is parsed.
    training: dict[str, Any] = next(
        (json.loads(line) for line in reversed(lines) if '"train"' in line), {}
    )
    scores = [json.loads(line)["accuracy_top-1"] for line in lines if '"val"' in line]
    return Progress(
        epoch=newest["epoch"],
        step=newest["step"],
        steps=training.get("steps"),
        loss=training.get("loss"),
        images_per_second=training.get("images_per_second"),
        last_score=scores[-1] if scores else None,
        best_score=max(scores, default=None),
    )


def results(run: RunDirectory) -> dict[str, Any] | None:
    """The content of results.json, or None before the run has finished."""
    try:
        content: dict[str, Any] = json.loads(run.results.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return content


def _lines(run: RunDirectory) -> list[str]:
    """The complete lines of metrics.jsonl; one that is still being written is left out."""
    try:
        text = run.metrics.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return text.rpartition("\n")[0].splitlines()
