"""Where a run stands by its metrics: complete lines, and of a long file only the end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs import metrics
from jobs.history import History
from jobs.rundir import RunDirectory


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path)


def training_line(step: int, **values: object) -> str:
    row = {"mode": "train", "epoch": 1, "iter": step, "step": step, "steps": 90000, "time": 0.5}
    return json.dumps(row | {"loss": 1.0, "attempt": 1} | values) + "\n"


def evaluation_line(step: int, score: float) -> str:
    row = {"mode": "val", "epoch": 1, "step": step, "accuracy_top-1": score, "seconds": 7.5}
    return json.dumps(row) + "\n"


def test_of_a_long_file_the_newest_score_is_found_and_the_best_is_a_checkpoints(
    run: RunDirectory,
) -> None:
    run.checkpoints.mkdir()
    (run.checkpoints / "step-00000001.json").write_text('{"step": 1, "score": 95.5}')
    (run.checkpoints / "step-00000002.json").write_text('{"step": 2, "score": null}')
    filler = "".join(training_line(step) for step in range(3, 6000))
    run.metrics.write_text(evaluation_line(1, 95.5) + evaluation_line(2, 90.0) + filler)
    assert run.metrics.stat().st_size > 2 * metrics.END_BYTES

    progress = metrics.progress(run)

    assert (progress.step, progress.last_score, progress.best_score) == (5999, 90.0, 95.5)


def test_the_speed_is_the_newest_attempts(run: RunDirectory) -> None:
    lines = [training_line(step, time=9.0) for step in range(1, 6)]
    times = (0.5, 60.0, 0.7)  # one of them with a hiccup
    lines += [training_line(step, time=each, attempt=2) for step, each in enumerate(times, 6)]
    run.metrics.write_text("".join(lines) + evaluation_line(8, 90.0))

    progress = metrics.progress(run)

    assert (progress.step_seconds, progress.evaluation_seconds) == (0.7, 7.5)


def test_a_run_without_metrics_has_no_progress(run: RunDirectory) -> None:
    assert metrics.progress(run) == metrics.Progress()


def test_what_is_no_number_is_not_known(run: RunDirectory) -> None:
    """Old, foreign and damaged files are no reason to fail."""
    rows: list[object] = [
        {"mode": "val", "accuracy_top-1": "high", "seconds": None},
        {"mode": "train", "step": 1.5, "epoch": "one", "loss": float("nan"), "time": [1]},
        ["train"],
        {"mode": "train", "step": True, "steps": {}, "iter": "x", "memory": "much", "lr": None},
    ]
    run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    written_at = run.metrics.stat().st_mtime
    history = History(run.metrics)
    history.update()

    assert metrics.progress(run) == metrics.Progress(written_at=written_at)
    assert metrics.final_progress({"best": 3, "steps": "all"}) == metrics.Progress()
    assert (history.losses, history.scores) == ([], [])


def test_a_history_reads_on_and_forgets_what_a_lost_attempt_wrote(run: RunDirectory) -> None:
    history = History(run.metrics)
    history.update()
    run.metrics.write_text(training_line(1) + training_line(2) + evaluation_line(2, 80.0))
    history.update()
    with run.metrics.open("a") as file:
        file.write(training_line(3) + training_line(4)[:-20])
    history.update()
    assert ([step for step, _ in history.losses], history.scores) == ([1, 2, 3], [(2, 80.0)])

    # The second attempt goes on from step 1: cut in place, and longer than before at once.
    with run.metrics.open("r+") as file:
        file.truncate(len(training_line(1)))
    with run.metrics.open("a") as file:
        for step in (2, 3, 4, 5, 6):
            file.write(training_line(step, attempt=2, loss=0.5))
    history.update()

    assert history.losses[-1] == (6, 0.5)
    assert sorted({step for step, _ in history.losses}) == [step for step, _ in history.losses]
