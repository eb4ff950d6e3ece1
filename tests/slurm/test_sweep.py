"""A sweep as one Slurm array, on a real cluster, with a stub worker."""

from __future__ import annotations

import re
import shutil

import pytest

from tests.jobs.workplace import Workplace, eventually, ledger_lines, writable_by_others
from tests.slurm.cluster import (
    LONG,
    await_end,
    await_ledger_end,
    await_restart,
    await_step,
    slurm,
)

pytestmark = pytest.mark.slurm

ONE_NODE = (
    "--config", "stub.yaml", "--engine", "slurm",
    "--set", "cluster.nodes=1", "--set", "cluster.gpus_per_node=1",
    "--set", "cluster.time_limit=00:10:00",
)  # fmt: skip


def test_one_array_runs_every_element_in_its_own_run_directory(workplace: Workplace) -> None:
    dry = workplace.launch(*ONE_NODE, "--sweep", "run.seed=1,2,3", "--dry-run")
    done = workplace.launch(
        *ONE_NODE, "--sweep", "run.seed=1,2,3", "--set", "cluster.array_parallelism=2", umask=0
    )

    assert done.returncode == 0, done.stderr
    match = re.search(r"submitted job (\d+): 3 runs, each 1 node with 1 GPU", done.stdout)
    assert match, done.stdout
    job = match.group(1)
    runs = workplace.runs
    [folder] = {run.sweep for run in runs}
    script = (folder / "job.sbatch").read_text()
    assert slurm(workplace, "scontrol", "write", "batch_script", f"{job}_0", "-").rstrip("\0") == (
        script
    )
    assert "#SBATCH --array=0-2%2\n" in script
    assert "#SBATCH --array=0-2\n" in dry.stdout
    for index, run in enumerate(runs):
        assert await_end(workplace, f"{job}_{index}") == "COMPLETED"
        [line] = ledger_lines(run)
        assert (line["job_id"], line["reason"], line["attempt"]) == (
            f"{job}_{index}", "finished", 1,
        )  # fmt: skip
    ran_at_once = [(ledger_lines(run)[0]["start"], ledger_lines(run)[0]["end"]) for run in runs]
    assert min(end for _, end in ran_at_once[:2]) <= ran_at_once[2][0]
    # Whatever the umask, on the login node as on the compute nodes.
    assert writable_by_others(workplace.logs) == []


def test_an_element_is_requeued_cancelled_and_resumed_alone(workplace: Workplace) -> None:
    done = workplace.launch(*ONE_NODE, *LONG, "--sweep", "run.seed=1,2,3")
    assert done.returncode == 0, done.stderr
    first, second, third = workplace.runs
    for run in (first, second, third):
        await_step(run, 1)
    jobs = [ledger_lines(run)[0]["job_id"] for run in (first, second, third)]

    slurm(workplace, "scancel", "--signal=USR2", jobs[0])
    assert workplace.launch("cancel", second.label).returncode == 0

    assert await_ledger_end(first, 1)["reason"] == "preemption"
    assert await_ledger_end(second, 1)["reason"] == "cancelled"
    await_restart(workplace, jobs[0])
    await_step(first, 2)
    again = ledger_lines(first)[1]
    assert (again["job_id"], again["restart_count"]) == (jobs[0], 1)
    resumed = workplace.launch("resume", second.label)
    assert resumed.returncode == 0, resumed.stderr
    await_step(second, 2)
    assert ledger_lines(second)[1]["first_step"] is None  # goes on, so it has no end yet
    assert len(ledger_lines(third)) == 1

    whole = f"{first.name}/{first.sweep.name}" if first.sweep else ""
    assert workplace.launch("cancel", whole).returncode == 0
    eventually(
        "the queue is empty",
        lambda: not slurm(workplace, "squeue", "-h", "-t", "pending,running"),
        60,
    )
    reasons = [await_ledger_end(first, 2), await_ledger_end(second, 2), await_ledger_end(third, 1)]
    assert [each["reason"] for each in reasons] == ["cancelled"] * 3
    assert await_ledger_end(second, 2)["first_step"] == ledger_lines(second)[0]["last_step"] + 1


def test_what_slurm_does_to_an_element_is_told_by_the_log_of_its_own_job(
    workplace: Workplace,
) -> None:
    done = workplace.launch(
        *ONE_NODE, *LONG, "--sweep", "run.seed=1,2", "--set", "cluster.env.STUB=deaf"
    )
    assert done.returncode == 0, done.stderr
    run, other = workplace.runs
    await_step(run, 1)
    await_step(other, 1)

    slurm(workplace, "scontrol", "requeue", ledger_lines(run)[0]["job_id"])

    assert await_ledger_end(run, 1)["reason"] == "requeued"
    assert ledger_lines(other)[0]["end"] is None


def test_a_sweep_is_ended_with_one_order_and_resumed_as_a_whole(workplace: Workplace) -> None:
    assert workplace.launch(*ONE_NODE, *LONG, "--sweep", "run.seed=1,2,3").returncode == 0
    runs = workplace.runs
    for run in runs:
        await_step(run, 1)
    real = shutil.which("scancel", path=workplace.environment["PATH"])
    calls = workplace.project / "calls"
    stand_in = workplace.project / "bin" / "scancel"
    stand_in.parent.mkdir()
    stand_in.write_text(f'#!/bin/sh\necho "$@" >> "{calls}"\nexec {real} "$@"\n')
    stand_in.chmod(0o755)
    path = f"{stand_in.parent}:{workplace.environment['PATH']}"

    done = workplace.launch("cancel", "stub", PATH=path)

    assert done.returncode == 0, done.stderr
    ids = {ledger_lines(run)[0]["job_id"] for run in runs}
    [order] = calls.read_text().splitlines()
    assert set(order.split()) == ids
    assert f"cancelled 3 runs of the sweep {runs[0].name}/" in done.stdout
    assert [await_ledger_end(run, 1)["reason"] for run in runs] == ["cancelled"] * 3

    eventually("no job is left", lambda: not slurm(workplace, "squeue", "-h"), 60)
    again = workplace.launch("resume", "stub")

    assert again.returncode == 0, again.stderr
    assert again.stdout.count("submitted job ") == 3
    for run in runs:
        await_step(run, 2)
    assert workplace.launch("cancel", "stub").returncode == 0
    assert [await_ledger_end(run, 2)["reason"] for run in runs] == ["cancelled"] * 3
