"""A run is neither started again for ever nor lost over a start that went wrong."""

from __future__ import annotations

import pytest

from jobs import lease, ledger, refusal, settle
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
    ledger.close_attempt(run, 1, "time limit", 75)
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
