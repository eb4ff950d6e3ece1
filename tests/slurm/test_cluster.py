"""The whole protocol between launcher, Slurm and tasks, on a real cluster, with a stub worker."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.jobs.workplace import Workplace, ledger_lines, worker_reports
from tests.slurm.cluster import (
    LONG,
    SMALL,
    WIDE,
    await_end,
    await_ledger_end,
    await_status,
    await_step,
    slurm,
    submit,
)

pytestmark = pytest.mark.slurm


def test_a_job_on_two_nodes_completes_with_each_rank_in_its_place(workplace: Workplace) -> None:
    run, job = submit(workplace, *WIDE)

    assert await_end(workplace, job) == "COMPLETED"
    reports = worker_reports(run)
    assert [(report["RANK"], report["LOCAL_RANK"]) for report in reports] == [
        ("0", "0"),
        ("1", "1"),
        ("2", "0"),
        ("3", "1"),
    ]
    [shared] = {
        (report["WORLD_SIZE"], report["LOCAL_WORLD_SIZE"], report["MASTER_ADDR"], report["code"])
        for report in reports
    }
    assert shared == ("4", "2", "127.0.0.1", str(run.code.resolve() / "train" / "__main__.py"))
    assert all(len(report["CUDA_VISIBLE_DEVICES"].split(",")) == 2 for report in reports)
    [line] = ledger_lines(run)
    assert (line["job_id"], line["reason"], len(line["nodes"])) == (job, "finished", 2)
    await_status(workplace, run, "finished")


def test_the_script_in_the_run_directory_is_the_one_submitted_and_resubmits(
    workplace: Workplace,
) -> None:
    run, job = submit(workplace, "--set", "cluster.env.STUB_STEPS='60'")
    await_step(run, 1)
    assert workplace.launch("cancel").returncode == 0
    await_end(workplace, job)
    stored = slurm(workplace, "scontrol", "write", "batch_script", job, "-")
    assert stored.rstrip("\0\n") == run.script.read_text().rstrip("\n")

    # Another shell: nothing of this tool in its environment, and remains of a training session.
    bare = {"PATH": workplace.environment["PATH"], "RANK": "9", "MASTER_ADDR": "elsewhere"}
    bare["SLURM_CONF"] = workplace.environment["SLURM_CONF"]
    answer = subprocess.run(
        ["sbatch", "--parsable", str(run.script)],
        cwd="/",
        env=bare,
        capture_output=True,
        text=True,
        check=True,
    )

    assert await_end(workplace, answer.stdout.strip()) == "COMPLETED"
    assert [line["job_id"] for line in ledger_lines(run)] == [job, answer.stdout.strip()]
    assert [report["RANK"] for report in worker_reports(run, attempt=2)] == ["0", "1"]

    idle = subprocess.run(
        ["sbatch", "--parsable", str(run.script)], env=bare, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert await_end(workplace, idle.stdout.strip()) == "COMPLETED"
    assert "the run has finished already" in run.launcher_log.read_text()
    assert [line["reason"] for line in ledger_lines(run)] == ["cancelled", "finished"]


def test_a_dry_run_prints_to_the_byte_what_is_submitted_and_kept(workplace: Workplace) -> None:
    dry = workplace.launch(*SMALL, "--dry-run")
    run, job = submit(workplace)
    await_end(workplace, job)

    stamp = Path(dry.stdout.partition("#SBATCH --chdir=")[2].splitlines()[0]).parent.name
    assert dry.stdout.replace(stamp, run.path.name) == (
        f"# job.sbatch\n{run.script.read_text()}# config.yaml\n{run.config.read_text()}"
    )
    assert workplace.runs == [run]


def test_a_dry_run_of_a_sweep_prints_to_the_byte_what_is_submitted(workplace: Workplace) -> None:
    sweep = (*SMALL, "--sweep", "run.seed=1,2", "--set", "cluster.sbatch.begin=now+1hour")
    dry = workplace.launch(*sweep, "--dry-run")
    assert workplace.launch(*sweep).returncode == 0

    first, second = workplace.runs
    stamp = Path(dry.stdout.partition("#SBATCH --chdir=")[2].splitlines()[0]).parent.name
    assert first.sweep
    assert dry.stdout.replace(stamp, first.sweep.name) == (
        f"# job.sbatch\n{(first.sweep / 'job.sbatch').read_text()}"
        f"# 2 runs\n#   {first.path.name}\n#   {second.path.name}\n"
        f"# config.yaml of {first.path.name}\n{first.config.read_text()}"
    )


def test_a_submission_from_inside_salloc_is_the_same_job(workplace: Workplace) -> None:
    command = [sys.executable, "launch.py", *SMALL]
    leaks = {"RANK": "3", "CUDA_VISIBLE_DEVICES": "7", "SLURM_CPU_BIND": "quiet,mask_cpu:0x1"}
    leaks |= {"SBATCH_PARTITION": "nonsense", "SLURM_MEM_PER_CPU": "1"}
    done = subprocess.run(
        ["salloc", "--quiet", "--nodes=1", "--ntasks=1", *command],
        cwd=workplace.project,
        env={**workplace.environment, **leaks},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    job = done.stdout.split()[2].rstrip(":")
    assert await_end(workplace, job) == "COMPLETED"
    [run] = workplace.runs
    assert [report["WORLD_SIZE"] for report in worker_reports(run)] == ["2"] * 2


@pytest.mark.parametrize(
    "setting",
    [
        "partition=nonsense",
        "gpus_per_node=8",
        "cpus_per_gpu=16",
        "nodes=4",
        "constraint=h100",
        "mem_gb=9000",
        "sbatch.reservation=none-such",
    ],
)
def test_what_slurm_refuses_is_told_by_key_and_leaves_nothing(
    workplace: Workplace, setting: str
) -> None:
    (workplace.project / "configs" / "refused.yaml").write_text(
        "_base_: stub.yaml\ncluster:\n  engine: slurm\n  gpus_per_node: 2\n"
    )
    key, _, value = setting.partition("=")

    done = workplace.launch("--config", "refused.yaml", "--set", f"cluster.{setting}")

    assert (done.returncode, done.stdout) == (2, "")
    assert f"error: --set cluster.{key}: Slurm refuses {value}:\n" in done.stderr
    assert list(workplace.logs.iterdir()) == []


def test_a_refused_key_is_shown_with_its_file_and_line(workplace: Workplace) -> None:
    (workplace.project / "configs" / "refused.yaml").write_text(
        "_base_: stub.yaml\ncluster:\n  engine: slurm\n  gpus_per_node: 64\n"
    )

    done = workplace.launch("--config", "refused.yaml", "--set", "train.batch_size=128")

    assert done.returncode == 2
    assert "error: configs/refused.yaml:4: cluster.gpus_per_node: Slurm refuses 64" in done.stderr
    assert "Requested node configuration is not available" in done.stderr


def test_a_crash_ends_the_job_at_once_and_names_the_rank(workplace: Workplace) -> None:
    once = ("--set", "cluster.max_crashes=1")
    run, job = submit(workplace, *LONG, *once, "--set", "cluster.env.STUB=crash:1")

    assert await_end(workplace, job) == "FAILED"
    line = await_ledger_end(run, 1)
    assert (line["reason"], line["exit_code"]) == ("crash", 1)
    logs = workplace.launch("logs", run.label)
    assert "rank 1 on" in logs.stderr
    assert "RuntimeError: broken on purpose" in logs.stderr
    assert "RuntimeError: broken on purpose" in run.launcher_log.read_text()
    assert "rank 1 on" in workplace.launch("status", run.label).stdout


def test_a_refusal_by_the_worker_is_not_tried_again(workplace: Workplace) -> None:
    run, job = submit(workplace, "--set", "cluster.env.STUB=refuse")

    assert await_end(workplace, job) == "FAILED"
    line = await_ledger_end(run, 1)
    assert (line["reason"], line["exit_code"]) == ("configuration error", 2)
    assert len(ledger_lines(run)) == 1


def test_a_waiting_run_says_why_and_can_be_cancelled(workplace: Workplace) -> None:
    run, job = submit(workplace, "--set", "cluster.sbatch.begin=now+1hour")

    status = workplace.launch("status").stdout
    assert "queued" in status
    assert f"job {job}: held back until its start time" in status
    assert ", starts about " in status
    assert workplace.launch("cancel").returncode == 0
    assert await_end(workplace, job).startswith("CANCELLED")
    await_status(workplace, run, "cancelled")


def test_states_are_right_without_accounting(workplace: Workplace, tmp_path: Path) -> None:
    (tmp_path / "sacct").write_text("#!/bin/sh\necho 'accounting is disabled' >&2\nexit 1\n")
    (tmp_path / "sacct").chmod(0o755)
    bare = {"PATH": f"{tmp_path}:{workplace.environment['PATH']}"}
    waiting, _ = submit(workplace, "--set", "cluster.sbatch.begin=now+1hour")
    done, job = submit(workplace)
    await_end(workplace, job)
    once = ("--set", "cluster.max_crashes=1")
    failed, job = submit(workplace, *once, "--set", "cluster.env.STUB=crash:0")
    await_end(workplace, job)
    await_status(workplace, failed, "failed")

    workplace.launch("cancel", waiting.label)

    rows = [row.split()[:2] for row in workplace.launch("status", **bare).stdout.splitlines()[1:]]
    assert rows == [
        [waiting.label, "cancelled"],
        [done.label, "finished"],
        [failed.label, "failed"],
    ]


def test_auto_takes_slurm_when_its_controller_answers(workplace: Workplace) -> None:
    done = workplace.launch(*SMALL, "--engine", "auto", "--dry-run")

    assert "engine: slurm (Slurm's controller answers)" in done.stderr


def test_a_job_is_unknown_and_not_lost_while_slurm_does_not_answer(workplace: Workplace) -> None:
    run, _ = submit(workplace, *LONG)
    await_step(run, attempt=1)
    # Nobody listens on port 1.
    conf = workplace.project / "slurm.conf"
    conf.write_text("ClusterName=gone\nSlurmctldHost=localhost\nSlurmctldPort=1\n")
    answer = workplace.launch("status", run.label, SLURM_CONF=str(conf))

    assert answer.returncode == 0
    assert answer.stdout.splitlines()[1].split()[1] == "unknown"
    assert answer.stderr.startswith("Slurm does not answer: ")


def test_a_finished_run_is_made_longer_as_a_new_job(workplace: Workplace) -> None:
    saves = ("--set", "cluster.env.STUB_SAVE_EVERY='1'")
    run, job = submit(workplace, *saves)
    assert await_end(workplace, job) == "COMPLETED"

    more = ("--set", "schedule.epochs=40", "--set", "cluster.env.STUB_STEPS='5'")
    done = workplace.launch("resume", run.label, *more)

    assert done.returncode == 0, done.stderr
    assert await_end(workplace, done.stdout.split()[2].rstrip(":")) == "COMPLETED"
    await_status(workplace, run, "finished")
    assert [line["first_step"] for line in ledger_lines(run)] == [1, 4]
    assert (run.path / "results-step-3.json").exists()
