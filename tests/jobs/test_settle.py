"""What follows from the end of an attempt, with Slurm's programs played by small scripts."""

from __future__ import annotations

import json
import os
import shutil
import signal

import pytest

from jobs import checkpoints, controller, digest, ending, failure, ledger, settle
from jobs.controller import Now
from jobs.ending import Ending, How
from jobs.failure import Failure
from jobs.rundir import RunDirectory
from tests.jobs.slurm_stand_in import ENVIRON, PLACE, Cluster
from tests.jobs.workplace import ledger_lines


def stop(run: RunDirectory, name: str = "SIGTERM") -> None:
    for rank in range(4):
        ending.record(run, 1, Ending(rank, "node1", "stopped", 75, name, 1000.0))


def save(run: RunDirectory, step: int, **more: object) -> None:
    run.checkpoints.mkdir(exist_ok=True)
    manifest = {"step": step, "sha256": "", "size": 0, "score": None} | more
    (run.checkpoints / f"step-{step:08d}.json").write_text(json.dumps(manifest))


def test_a_stopped_run_is_requeued_once(run: RunDirectory, cluster: Cluster) -> None:
    stop(run)

    assert settle.settle(run, 0, ENVIRON) == 75
    assert cluster.orders() == ["scontrol requeue 7"]
    [line] = ledger_lines(run)
    assert (line["reason"], line["exit_code"], line["workers"]) == ("preemption", 75, 4)


def test_a_full_disk_does_not_prevent_the_requeue(
    run: RunDirectory,
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    stop(run)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    run.launcher_log.mkdir()

    assert settle.settle(run, 0, ENVIRON) == 75
    assert "scontrol requeue 7" in cluster.calls.read_text()
    assert "warning: cannot write" in capfd.readouterr().err


def test_a_stop_has_one_exit_code_whatever_the_signal_did_to_srun(
    run: RunDirectory, cluster: Cluster
) -> None:
    stop(run)

    assert settle.settle(run, 128 + signal.SIGTERM, ENVIRON) == 75
    assert ledger_lines(run)[0]["exit_code"] == 75


def test_a_start_of_a_finished_run_ends_well_and_is_no_attempt(
    run: RunDirectory, cluster: Cluster
) -> None:
    run.results.write_text("{}")
    assert settle.settle(run, 0, ENVIRON) == 0
    before = ledger_lines(run)

    assert settle.settle(run, 0, ENVIRON | {"SLURM_RESTART_COUNT": "1"}) == 0
    assert (cluster.orders(), ledger_lines(run)) == ([], before)


@pytest.mark.parametrize("now", ["COMPLETING 1", "PENDING 1"])
def test_what_somebody_else_requeued_is_left_alone(
    run: RunDirectory, cluster: Cluster, now: str
) -> None:
    stop(run)
    cluster.answer("squeue", now)

    assert settle.settle(run, 0, ENVIRON) == 75
    assert cluster.orders() == []
    assert ledger_lines(run)[0]["reason"] == "requeued"


def test_a_cancelled_run_is_not_requeued(run: RunDirectory, cluster: Cluster) -> None:
    stop(run)
    run.cancelled("7").touch()

    assert settle.settle(run, 0, ENVIRON) == 75
    assert cluster.orders() == []


def test_where_slurm_refuses_a_requeue_another_job_follows(
    run: RunDirectory, cluster: Cluster
) -> None:
    stop(run)
    cluster.answer("scontrol", "Requested operation is presently disabled", code=1)

    settle.settle(run, 0, ENVIRON)

    last = f"sbatch --parsable --dependency=afterany:7 {run.script} {controller.FOLLOWING}"
    assert cluster.orders()[-1] == last
    assert "job 8 follows it" in run.launcher_log.read_text()


def test_a_requeue_that_slurm_was_slow_to_confirm_is_not_repeated(
    run: RunDirectory, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop(run)
    # Refused in words, but by then the job has a restart more.
    cluster.answer("scontrol", "Connection timed out", code=1)
    now = iter([Now("RUNNING", 0), Now("PENDING", 1)])
    monkeypatch.setattr(controller, "look_at", lambda _: next(now))

    settle.settle(run, 0, ENVIRON)

    assert cluster.orders() == ["scontrol requeue 7"]


def test_where_nothing_can_start_the_run_again_the_last_word_says_how(
    run: RunDirectory, cluster: Cluster
) -> None:
    stop(run)
    for program in ("scontrol", "sbatch"):
        (cluster.folder / program).unlink()

    settle.settle(run, 0, ENVIRON)

    assert f"to go on: python launch.py resume {run.path}" in run.launcher_log.read_text()


def test_preempted_where_slurm_does_not_start_it_again_the_last_word_names_resume(
    run: RunDirectory, cluster: Cluster
) -> None:
    stop(run)
    cluster.answer("squeue", "COMPLETING 0")
    words = (
        "job 7 start 0\n*** JOB 7 ON n1 CANCELLED AT 2026-01-01T00:00:00 DUE TO PREEMPTION ***\n"
    )
    (run.engine_files / "7_0_log.err").write_text(words)

    settle.settle(run, 0, ENVIRON)

    assert cluster.orders() == []
    assert "was preempted and Slurm does not start it again here" in run.launcher_log.read_text()


def test_a_crash_is_tried_again_and_a_wrong_request_is_not(
    run: RunDirectory, cluster: Cluster
) -> None:
    failure.claim(run, 1, Failure(2, "node2", 2, ["error: no such file"]))

    assert settle.settle(run, 2, ENVIRON) == 2
    assert cluster.orders() == []

    shutil.rmtree(run.attempt(1))
    run.attempts.unlink()
    ledger.open_attempt(run, PLACE)
    run.attempt(1).mkdir()
    failure.claim(run, 1, Failure(2, "node2", 1, ["RuntimeError: broken"]))

    assert settle.settle(run, 1, ENVIRON) == 1
    assert cluster.orders() == ["scontrol requeue 7"]


def test_a_finished_run_ends_well_and_lost_nothing(run: RunDirectory, cluster: Cluster) -> None:
    save(run, 40)
    run.results.write_text("{}")

    assert settle.settle(run, 0, ENVIRON) == 0
    [line] = ledger_lines(run)
    assert (line["reason"], line["saved_step"], line["gpu_seconds_lost"]) == ("finished", 40, 0)
    assert cluster.orders() == []


def test_a_signal_that_meets_a_finished_run_changes_nothing(
    run: RunDirectory, cluster: Cluster
) -> None:
    run.results.write_text("{}")

    assert settle.settle(run, 143, ENVIRON) == 0
    [line] = ledger_lines(run)
    assert (line["reason"], line["exit_code"]) == ("finished", 0)
    assert cluster.orders() == []


def test_what_was_lost_counts_from_the_attempts_own_newest_checkpoint(run: RunDirectory) -> None:
    row = ledger_lines(run)[0] | {"start": "2026-01-01T00:01:00Z"}
    for saved_at, lost_from in (
        ("2026-01-01T00:00:30Z", "2026-01-01T00:01:00Z"),
        ("2026-01-01T00:02:00Z", "2026-01-01T00:02:00Z"),
    ):
        run.attempts.write_text(json.dumps(row) + "\n")
        save(run, 10, saved_at=saved_at)

        [entry] = ledger.read(run)
        entry = ledger.close_attempt(run, entry, "crash", 1)

        assert entry.end
        seconds = ledger.seconds_of(entry.end) - ledger.seconds_of(lost_from)
        assert entry.gpu_seconds_lost == 4 * seconds


def test_ledger_lines_of_another_release_are_read(run: RunDirectory) -> None:
    old = {"attempt": 1, "job_id": "1", "restart_count": 0, "nodes": ["a"], "start": "x"}
    run.attempts.write_text(json.dumps(old | {"reason": "stopped", "of_tomorrow": 1}) + "\n")

    [entry] = ledger.read(run)
    assert (entry.reason, entry.workers, entry.saved_step) == ("stopped", None, None)


def test_the_newest_readable_manifest_counts(run: RunDirectory) -> None:
    assert checkpoints.newest(run) is None
    save(run, 10, seconds=1.5)
    save(run, 20)
    (run.checkpoints / "step-00000030.json").write_text("{")
    (run.checkpoints / "step-00000040.pt").touch()

    newest = checkpoints.newest(run)
    assert newest is not None
    assert (newest.step, newest.seconds) == (20, None)


def test_the_digest_names_the_first_rank_and_the_fate_of_the_others(run: RunDirectory) -> None:
    lines = ["Traceback (most recent call last):", '  File "x.py"', "ValueError: no", "after it"]
    failure.claim(run, 1, Failure(3, "node2", 1, lines))
    others: list[tuple[How, int]] = [("followed", -6), ("followed", -6), ("failed", 1)]
    for rank, (how, code) in enumerate(others):
        ending.record(run, 1, Ending(rank, "node1", how, code))

    text = digest.write(run, 1)

    assert text is not None
    assert text.splitlines()[:2] == [
        "rank 3 on node2 failed first: exit code 1",
        "  ValueError: no",
    ]
    assert "ranks 0-1: ended after the failure, tracebacks in their logs" in text
    assert "rank 2: failed too, exit code 1" in text
    assert str(run.rank_log(1, 3)) in text
    assert len(text.splitlines()) < 24
