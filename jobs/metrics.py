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
    """The lines of metrics.jsonl; a line that is still being written is left out."""
    try:
        text = run.metrics.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    complete, _, _ = text.rpartition("\n")
    return [json.loads(line) for line in complete.splitlines()]


def progress(run: RunDirectory) -> Progress:
    """Where the run stands by its metrics."""
    lines = read(run)
    training = [line for line in lines if line["mode"] == "train"]
    scores = [line["accuracy_top-1"] for line in lines if line["mode"] == "val"]
    newest = training[-1] if training else {}
    return Progress(
        epoch=max((line["epoch"] for line in lines), default=None),
        step=max((line["step"] for line in lines), default=None),
        steps=newest.get("steps"),
        loss=newest.get("loss"),
        images_per_second=newest.get("images_per_second"),
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
