"""A run is neither started again for ever nor lost over a start that went wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jobs import ending, failure, files, lease, ledger, refusal, settle
from jobs.rundir import RunDirectory
from tests.jobs.slurm_stand_in import ENVIRON, Cluster
from tests.jobs.workplace import ledger_lines


def test_a_start_that_opened_no_attempt_counts_as_one(run: RunDirectory, cluster: Cluster) -> None:
    settle.settle(run, 1, ENVIRON | {"SLURM_JOB_ID": "9"})
    settle.settle(run, 140, ENVIRON | {"SLURM_JOB_ID": "10"})

    lines = ledger_lines(run)
    ends = [(line["job_id"], line["reason"]) for line in lines]
    assert ends == [("7", None), ("9", "crash"), ("10", "preemption")]
    assert cluster.orders() == ["scontrol requeue 9", "scontrol requeue 10"]


def test_starts_that_open_no_attempt_do_not_go_on_for_ever(
    run: RunDirectory, cluster: Cluster
) -> None:
    [entry] = ledger.read(run)
    ledger.close_attempt(run, entry, "time limit", 75)
    for restart in (1, 2):
        cluster.answer("squeue", f"RUNNING {restart}")
        settle.settle(run, 143, ENVIRON | {"SLURM_RESTART_COUNT": str(restart)})

    assert "two attempts in a row made no progress" in run.launcher_log.read_text()
    assert cluster.orders() == []


@pytest.mark.parametrize("code", [2, 137, 143])
def test_a_refused_start_is_not_started_again_whatever_srun_returns(
    run: RunDirectory, cluster: Cluster, code: int
) -> None:
    refusal.record(run, "7.1", "not started again: 3 crashes")

    assert settle.settle(run, code, ENVIRON | {"SLURM_RESTART_COUNT": "1"}) == 2
    assert cluster.orders() == []
    assert len(ledger_lines(run)) == 1
    assert "not started again: 3 crashes" in run.launcher_log.read_text()


def test_a_start_that_dies_while_another_job_holds_the_run_leaves_it_alone(
    run: RunDirectory, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease.take(run, "7.0", "job 7")
    monkeypatch.setattr(lease, "is_alive", lambda _: True)

    assert settle.settle(run, 137, ENVIRON | {"SLURM_JOB_ID": "9"}) == 137
    assert cluster.orders() == []
    assert len(ledger_lines(run)) == 1


def test_an_attempt_that_a_full_disk_kept_out_of_the_ledger_is_settled_and_goes_on(
    run: RunDirectory, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    run.attempts.unlink()
    monkeypatch.setattr(os, "fsync", full)

    assert settle.settle(run, 143, ENVIRON) == 75
    assert cluster.orders() == ["scontrol requeue 7"]

    again = ENVIRON | {"SLURM_RESTART_COUNT": "2"}
    cluster.answer("squeue", "RUNNING 2")
    settle.settle(run, 143, again)
    assert cluster.orders() == ["scontrol requeue 7"]
    assert "of its last 3 starts; to go on: " in run.launcher_log.read_text()


def test_a_failed_write_leaves_no_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_json(tmp_path / "x.json", {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", [b"", b"{", b"\0\0\0", b"[1]", b"\xff\xfe", b"{}"])
def test_damaged_records_count_as_absent(
    run: RunDirectory, cluster: Cluster, damage: bytes
) -> None:
    (run.attempt(1) / failure.FILE_NAME).write_bytes(damage)
    (run.attempt(1) / "ended-000.json").write_bytes(damage)
    run.lease.write_bytes(damage)
    run.metrics.write_bytes(
        b'{"step": 1, "attempt": 1}\n' + damage + b'\n{"step": 2, "attempt": 1}\n'
    )
    with run.attempts.open("ab") as lines:
        lines.write(damage + b"\n")

    assert failure.read(run, 1) is None
    assert ending.read_all(run, 1) == []
    assert settle.settle(run, 1, ENVIRON) == 1

    [line] = ledger_lines(run)
    assert (line["reason"], line["first_step"], line["last_step"]) == ("crash", 1, 2)
    assert cluster.orders() == ["scontrol requeue 7"]


def test_damaged_results_are_no_results(run: RunDirectory, cluster: Cluster) -> None:
    run.results.touch()

    assert settle.settle(run, 143, ENVIRON) == 75
    assert cluster.orders() == ["scontrol requeue 7"]


@pytest.mark.parametrize(("restart", "orders"), [(0, ["scontrol requeue 7"]), (3, [])])
def test_a_settling_that_fails_says_so_and_the_run_goes_on_a_few_times(
    run: RunDirectory,
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
    restart: int,
    orders: list[str],
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("broken on purpose")

    monkeypatch.setattr(settle.verdict, "judge", broken)
    cluster.answer("squeue", f"RUNNING {restart}")

    environ = ENVIRON | {"SLURM_RESTART_COUNT": str(restart)}
    assert settle.settle_or_go_on(run, 143, environ) == 143
    assert cluster.orders() == orders
    story = run.launcher_log.read_text()
    assert "KeyError: 'broken on purpose'" in story
    assert ("to go on: python launch.py resume" in story) == (orders == [])
