"""What metrics.jsonl and results.json say about a run, for people to look at."""

from __future__ import annotations

import itertools
import math
import statistics
from dataclasses import dataclass
from typing import Any

from jobs import files
from jobs.rundir import RunDirectory

# Of a long run's metrics only the end is read: about a thousand lines, which with the settings of
# most recipes is the whole file.
END_BYTES = 2**18
# The speed is measured over so many.
RECENT_LINES = 50


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
    lr: float | None = None
    memory_mb: int | None = None
    epoch_step: int | None = None
    """The newest step, counted from the beginning of its epoch; None after an evaluation."""
    step_seconds: float | None = None
    """The median over the newest steps of the newest attempt."""
    evaluation_seconds: float | None = None
    """The newest evaluation's."""
    attempt: int | None = None
    """Whose the newest training line is."""
    written_at: float | None = None
    """When the newest line was, in seconds since the epoch."""


def read(run: RunDirectory) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl."""
    # The last piece is a line that is still being written, or nothing.
    lines = files.read_lines(run.metrics)[:-1]
    return [row for line in lines if (row := files.parse(line))]


def progress(run: RunDirectory) -> Progress:
    """Where the run stands by its metrics."""
    lines, is_all, written_at = _read_end(run)
    # Thousands of lines in fifty runs: only what is needed is parsed.
    newest = next(filter(None, map(files.parse, reversed(lines))), {})
    logged = (files.parse(line) or {} for line in reversed(lines) if '"train"' in line)
    recent = list(itertools.islice(logged, RECENT_LINES))
    training = next(filter(None, recent), {})
    mine = (row for row in recent if row.get("attempt") == training.get("attempt"))
    times = [seconds for row in mine if (seconds := _number(row.get("time"))) is not None]
    rows = (files.parse(line) or {} for line in lines if '"val"' in line)
    evaluations = [row for row in rows if _number(row.get("accuracy_top-1")) is not None]
    scores = [row["accuracy_top-1"] for row in evaluations]
    saved = [] if is_all else _saved_scores(run)
    return Progress(
        epoch=_whole(newest.get("epoch")),
        step=_whole(newest.get("step")),
        steps=_whole(newest.get("steps", training.get("steps"))),
        loss=_number(training.get("loss")),
        images_per_second=_number(training.get("images_per_second")),
        last_score=scores[-1] if scores else None,
        best_score=max([*scores, *saved], default=None),
        lr=_number(newest.get("lr")),
        memory_mb=_whole(training.get("memory")),
        epoch_step=_whole(training.get("iter")) if newest == training else None,
        step_seconds=statistics.median(times) if times else None,
        evaluation_seconds=_number(evaluations[-1].get("seconds")) if evaluations else None,
        attempt=_whole(training.get("attempt")),
        written_at=written_at if newest else None,
    )


def final_progress(content: dict[str, Any]) -> Progress:
    """Where a finished run stands by the content of its results.json."""
    best = content.get("best")
    return Progress(
        epoch=_whole(content.get("epochs")),
        step=_whole(content.get("steps")),
        steps=_whole(content.get("steps")),
        images_per_second=_number(content.get("images_per_second")),
        last_score=_number(content.get("accuracy_top-1")),
        best_score=_number(best.get("accuracy_top-1")) if isinstance(best, dict) else None,
    )


def results(run: RunDirectory) -> dict[str, Any] | None:
    """The content of results.json, or None before the run has finished."""
    return files.read_json(run.results)


def _read_end(run: RunDirectory) -> tuple[list[str], bool, float]:
    """The newest lines, an evaluation's among them if there was one; whether they are all."""
    size = END_BYTES
    while True:
        text, is_all, written_at = files.read_end(run.metrics, size)
        if is_all or '"val"' in text:
            # The last piece is a line that is still being written, the first may be half of one.
            return text.split("\n")[0 if is_all else 1 : -1], is_all, written_at
        size *= 4


def _saved_scores(run: RunDirectory) -> list[float]:
    """The scores of the checkpoints, of which the best one is always kept."""
    manifests = (files.read_json(path) or {} for path in run.checkpoints.glob("step-*.json"))
    scores = (_number(each.get("score")) for each in manifests)
    return [score for score in scores if score is not None]


def _whole(value: object) -> int | None:
    """A whole number; None for whatever else a foreign file may hold."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: object) -> float | None:
    """A finite number; None for whatever else a foreign file may hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if math.isfinite(value) else None
