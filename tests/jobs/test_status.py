"""`status` from the run directory alone: every end of a run is told apart, whatever is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs import attachment, failure, ledger, status
from jobs.failure import Failure
from jobs.place import Place
from jobs.rundir import RunDirectory

PLACE = Place(0, 0, 1, 1, None, 0, "here", ("here",), "local-1-abcd")


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(tmp_path / "name" / "20260101-000000-abcd")
    run.engine_files.mkdir(parents=True)
    run.config.touch()
    return run


def state(run: RunDirectory) -> str:
    return status.collect([run])[0].state


def test_a_run_that_this_process_carries_is_running(run: RunDirectory) -> None:
    attachment.attach(run, "key")
    assert state(run) == "running"


def test_a_process_that_got_the_number_of_an_old_one_is_another(run: RunDirectory) -> None:
    attachment.attach(run, "key")
    record = run.engine_files / "launcher.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"started": "1"}))
    ledger.open_attempt(run, PLACE)

    assert state(run) == "lost"


@pytest.mark.parametrize(
    ("reason", "expected"),
    [("stopped", "stopped"), ("cancelled", "cancelled"), ("lost", "lost")],
)
def test_the_ledger_tells_how_a_run_ended(
    run: RunDirectory, reason: ledger.Reason, expected: status.State
) -> None:
    entry = ledger.open_attempt(run, PLACE)
    ledger.close_attempt(run, entry, reason, 75)

    assert state(run) == expected


def test_a_failure_is_told_with_rank_and_node(run: RunDirectory) -> None:
    ledger.open_attempt(run, PLACE)
    run.attempt(1).mkdir()
    failure.claim(run, 1, Failure(2, "node7", -9, []))

    [told] = status.collect([run])
    assert (told.state, told.note) == (
        "failed",
        "rank 2 on node7: killed by SIGKILL; to go on: launch.py resume",
    )


def test_results_are_the_last_word(run: RunDirectory) -> None:
    ledger.open_attempt(run, PLACE)
    run.results.write_text('{"accuracy_top-1": 90.0}')

    assert state(run) == "finished"


def test_progress_counts_complete_lines_only(run: RunDirectory) -> None:
    run.metrics.write_text(
        '{"mode": "train", "epoch": 1, "step": 10, "steps": 40, "loss": 0.5}\n'
        '{"mode": "val", "epoch": 1, "step": 20, "accuracy_top-1": 80.0}\n'
        '{"mode": "val", "epoch": 2, "step": 40, "accuracy_top-1": 70.0}\n'
        '{"mode": "train", "epoch": 3, "st'
    )

    [told] = status.collect([run])
    progress = told.progress
    assert (progress.epoch, progress.step, progress.steps) == (2, 40, 40)
    assert (progress.best_score, progress.last_score) == (80.0, 70.0)


def test_a_damaged_run_does_not_hide_the_others(run: RunDirectory, tmp_path: Path) -> None:
    other = RunDirectory(tmp_path / "name" / "20260102-000000-abcd")
    other.path.mkdir()
    other.attempts.write_text("not JSON\n")
    run.results.write_text('{"accuracy_top-1": 90.0}')

    assert [told.state for told in status.collect([run, other])] == ["finished", "unknown"]
