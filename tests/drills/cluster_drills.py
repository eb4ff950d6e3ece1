"""Disturb runs of the real worker on the real cluster; each ends as if nothing had happened.

    python -m pytest tests/drills/cluster_drills.py
    TEST_SLURM_RELEASE=trixie python -m pytest tests/drills/cluster_drills.py

Not among the tests that a plain `pytest` collects: it takes half an hour and kills daemons, of a
cluster of its own. `make drill` runs it on both releases of Slurm.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs import rundir
from tests.drills import harm
from tests.drills.disturbed import Drill, make_place, slurm, submitted_job
from tests.jobs.workplace import eventually, ledger_lines, saved_steps
from tests.slurm.cluster import path_without

Begin = Callable[..., Drill]
# Logged at the start of an epoch, so that a stop comes in its middle and in that of a log interval.
AT = 21
KILL_WAIT_SECONDS = 30


def reasons(drill: Drill) -> list[str]:
    return [line["reason"] for line in ledger_lines(drill.run)]


def preempt(drill: Drill, attempt: int) -> None:
    """Let an urgent job take the nodes of a run for a moment."""
    nodes = ",".join(ledger_lines(drill.run)[attempt - 1]["nodes"])
    urgent = ("sbatch", "--parsable", "--partition=gpu", "--exclusive", "--output=/dev/null")
    options = (f"--nodelist={nodes}", "--nodes=2", "--time=2", "--wrap=sleep 3")
    other = drill.slurm(*urgent, *options).strip()
    try:
        drill.await_attempt(attempt + 1)
    finally:
        drill.slurm("scancel", other)


def test_a_killed_rank(drill: Begin, calm: Drill) -> None:
    run = drill("a rank's worker killed")
    run.await_step(1, AT)

    run.disturb(lambda: harm.kill_worker(run.job, rank=3))

    run.await_end()
    assert reasons(run) == ["crash", "finished"]
    run.must_equal(calm)


def test_a_requeue_from_outside(drill: Begin, calm: Drill) -> None:
    run = drill("`scontrol requeue` from outside")
    run.await_step(1, AT)

    run.disturb(lambda: run.slurm("scontrol", "requeue", run.job))

    run.await_end()
    assert reasons(run) == ["requeued", "finished"]
    run.must_equal(calm)


def test_a_preemption(drill: Begin, calm: Drill) -> None:
    run = drill("preempted by a higher-priority job", "cluster.partition=low")
    run.await_step(1, AT)

    run.disturb(lambda: preempt(run, attempt=1))

    run.await_end()
    assert reasons(run) == ["preemption", "finished"]
    run.must_equal(calm)


def test_a_suspension_beyond_the_time_limit(drill: Begin, calm: Drill) -> None:
    """Slurm moves the limit of a job that it goes on with; its tasks have to learn of that.

    For less than the 120 s after which workers that wait for each other give up.
    """
    run = drill("suspended until after its time limit", "cluster.time_limit=00:02:00")
    run.await_step(1, AT)
    ends_at = rundir.seconds_of(run.await_attempt(1)["start"]) + 120

    def suspend() -> None:
        run.slurm("scontrol", "suspend", run.job)
        time.sleep(ends_at + 5 - time.time())
        run.slurm("scontrol", "resume", run.job)

    run.disturb(suspend)

    run.await_end()
    # A slow machine may need more than two minutes; then it stops in time for that.
    assert set(reasons(run)[:-1]) <= {"time limit"}
    assert reasons(run)[-1] == "finished"
    assert "did not save in time" not in run.run.launcher_log.read_text()
    run.must_equal(calm)


@pytest.mark.parametrize("which", ["second", "first"])
def test_a_dead_node(drill: Begin, calm: Drill, which: str) -> None:
    run = drill(f"the {which} node's slurmd and processes killed")
    run.await_step(1, AT)
    first, second = run.await_attempt(1)["nodes"]
    node = first if which == "first" else second  # the batch script runs on the first

    try:
        run.disturb(lambda: harm.kill_node(node, run.job))
        run.await_end()
    finally:
        harm.repair()

    assert reasons(run) == ["node failure", "finished"]
    run.must_equal(calm)


def test_a_restarted_controller(drill: Begin, calm: Drill) -> None:
    run = drill("slurmctld killed and started again")
    run.await_step(1, AT)

    try:
        run.disturb(lambda: harm.kill_daemon("slurmctld"))
        run.await_step(1, AT + 6)
    finally:
        harm.repair()

    run.await_end()
    assert reasons(run) == ["finished"]
    run.must_equal(calm)


def test_no_accounting_throughout(drill: Begin, calm: Drill) -> None:
    harm.kill_daemon("slurmdbd")
    try:
        run = drill("slurmdbd down throughout, and a stop")
        run.await_step(1, AT)
        run.disturb(lambda: run.slurm("scancel", "--signal=USR2", run.job))
        run.await_end()
    finally:
        harm.repair()

    assert reasons(run) == ["preemption", "finished"]
    run.must_equal(calm)


def test_no_scontrol_on_the_nodes(drill: Begin, calm: Drill, tmp_path: Path) -> None:
    path = path_without(tmp_path / "bin", "scontrol")
    run = drill("no scontrol on the nodes, and a stop", f"cluster.setup=['export PATH={path}']")
    run.await_step(1, AT)

    run.disturb(lambda: run.slurm("scancel", "--signal=USR2", run.job))

    lines = run.await_end()
    [follower] = re.findall(r"job (\d+) follows it", run.run.launcher_log.read_text())
    assert [line["job_id"] for line in lines] == [run.job, follower]
    assert reasons(run) == ["preemption", "finished"]
    run.must_equal(calm)


def test_a_killed_rank_and_then_a_preemption(drill: Begin, calm: Drill) -> None:
    run = drill("a rank's worker killed, then preempted", "cluster.partition=low")
    run.await_step(1, AT)
    run.disturb(lambda: harm.kill_worker(run.job, rank=1))
    run.await_step(2, AT + 12)

    run.disturb(lambda: preempt(run, attempt=2))

    run.await_end()
    assert reasons(run) == ["crash", "preemption", "finished"]
    run.must_equal(calm)


def test_cancel_in_the_middle_and_resume(drill: Begin, calm: Drill) -> None:
    run = drill("`launch.py cancel`, then `resume`")
    run.await_step(1, AT)

    run.disturb(lambda: run.workplace.launch("cancel", run.run.label))

    first = run.await_attempt(1, ended=True)
    assert time.time() - run.moments[0] < KILL_WAIT_SECONDS
    assert (first["reason"], first["exit_code"]) == ("cancelled", 75)
    # The last line was written before the stop, at a step that the interval divides.
    stopped_at = saved_steps(run.run)[-1]
    assert stopped_at == first["saved_step"] >= first["last_step"] > stopped_at - 3
    state = ("squeue", "--noheader", "--states=all", f"--jobs={run.job}", "--format=%T")
    eventually("the job's end", lambda: run.slurm(*state).strip() == "CANCELLED", 60)

    done = run.workplace.launch("resume", run.run.label)

    assert done.returncode == 0, done.stderr
    assert submitted_job(done.stdout) != run.job
    lines = run.await_end()
    assert reasons(run) == ["cancelled", "finished"]
    # What lies between is in the interval that the checkpoint carries.
    assert lines[1]["first_step"] in range(stopped_at + 1, stopped_at + 4)
    run.must_equal(calm)


def test_a_rank_that_raises_every_time(
    drill: Begin,
    tmp_path: Path,
    digits_root: Path,
    cluster_environment: dict[str, str],
) -> None:
    place = make_place(tmp_path, digits_root, cluster_environment)
    loop = place.project / "train" / "loop.py"
    line = "    state.interval.steps += 1\n"
    assert loop.read_text().count(line) == 1
    broken = "    if state.step == 10 and session.ranks.rank == 3:\n"
    broken += '        raise RuntimeError("broken on purpose")\n'
    loop.write_text(loop.read_text().replace(line, broken + line))
    run = drill("a rank raises at step 10, each time", "cluster.max_crashes=2", workplace=place)

    last_word = "is not started again: 2 crashes (cluster.max_crashes is 2)"
    eventually(last_word, lambda: last_word in run.run.launcher_log.read_text(), 300)

    assert reasons(run) == ["crash", "crash"]
    digest = run.run.launcher_log.read_text().rpartition("ended: crash")[2]
    node = ledger_lines(run.run)[1]["nodes"][1]
    assert f"rank 3 on {node} failed first: exit code 1\n" in digest
    assert "  RuntimeError: broken on purpose\n" in digest
    squeue = ("squeue", "--noheader", f"--jobs={run.job}", "--states=PENDING,RUNNING")
    eventually("the job's end", lambda: not slurm(place, *squeue).strip(), 60)
    run.verdict = "ended with the digest"


def test_the_time_limit_reached_twice(drill: Begin, long_calm: Drill) -> None:
    run = drill("the time limit, twice or more", "cluster.time_limit=00:02:00", recipe="long")

    run.await_end(1500)

    *before, last = reasons(run)
    assert (len(before) >= 2, set(before), last) == (True, {"time limit"}, "finished")
    assert run.run.launcher_log.read_text().count("is requeued") == len(reasons(run)) - 1
    run.must_equal(long_calm)
