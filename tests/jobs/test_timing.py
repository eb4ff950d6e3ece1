"""Queue, wall and GPU time, from the ledger and the story of runs that were disturbed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from jobs import ledger, timing
from jobs.rundir import RunDirectory, seconds_of
from jobs.timing import Span, Times
from tests.jobs.past_runs import attempt, write_run

NOW = seconds_of("2026-01-01T10:00:00Z")
SUBMITTED = "2026-01-01T00:00:00Z submitted as job 7\n"
LINES: list[dict[str, Any]] = [
    attempt(1, "00:10:00", end="2026-01-01T00:40:00Z", reason="time limit", gpu_seconds_lost=12.5),
    attempt(2, "00:42:00", end="2026-01-01T00:43:00Z", reason="crash", gpu_seconds_lost=480.0),
    attempt(3, "00:50:00", end="2026-01-01T01:50:00Z", workers=4),
]


def times(run: RunDirectory, state: str = "finished") -> tuple[list[Span], Times]:
    entries = ledger.read(run)
    spans = timing.spans(run, entries, state, NOW)
    return spans, timing.total(run, entries, spans, state, NOW)


def test_a_requeued_run_waits_from_each_end_to_the_next_start(tmp_path: Path) -> None:
    spans, total = times(write_run(tmp_path, "r", attempts=LINES, story=SUBMITTED))

    assert spans == [Span(600, 1800, 8), Span(120, 60, 8), Span(420, 3600, 4)]
    assert total == Times(
        queue=600 + 120 + 420,
        wall=1800 + 60 + 3600,
        gpu=(1800 + 60) * 8 + 3600 * 4,
        lost=12.5 + 480.0,
    )


def test_idle_time_until_somebody_resumes_is_no_waiting(tmp_path: Path) -> None:
    again = attempt(2, "05:01:00", job_id="8", restart_count=0, afresh=True)
    again |= {"end": "2026-01-01T05:31:00Z"}
    story = SUBMITTED + "2026-01-01T05:00:00Z resumed by hand as job 8\n"
    spans, total = times(write_run(tmp_path, "r", attempts=[LINES[0], again], story=story))

    assert [span.waited for span in spans] == [600, 60]
    assert (total.queue, total.wall) == (660, 3600)


def test_a_job_that_follows_because_the_first_could_not_be_requeued_waits_from_its_end(
    tmp_path: Path,
) -> None:
    follower = attempt(2, "00:45:00", job_id="9", restart_count=0, afresh=False)
    spans, _ = times(write_run(tmp_path, "r", attempts=[LINES[0], follower], story=SUBMITTED))

    assert [span.waited for span in spans] == [600, 300]


def test_an_element_of_an_array_waits_from_its_own_submission(tmp_path: Path) -> None:
    story = "2026-01-01T00:04:00Z submitted as job 7_12\n"
    run = write_run(tmp_path, "r", attempts=[attempt(job_id="7_12")], story=story)

    assert times(run)[1].queue == 360


def test_a_job_that_somebody_queued_without_the_launcher_has_waited_nobody_knows_how_long(
    tmp_path: Path,
) -> None:
    _, total = times(write_run(tmp_path, "r", attempts=[attempt()], story="nothing of use\n"))

    assert (total.queue, total.wall) == (None, 3600)


def test_without_slurm_nothing_waits(tmp_path: Path) -> None:
    local = [attempt(job_id=None), attempt(2, "05:00:00", job_id=None, end="2026-01-01T05:00:09Z")]
    _, total = times(write_run(tmp_path, "r", attempts=local))

    assert (total.queue, total.wall, total.gpu) == (0, 3609, 3609 * 8)


def test_a_running_attempt_lasts_until_now(tmp_path: Path) -> None:
    run = write_run(
        tmp_path, "r", attempts=[attempt(end=None, reason=None)], story=SUBMITTED, is_finished=False
    )
    spans, _ = times(run, "running")

    assert spans == [Span(600, 9 * 3600 + 50 * 60, 8)]


def test_a_run_in_the_queue_waits_until_now(tmp_path: Path) -> None:
    fresh = write_run(tmp_path, "a", attempts=[], story=SUBMITTED, is_finished=False)
    requeued = write_run(tmp_path, "b", attempts=LINES[:1], story=SUBMITTED, is_finished=False)

    assert times(fresh, "queued")[1] == Times(queue=36_000, wall=0, gpu=0, lost=0)
    assert times(requeued, "queued")[1].queue == 600 + 36_000 - 2400


def test_a_lost_attempt_lasts_until_its_last_sign_of_life(tmp_path: Path) -> None:
    """Nobody wrote down its end, but whoever holds a run refreshes its lease."""
    lost = [attempt(end=None, reason=None, gpu_seconds_lost=None)]
    run = write_run(tmp_path, "r", attempts=lost, story=SUBMITTED, is_finished=False)
    unknown, _ = times(run, "lost")
    run.lease.touch()
    os.utime(run.lease, (0, seconds_of("2026-01-01T00:30:00Z")))
    known, total = times(run, "lost")

    assert [span.lasted for span in unknown] == [None]
    assert [span.lasted for span in known] == [1200]
    assert (total.gpu, total.lost) == (9600, 0)


@pytest.mark.parametrize("story", ["2026-13-45T99:00:00Z submitted as job 7\n", "\0\n\n"])
def test_a_damaged_story_costs_the_waiting_time_only(tmp_path: Path, story: str) -> None:
    _, total = times(write_run(tmp_path, "r", attempts=[attempt()], story=story))

    assert (total.queue, total.wall) == (None, 3600)
