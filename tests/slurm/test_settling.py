"""How a run goes on, or ends with a word, after everything that can end an attempt."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest

from jobs.rundir import RunDirectory
from tests.jobs.workplace import Workplace, eventually, ledger_lines, saved_steps, worker_reports
from tests.slurm.cluster import (
    LONG,
    PATIENCE_SECONDS,
    SMALL,
    WIDE,
    await_end,
    await_ledger_end,
    await_restart,
    await_status,
    await_step,
    path_without,
    slurm,
    submit,
)

pytestmark = pytest.mark.slurm


def setting(**variables: str) -> list[str]:
    """Options that set variables of the workers."""
    return [
        word
        for name, value in variables.items()
        for word in ("--set", f"cluster.env.{name}='{value}'")
    ]


def await_word(run: RunDirectory, text: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for some words in the run's story."""
    eventually(f"{text!r} in launcher.log", lambda: text in run.launcher_log.read_text(), seconds)


def test_a_deaf_worker_is_killed_before_the_time_limit_and_the_run_goes_on_from_its_checkpoint(
    workplace: Workplace,
) -> None:
    # Slurm warns the batch shell only: the task sees by the clock that its time is running out.
    limits = ("--set", "cluster.time_limit=00:01:00", "--set", "cluster.sbatch.signal=B:USR2@1")
    run, job = submit(workplace, *LONG, *limits, *setting(STUB="deaf", STUB_SAVE_EVERY="20"))

    first = await_ledger_end(run, 1)

    assert (first["reason"], first["exit_code"]) == ("time limit", 75)
    assert 0 < first["saved_step"] == saved_steps(run)[-1] <= first["last_step"]
    assert 0 < first["gpu_seconds_lost"] < 2 * 20
    await_word(run, f"it goes on from the checkpoint of step {first['saved_step']}")
    await_word(run, f"job {job} is requeued")


@pytest.mark.slow
def test_a_worker_that_stops_by_the_clock_has_saved_and_the_run_goes_on(
    workplace: Workplace,
) -> None:
    limits = ("--set", "cluster.time_limit=00:01:00", "--set", "cluster.sbatch.signal=B:USR2@1")
    run, job = submit(workplace, *LONG, *limits)

    first = await_ledger_end(run, 1)

    assert (first["reason"], first["saved_step"]) == ("time limit", first["last_step"])
    await_restart(workplace, job)
    await_step(run, 2)


def test_an_unfit_node_is_left_out_of_the_next_attempt(workplace: Workplace) -> None:
    run, job = submit(workplace, *setting(STUB="unfit:1", STUB_ONLY="1"))

    first = await_ledger_end(run, 1)
    assert await_end(workplace, job) == "COMPLETED"

    assert (first["reason"], first["unfit_nodes"]) == ("unfit node", first["nodes"][1:])
    second = ledger_lines(run)[1]
    assert second["reason"] == "finished"
    assert first["nodes"][1] not in second["nodes"]
    assert f"{first['nodes'][1]} is unfit: GPU 3 is missing" in run.launcher_log.read_text()


def test_a_second_unfit_node_in_a_row_ends_the_run(workplace: Workplace) -> None:
    run, job = submit(workplace, *setting(STUB="unfit:1"))

    assert await_end(workplace, job) == "FAILED"

    assert [line["reason"] for line in ledger_lines(run)] == ["unfit node"] * 2
    assert (
        "not started again: a node was unfit a second time in a row" in run.launcher_log.read_text()
    )


def test_a_rank_that_raises_every_time_ends_the_run_with_the_digest(workplace: Workplace) -> None:
    run, job = submit(workplace, *LONG, *setting(STUB="crash:1", STUB_SAVE_EVERY="1"))

    assert await_end(workplace, job) == "FAILED"

    assert [line["reason"] for line in ledger_lines(run)] == ["crash"] * 3
    last_words = run.launcher_log.read_text().rpartition("ended: crash")[2]
    for text in (last_words, (run.engine_files / f"{job}_0_log.err").read_text()):
        assert "failed first: exit code 1\n  RuntimeError: broken on purpose" in text
        assert "not started again: 3 crashes (cluster.max_crashes is 3)" in text
    assert "resume" in workplace.launch("status", run.label).stdout


def test_two_attempts_without_progress_end_the_run(workplace: Workplace) -> None:
    run, job = submit(workplace, *LONG, *setting(STUB="kill:0"))

    assert await_end(workplace, job) == "FAILED"

    assert [line["reason"] for line in ledger_lines(run)] == ["crash"] * 2
    assert (
        "two attempts in a row made no progress: nothing was saved" in run.launcher_log.read_text()
    )


def test_a_dead_rank_ends_the_job_at_once_with_every_ranks_traceback(workplace: Workplace) -> None:
    once = ("--set", "cluster.max_crashes=1")
    run, _ = submit(workplace, *WIDE, *LONG, *once, *setting(STUB="kill:3"))
    eventually("a failure", (run.attempt(1) / "failure.json").exists, PATIENCE_SECONDS)
    died = time.monotonic()

    await_word(run, "not started again: 1 crash", 8)

    assert time.monotonic() - died < 8
    for rank in range(3):
        assert "most recent call first" in run.rank_log(1, rank).read_text()
    assert "ranks 0-2: ended after the failure" in workplace.launch("logs", run.label).stderr


def test_a_job_without_scontrol_is_followed_by_another(
    workplace: Workplace, tmp_path: Path
) -> None:
    path = path_without(tmp_path / "bin", "scontrol")
    run, job = submit(workplace, *LONG, "--set", f"cluster.setup=['export PATH={path}']")
    await_step(run, 1)

    slurm(workplace, "scancel", "--signal=USR2", job)

    await_word(run, "follows it")
    [follower] = re.findall(r"job (\d+) follows it", run.launcher_log.read_text())
    await_step(run, 2)
    slurm(workplace, "scancel", follower)
    lines = [await_ledger_end(run, number) for number in (1, 2)]
    assert [(line["job_id"], line["reason"]) for line in lines] == [
        (job, "preemption"),
        (follower, "cancelled"),
    ]
    assert [line["afresh"] for line in lines] == [True, False]


def test_one_element_of_an_array_is_requeued_alone(workplace: Workplace) -> None:
    run, first = submit(workplace, "--set", "cluster.sbatch.begin=now+1hour", *LONG)
    slurm(workplace, "scancel", first)
    answer = slurm(workplace, "sbatch", "--parsable", "--array=3", "--begin=now", str(run.script))
    element = f"{answer.strip()}_3"
    try:
        await_step(run, 1)
        slurm(workplace, "scancel", "--signal=USR2", element)
        line = await_ledger_end(run, 1)
        assert (line["job_id"], line["reason"]) == (element, "preemption")
        await_step(run, 2)
    finally:
        slurm(workplace, "scancel", answer.strip())
    assert await_ledger_end(run, 2)["reason"] == "cancelled"


def test_a_signal_that_meets_a_task_still_starting_loses_nothing(
    workplace: Workplace, tmp_path: Path
) -> None:
    slow = "import os, time\nif os.environ.get('SLURM_RESTART_COUNT', '0') == '0':\n"
    slow += "    if 'SLURM_PROCID' in os.environ and 'SLURM_STEP_TASKS_PER_NODE' in os.environ:\n"
    slow += "        open(os.environ['MARK'], 'w').close()\n        time.sleep(60)\n"
    (tmp_path / "sitecustomize.py").write_text(slow)
    mark = tmp_path / "mark"
    run, job = submit(workplace, *setting(PYTHONPATH=str(tmp_path), MARK=str(mark)))
    eventually("a task that starts", mark.exists, PATIENCE_SECONDS)
    time.sleep(1)

    slurm(workplace, "scancel", "--signal=USR2", job)

    await_word(run, f"job {job} is requeued")
    assert await_end(workplace, job) == "COMPLETED"
    assert [line["reason"] for line in ledger_lines(run)] == ["preemption", "finished"]


def test_resume_goes_on_with_a_cancelled_run_and_refuses_a_running_one(
    workplace: Workplace,
) -> None:
    run, job = submit(workplace, *LONG)
    await_step(run, 1)
    again = workplace.launch("resume", run.label)
    assert (again.returncode, "is running already" in again.stderr) == (2, True)
    workplace.launch("cancel", run.label)
    await_end(workplace, job)
    await_status(workplace, run, "cancelled")

    other = workplace.launch("resume", run.label, "--set", "optimizer.lr=1.0")
    done = workplace.launch("resume", run.label, "--set", "cluster.time_limit=00:20:00")

    assert (other.returncode, "would be another run" in other.stderr) == (2, True)
    assert done.returncode == 0, done.stderr
    follower = done.stdout.split()[2].rstrip(":")
    await_step(run, 2)
    assert "TimeLimit=00:20:00" in slurm(workplace, "scontrol", "show", "job", follower)
    workplace.launch("cancel", run.label)
    first, second = (await_ledger_end(run, number) for number in (1, 2))
    assert second["first_step"] == first["last_step"] + 1
    assert (second["job_id"], second["afresh"]) == (follower, True)


def test_a_second_job_in_a_running_run_is_refused_and_disturbs_nothing(
    workplace: Workplace,
) -> None:
    run, job = submit(workplace, *LONG)
    await_step(run, 1)

    other = slurm(workplace, "sbatch", "--parsable", "--begin=now", str(run.script)).strip()

    assert await_end(workplace, other) in ("FAILED", "NODE_FAIL")
    assert f"job {job} holds this run" in run.launcher_log.read_text()
    assert [line["end"] for line in ledger_lines(run)] == [None]
    workplace.launch("cancel", run.label)
    assert await_ledger_end(run, 1)["reason"] == "cancelled"


def test_a_refusal_is_final_though_the_other_ranks_are_killed_while_they_start(
    workplace: Workplace, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    slow = "import os, time\n"
    slow += "if os.path.exists(os.environ.get('MARK', '')):\n"
    slow += "    time.sleep(60 * (os.environ.get('SLURM_PROCID', '0') != '0'))\n"
    (tmp_path / "sitecustomize.py").write_text(slow)
    run, job = submit(workplace, *LONG, *setting(PYTHONPATH=str(tmp_path), MARK=str(mark)))
    await_step(run, 1)
    mark.touch()

    other = slurm(workplace, "sbatch", "--parsable", "--begin=now", str(run.script)).strip()

    assert await_end(workplace, other) in ("FAILED", "NODE_FAIL")
    assert f"job {other} is not started again: job {job} holds" in run.launcher_log.read_text()
    assert [line["job_id"] for line in ledger_lines(run)] == [job]
    workplace.launch("cancel", run.label)
    assert await_ledger_end(run, 1)["reason"] == "cancelled"


@pytest.mark.parametrize("from_a_step", [False, True])
def test_the_submitting_shell_does_not_leak_into_the_job(
    workplace: Workplace, from_a_step: bool
) -> None:
    leaks = {"RANK": "3", "MASTER_ADDR": "elsewhere", "CUDA_VISIBLE_DEVICES": "7"}
    leaks |= {"SLURM_CPU_BIND": "quiet,mask_cpu:0x1", "SBATCH_EXPORT": "NONE"}
    inner = ["srun", "--ntasks=1"] if from_a_step else []
    command = ["salloc", "--quiet", "--nodes=1", "--ntasks=1", *inner]
    done = subprocess.run(
        [*command, *workplace._command(SMALL)],
        cwd=workplace.project,
        env={**workplace.environment, **leaks},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    job = re.findall(r"submitted job (\d+)", done.stdout)[0]
    assert await_end(workplace, job) == "COMPLETED"
    reports = worker_reports(workplace.runs[0])
    assert [report["WORLD_SIZE"] for report in reports] == ["2"] * 2
    assert all(len(report["CUDA_VISIBLE_DEVICES"].split(",")) == 1 for report in reports)


def test_a_job_that_gets_nothing_of_the_environment_runs_and_is_requeued(
    workplace: Workplace,
) -> None:
    run, first = submit(workplace, "--set", "cluster.sbatch.begin=now+1hour", *LONG)
    slurm(workplace, "scancel", first)
    options = ("--parsable", "--export=NONE", "--begin=now")
    job = slurm(workplace, "sbatch", *options, str(run.script)).strip()
    await_step(run, 1)

    slurm(workplace, "scancel", "--signal=USR2", job)

    assert await_ledger_end(run, 1)["reason"] == "preemption"
    await_step(run, 2)
    slurm(workplace, "scancel", job)
