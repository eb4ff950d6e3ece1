"""When a worker is stopped and when it is killed, before Slurm would do either."""

from __future__ import annotations

import json
import signal
import time
from datetime import datetime
from pathlib import Path

import pytest

from configs.cluster import Cluster
from jobs import controller, deadline, lease
from jobs.deadline import Deadline, Limits
from jobs.guard import Guard
from jobs.rundir import RunDirectory
from jobs.stop import StopRequest


def clock(folder: Path, left: float, limit: float, save_seconds: float | None = None) -> Deadline:
    run = RunDirectory(folder)
    run.checkpoints.mkdir(exist_ok=True)
    manifest = {"step": 1, "seconds": save_seconds}
    (run.checkpoints / "step-00000001.json").write_text(json.dumps(manifest))
    return Deadline(run, Limits(time.time() + left, limit))


@pytest.mark.parametrize(
    ("left", "limit", "save_seconds", "expected"),
    [
        (16, 3600, None, False),
        (14, 3600, None, True),
        (46, 3600, 10.0, False),
        (44, 3600, 10.0, True),
        (530, 3600, 1000.0, True),
        (550, 3600, 1000.0, False),
        (10, 60, 10.0, False),
        (8, 60, 10.0, True),
    ],
)
def test_a_worker_stops_three_saves_before_the_limit_but_no_more_than_its_seventh(
    tmp_path: Path, left: float, limit: float, save_seconds: float | None, expected: bool
) -> None:
    assert clock(tmp_path, left, limit, save_seconds).is_near() == expected


def test_a_worker_is_killed_a_little_before_the_limit(tmp_path: Path) -> None:
    assert not clock(tmp_path, 9, 3600).has_passed(StopRequest())
    assert clock(tmp_path, 7, 3600).has_passed(StopRequest())


def test_a_task_that_goes_on_long_after_its_limit_has_time_to_save_where_slurm_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm would have killed it, so the limit has moved; and all tasks ask at the same moment."""
    monkeypatch.setattr(controller, "end_time", lambda *_: "")
    run, stop = RunDirectory(tmp_path), StopRequest()
    watch = Deadline(run, Limits(time.time() - 600, 3600), "7")

    verdict = Guard(run, 1, stop, watch, lease.take(run, "7.0", "job 7")).look()

    assert (verdict, stop.signal) == (None, signal.SIGUSR2)


@pytest.mark.parametrize("moved", [True, False])
def test_a_limit_that_slurm_has_moved_is_not_near_and_has_not_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: bool
) -> None:
    """That of a job that was suspended, or one that an administrator has raised."""
    before = time.time() - 20
    now = datetime.fromtimestamp(before + 3600 * moved).isoformat(timespec="seconds")
    asked = []
    monkeypatch.setattr(controller, "end_time", lambda *_: asked.append(1) or now)
    run, stop = RunDirectory(tmp_path), StopRequest()
    watch = Deadline(run, Limits(before, 3600), "7")

    verdict = Guard(run, 1, stop, watch, lease.take(run, "7.0", "job 7")).look()

    assert (verdict, stop.signal) == ((None, None) if moved else ("overdue", signal.SIGUSR2))
    # While there is time, nobody is asked.
    asked.clear()
    assert (watch.is_near(), watch.has_passed(stop)) == (not moved, not moved)
    assert bool(asked) != moved


def test_a_worker_is_killed_within_kill_wait_of_term_but_not_of_usr2(tmp_path: Path) -> None:
    watch = clock(tmp_path, 3000, 3600)
    stop = StopRequest()
    stop.request(signal.SIGUSR2)
    assert not watch.has_passed(stop)

    stop.termed_at = time.monotonic() - 21
    assert not watch.has_passed(stop)
    stop.termed_at = time.monotonic() - 24
    assert watch.has_passed(stop)


@pytest.mark.parametrize(
    ("state", "left", "expected"),
    [
        ("RUNNING", 120, False),
        ("RUNNING", 5, True),
        ("RUNNING", 3000, True),  # somebody has sent the signal, and Slurm knows of no grace
        ("COMPLETING", 120, True),
    ],
)
def test_a_preempted_worker_has_the_grace_that_slurm_gives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, left: float, expected: bool
) -> None:
    end = datetime.fromtimestamp(time.time() + left).isoformat(timespec="seconds")
    monkeypatch.setattr(controller, "state_and_end", lambda *_: f"{state}|{end}")
    watch = Deadline(RunDirectory(tmp_path), Limits(time.time() + 3000, 3600), "7")
    stop = StopRequest()
    stop.termed_at = time.monotonic() - 24

    assert watch.has_passed(stop) == expected


@pytest.mark.parametrize(("signalled", "by_clock"), [(False, True), (True, False)])
def test_a_stop_by_the_clock_is_told_from_one_that_was_asked_for(
    tmp_path: Path, signalled: bool, by_clock: bool
) -> None:
    stop = StopRequest()
    if signalled:
        stop.request(signal.SIGTERM)
    held = lease.take(RunDirectory(tmp_path), "7.0", "job 7")

    Guard(RunDirectory(tmp_path), 1, stop, clock(tmp_path, 14, 3600), held).look()

    assert (stop.signal is not None, stop.by_clock) == (True, by_clock)


def test_without_a_limit_nothing_is_ever_near(tmp_path: Path) -> None:
    watch = Deadline(RunDirectory(tmp_path), Limits())

    assert (watch.seconds_left(), watch.is_near()) == (None, False)


@pytest.mark.parametrize(
    ("limit", "save_seconds", "lead"),
    [("04:00:00", 5.0, 30), ("04:00:00", 100.0, 315), ("00:07:00", 100.0, 60)],
)
def test_a_measured_save_sets_slurms_lead(limit: str, save_seconds: float, lead: int) -> None:
    assert deadline.stop_lead_seconds(Cluster(time_limit=limit), save_seconds) == lead
