"""How a job is stopped from outside and what follows, on a real cluster, with a stub worker."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.jobs.workplace import Workplace, ledger_lines, saved_steps, worker_reports
from tests.slurm.cluster import (
    LONG,
    await_end,
    await_ledger_end,
    await_restart,
    await_status,
    await_step,
    slurm,
    submit,
)

pytestmark = pytest.mark.slurm


def test_cancel_saves_and_does_not_requeue(workplace: Workplace) -> None:
    run, job = submit(workplace, *LONG)
    await_step(run, 1)
    assert "running" in workplace.launch("status", run.label).stdout

    assert workplace.launch("cancel", run.label).returncode == 0

    assert await_end(workplace, job).startswith("CANCELLED")
    assert await_ledger_end(run, 1)["reason"] == "cancelled"
    assert saved_steps(run)
    await_status(workplace, run, "cancelled")
    assert workplace.launch("cancel", run.label).returncode == 2


def test_a_plain_scancel_saves_and_does_not_requeue(workplace: Workplace) -> None:
    run, job = submit(workplace, *LONG)
    await_step(run, 1)

    slurm(workplace, "scancel", job)

    assert await_end(workplace, job).startswith("CANCELLED")
    line = await_ledger_end(run, 1)
    assert (line["reason"], line["exit_code"]) == ("cancelled", 75)
    assert saved_steps(run) == [line["last_step"]]
    assert "is not started again: the run was cancelled" in run.launcher_log.read_text()


def test_a_preempted_job_saves_and_goes_on_when_the_nodes_are_free(workplace: Workplace) -> None:
    run, job = submit(workplace, *LONG, "--set", "cluster.partition=low")
    await_step(run, 1)
    [line] = ledger_lines(run)
    urgent = ("sbatch", "--parsable", "--partition=gpu", "--exclusive", "--output=/dev/null")
    nodes = f"--nodelist={','.join(line['nodes'])}"

    other = slurm(workplace, *urgent, nodes, "--nodes=2", "--time=2", "--wrap=sleep 3").strip()

    try:
        first = await_ledger_end(run, 1)
        assert (first["reason"], first["exit_code"]) == ("preemption", 75)
        assert await_end(workplace, other) == "COMPLETED"
        await_restart(workplace, job)
        await_step(run, 2)
    finally:
        slurm(workplace, "scancel", other)
    workplace.launch("cancel", run.label)
    assert await_ledger_end(run, 2)["first_step"] == first["last_step"] + 1


def test_the_stop_signal_saves_and_requeues_once(workplace: Workplace) -> None:
    run, job = submit(workplace, *LONG)
    await_step(run, 1)

    slurm(workplace, "scancel", "--signal=USR2", job)

    first = await_ledger_end(run, 1)
    assert (first["reason"], first["exit_code"]) == ("preemption", 75)
    await_status(workplace, run, "queued")
    await_restart(workplace, job)
    await_step(run, 2)
    second = ledger_lines(run)[1]
    assert (second["job_id"], second["restart_count"]) == (job, 1)
    workplace.launch("cancel", run.label)
    assert await_ledger_end(run, 2)["first_step"] == first["last_step"] + 1
    assert run.launcher_log.read_text().count("is requeued") == 1


def test_a_requeue_from_outside_goes_on_as_the_second_attempt(workplace: Workplace) -> None:
    run, job = submit(workplace, *LONG)
    await_step(run, 1)

    slurm(workplace, "scontrol", "requeue", job)

    first = await_ledger_end(run, 1)
    assert (first["reason"], first["exit_code"]) == ("requeued", 75)
    await_restart(workplace, job)
    await_step(run, 2)
    workplace.launch("cancel", run.label)
    assert await_ledger_end(run, 2)["first_step"] == first["last_step"] + 1
    assert [report["attempt"] for report in worker_reports(run, attempt=2)] == [2] * 2


def test_logs_are_followed_through_a_requeue(workplace: Workplace, tmp_path: Path) -> None:
    run, job = submit(workplace, *LONG)
    shown = tmp_path / "shown"
    with shown.open("w") as output:
        follower = subprocess.Popen(
            [sys.executable, "launch.py", "logs", "-f", run.label],
            cwd=workplace.project,
            env=dict(workplace.environment),
            stdout=output,
            stderr=subprocess.DEVNULL,
        )
    await_step(run, 1)
    slurm(workplace, "scontrol", "requeue", job)
    await_restart(workplace, job)
    await_step(run, 2)
    workplace.launch("cancel", run.label)

    assert follower.wait(timeout=120) == 0
    lines = shown.read_text().splitlines()
    nodes = ", ".join(ledger_lines(run)[1]["nodes"])
    [header] = [line for line in lines if line.startswith("== ")]
    assert header.startswith(f"== attempt 2: job {job} on {nodes} since ")
    at = lines.index(header)
    for part, attempt in ((lines[:at], 1), (lines[at + 1 :], 2)):
        assert len([line for line in part if f'"attempt": {attempt}' in line]) == 2
        assert len([line for line in part if "stopped by " in line]) == 2
