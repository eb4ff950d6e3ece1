"""Why an attempt ended: every end that Slurm, the kernel and the code can bring is told apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from jobs import memory, told, verdict
from jobs.controller import Now, Start
from jobs.ending import Ending, How
from jobs.failure import Failure
from jobs.told import Told
from jobs.verdict import Evidence

RUNS = Now("RUNNING", 0)
ENDING = Now("COMPLETING", 0)
CRASH = Failure(1, "node1", 1, [])


def stopped(how: How = "stopped", signal: str = "SIGTERM", left: float | None = 500.0) -> Ending:
    return Ending(0, "node1", how, 75, signal, left)


UNREADY = replace(stopped(), exit_code=-15)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (Evidence(0, has_results=True), "finished"),
        (Evidence(1, is_marked=True, first=CRASH), "cancelled"),
        (Evidence(2, first=replace(CRASH, exit_code=2)), "configuration error"),
        (Evidence(1, first=CRASH, now=RUNS), "crash"),
        (Evidence(137, first=replace(CRASH, out_of_memory=True), now=RUNS), "out of memory"),
        (Evidence(137, told="out of memory", now=RUNS), "out of memory"),
        (Evidence(1, first=CRASH, told="node failure", now=ENDING), "node failure"),
        (Evidence(76, endings=[Ending(2, "node2", "unfit", 76)], now=RUNS), "unfit node"),
        (Evidence(0, endings=[stopped()], told="time limit", now=ENDING), "time limit"),
        (Evidence(0, endings=[stopped()], now=RUNS), "preemption"),
        (Evidence(0, endings=[stopped(signal="SIGUSR2")], now=RUNS), "preemption"),
        (Evidence(0, endings=[stopped(signal="SIGUSR2", left=60)], now=RUNS), "time limit"),
        (Evidence(0, endings=[stopped("overdue", "SIGUSR2", 9)], now=RUNS), "time limit"),
        (
            Evidence(0, endings=[replace(stopped(left=900), asked_by_clock=True)], now=RUNS),
            "time limit",
        ),
        (Evidence(2, now=RUNS), "configuration error"),
        (Evidence(2, first=CRASH, now=RUNS), "crash"),
        (Evidence(143, is_refused=True, now=RUNS), "configuration error"),
        (Evidence(0, endings=[stopped()], now=Now("COMPLETING", 1)), "requeued"),
        (Evidence(0, endings=[stopped()], now=ENDING), "cancelled"),
        (Evidence(0, endings=[stopped()], now=None), "preemption"),
        (Evidence(140, now=RUNS), "preemption"),
        (Evidence(143, now=RUNS), "preemption"),
        (
            Evidence(1, first=CRASH, endings=[replace(stopped(), exit_code=-15)], now=RUNS),
            "preemption",
        ),
        (Evidence(137, endings=[stopped()], now=RUNS), "crash"),
        (Evidence(1, now=RUNS), "crash"),
        (Evidence(0, endings=[Ending(0, "node1", "done", 0)], now=RUNS), "crash"),
        (Evidence(0, now=RUNS), "lost"),
    ],
)
def test_each_end_has_its_reason(evidence: Evidence, expected: str) -> None:
    assert verdict.judge(evidence) == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("", None),
        ("slurmstepd-n1: error: *** STEP 7.0 ON n1 CANCELLED AT 2026-01-01T00:00:00 ***\n", None),
        ("error: *** JOB 7 ON n1 CANCELLED AT 2026-01-01T00:00:00 ***\n", "cancelled"),
        ("*** JOB 7 ON n1 CANCELLED AT 2026-01-01T00:00:00 DUE TO TIME LIMIT ***\n", "time limit"),
        ("*** JOB 7 ON n1 CANCELLED AT 2026-01-01T00:00:00 DUE TO PREEMPTION ***\n", "preemption"),
        ("*** JOB 7 ON n1 CANCELLED AT 2026-01-01T00:00:00 DUE TO JOB REQUEUE ***\n", "requeued"),
        ("srun: error: Node failure on n2\n", "node failure"),
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=7.0.\n", "out of memory"),
        ("slurmstepd: error: Detected 1 oom-kill event(s) in step 7.0\n", "out of memory"),
    ],
)
def test_slurms_words_in_the_jobs_log_are_understood(lines: str, expected: Told | None) -> None:
    assert told.interpret(lines) == expected


@pytest.mark.parametrize(
    ("starts", "words", "expected"),
    [
        ([], None, "lost"),
        ([], "requeued", "requeued"),
        ([Start(100, "NODE_FAIL"), Start(300, "RUNNING")], None, "node failure"),
        ([Start(100, "PREEMPTED"), Start(300, "RUNNING")], "requeued", "preemption"),
        ([Start(100, "RUNNING")], None, "lost"),
    ],
)
def test_accounting_tells_of_a_start_whose_node_died(
    starts: list[Start], words: Told | None, expected: str
) -> None:
    assert verdict.judge_from_afar(words, starts, began=105.0) == expected


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("0::/slurm/job_1/step_0/task_0\n", "slurm/job_1/memory.events"),
        ("5:cpu:/x\n4:memory:/slurm/job_1/task_0\n", "memory/slurm/job_1/memory.oom_control"),
    ],
)
def test_a_kill_for_lack_of_memory_is_seen_in_both_kinds_of_cgroups(
    tmp_path: Path, line: str, file: str
) -> None:
    own = tmp_path / "cgroup"
    own.write_text(line)
    counter = tmp_path / "mount" / file
    counter.parent.mkdir(parents=True)
    counter.write_text("low 0\noom 5\noom_kill 3\n")

    assert memory.count_kills(own, tmp_path / "mount") == 3
    assert memory.count_kills(tmp_path / "none", tmp_path) == 0
