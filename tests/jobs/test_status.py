"""`status` from the run directory alone: every end of a run is told apart, whatever is missing."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from configs import Recipe, dump_recipe
from jobs import attachment, failure, ledger, rundir, status
from jobs.failure import Failure
from jobs.place import Place
from jobs.rundir import RunDirectory
from jobs.status import Slurm, Status
from tests.jobs.slurm_stand_in import PLACE as NODE1
from tests.jobs.slurm_stand_in import Cluster

PLACE = Place(0, 0, 1, 1, None, 0, "here", ("here",), "local-1-abcd")


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(tmp_path / "name" / "20260101-000000-abcd")
    run.engine_files.mkdir(parents=True)
    run.config.touch()
    return run


def state(run: RunDirectory) -> str:
    return status.collect([run])[0].state


def test_a_run_that_this_process_carries_is_running(run: RunDirectory) -> None:
    attachment.attach(run, "key")
    assert state(run) == "running"


def test_a_process_that_got_the_number_of_an_old_one_is_another(run: RunDirectory) -> None:
    attachment.attach(run, "key")
    record = run.engine_files / "launcher.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"started": "1"}))
    ledger.open_attempt(run, PLACE)

    assert state(run) == "lost"


@pytest.mark.parametrize(
    ("reason", "expected"),
    [("stopped", "stopped"), ("cancelled", "cancelled"), ("lost", "lost")],
)
def test_the_ledger_tells_how_a_run_ended(
    run: RunDirectory, reason: ledger.Reason, expected: status.State
) -> None:
    entry = ledger.open_attempt(run, PLACE)
    ledger.close_attempt(run, entry, reason, 75)

    assert state(run) == expected


def test_a_failure_is_told_with_rank_and_node(run: RunDirectory) -> None:
    ledger.open_attempt(run, PLACE)
    run.attempt(1).mkdir()
    failure.claim(run, 1, Failure(2, "node7", -9, []))

    [told] = status.collect([run])
    assert (told.state, told.note) == (
        "failed",
        "rank 2 on node7: killed by SIGKILL; to go on: launch.py resume",
    )


def test_results_are_the_last_word(run: RunDirectory) -> None:
    ledger.open_attempt(run, PLACE)
    run.results.write_text('{"accuracy_top-1": 90.0}')

    assert state(run) == "finished"


def test_progress_counts_complete_lines_only(run: RunDirectory) -> None:
    run.metrics.write_text(
        '{"mode": "train", "epoch": 1, "step": 10, "steps": 40, "loss": 0.5}\n'
        '{"mode": "val", "epoch": 1, "step": 20, "accuracy_top-1": 80.0}\n'
        '{"mode": "val", "epoch": 2, "step": 40, "accuracy_top-1": 70.0}\n'
        '{"mode": "train", "epoch": 3, "st'
    )

    progress = status.collect([run])[0].progress
    assert (progress.epoch, progress.step, progress.steps) == (2, 40, 40)
    assert (progress.best_score, progress.last_score) == (80.0, 70.0)


def test_a_damaged_run_does_not_hide_the_others(run: RunDirectory, tmp_path: Path) -> None:
    other = RunDirectory(tmp_path / "name" / "20260102-000000-abcd")
    other.path.mkdir()
    other.attempts.write_text("not JSON\n")
    run.results.write_text('{"accuracy_top-1": 90.0}')

    assert [told.state for told in status.collect([run, other])] == ["finished", "unknown"]


def test_of_a_finished_run_only_its_results_are_read(run: RunDirectory) -> None:
    scores = {"accuracy_top-1": 90.0}
    results = scores | {"best": {"accuracy_top-1": 95.0}, "epochs": 3, "steps": 60, "attempts": 2}
    run.results.write_text(json.dumps(results))
    run.attempts.mkdir()  # reading it would fail
    run.metrics.mkdir()

    [told] = status.collect([run])
    progress = told.progress
    assert (told.state, told.attempt, told.note) == ("finished", 2, "")
    assert (progress.epoch, progress.step, progress.steps) == (3, 60, 60)
    assert (progress.best_score, progress.last_score) == (95.0, 90.0)


def with_job(run: RunDirectory) -> RunDirectory:
    """The run as it lies there when a job is submitted."""
    run.code.mkdir()
    run.script.touch()
    run.config.write_text(dump_recipe(Recipe()))
    return run


def ask(run: RunDirectory, cluster: Cluster, line: str) -> Status:
    """The status of a run whose job squeue describes so, but for the folder."""
    cluster.answer("squeue", f"{line}|{run.code}")
    [told] = status.collect([run])
    return told


def test_a_waiting_job_says_why_and_when_it_may_start(run: RunDirectory, cluster: Cluster) -> None:
    told = ask(with_job(run), cluster, "7|PENDING|N/A|4102444800|Priority")

    assert told.state == "queued"
    assert told.note.startswith("job 7: waits behind jobs of higher priority, starts about 1 Jan ")


def test_a_start_that_slurm_does_not_know_is_not_told(run: RunDirectory, cluster: Cluster) -> None:
    told = ask(with_job(run), cluster, "7|PENDING|N/A|N/A|Priority")

    assert told.note == "job 7: waits behind jobs of higher priority"


def test_a_running_job_has_the_end_that_slurm_says(run: RunDirectory, cluster: Cluster) -> None:
    ledger.open_attempt(with_job(run), NODE1)
    told = ask(run, cluster, "7|RUNNING|4102444800|1|None")

    assert (told.state, told.attempt, told.note) == ("running", 1, "job 7")
    assert told.ends_at == 4102444800


def test_where_slurm_does_not_say_the_end_is_the_recipes(
    run: RunDirectory, cluster: Cluster
) -> None:
    opened = ledger.open_attempt(with_job(run), NODE1)
    told = ask(run, cluster, "7|RUNNING|N/A|1|None")

    assert told.ends_at == rundir.seconds_of(opened.start) + 4 * 3600


def test_a_run_that_will_not_end_within_the_limit_says_so(
    run: RunDirectory, cluster: Cluster
) -> None:
    ledger.open_attempt(with_job(run), NODE1)
    row = {"mode": "train", "epoch": 1, "iter": 10, "step": 10, "steps": 1000, "attempt": 1}
    run.metrics.write_text(json.dumps(row | {"time": 60.0}) + "\n")
    in_an_hour = round(time.time()) + 3600
    told = ask(run, cluster, f"7|RUNNING|{in_an_hour}|1|None")

    assert told.finishes_at == pytest.approx(time.time() + 990 * 60, abs=60)
    assert told.note == "job 7, will need another attempt"


def test_the_speed_of_an_earlier_attempt_tells_nothing(run: RunDirectory, cluster: Cluster) -> None:
    first = ledger.open_attempt(with_job(run), NODE1)
    ledger.close_attempt(run, first, "preemption", 75)
    ledger.open_attempt(run, NODE1)
    row = {"mode": "train", "epoch": 1, "iter": 10, "step": 10, "steps": 1000, "attempt": 1}
    run.metrics.write_text(json.dumps(row | {"time": 60.0}) + "\n")

    assert ask(run, cluster, "7|RUNNING|N/A|1|None").finishes_at is None


def test_where_squeue_is_no_help_scontrol_is_asked(run: RunDirectory, cluster: Cluster) -> None:
    cluster.answer("squeue", "no such option", code=1)
    record = f"JobId=7 JobState=PENDING Reason=Priority WorkDir={with_job(run).code} StdErr=/x"
    cluster.answer("scontrol", record)

    [told] = status.collect([run])
    assert (told.state, told.note) == ("queued", "job 7: waits behind jobs of higher priority")


def make_sweep(root: Path, count: int) -> list[RunDirectory]:
    """The elements of a sweep whose array was submitted."""
    sweep = root / "name" / "20260102-000000-abcd"
    names = [f"{index:02d}-seed={index}" for index in range(count)]
    (sweep / "code").mkdir(parents=True)
    elements = [{"folder": name, "changes": {"run.seed": i}} for i, name in enumerate(names)]
    (sweep / "sweep.json").write_text(json.dumps({"axes": {}, "elements": elements}))
    runs = [RunDirectory(sweep / name) for name in names]
    for run in runs:
        run.engine_files.mkdir(parents=True)
        with_job(run)
    return runs


def test_elements_of_an_array_are_told_apart(tmp_path: Path, cluster: Cluster) -> None:
    runs = make_sweep(tmp_path, 4)
    folder = runs[0].path.parent / "code"
    # The last one was resumed alone.
    lines = [
        f"7_0|RUNNING|N/A|1|None|{folder}",
        f"7_2|PENDING|N/A|N/A|JobArrayTaskLimit|{folder}",
        f"8|PENDING|N/A|N/A|Priority|{runs[3].code}",
        f"9_17|RUNNING|N/A|1|None|{folder}",
    ]
    cluster.answer("squeue", "\n".join(lines))

    live = status.live_jobs(runs)
    assert {run.path.name: [job.job_id for job in jobs] for run, jobs in live.items()} == {
        "00-seed=0": ["7_0"],
        "02-seed=2": ["7_2"],
        "03-seed=3": ["8"],
    }


def test_slurm_is_asked_once_for_any_number_of_runs(tmp_path: Path, cluster: Cluster) -> None:
    cluster.answer("squeue", "")
    cluster.answer("sacct", "7|CANCELLED by 1000")
    runs = make_sweep(tmp_path, 12)
    for index, run in enumerate(runs):
        (run.engine_files / f"7_{index}_submitted.pkl").touch()

    status.collect(runs)

    calls = [line.split()[0] for line in cluster.calls.read_text().splitlines()]
    assert calls == ["squeue", "sacct"]


def test_who_looks_again_and_again_does_not_ask_again_and_again(
    run: RunDirectory, cluster: Cluster
) -> None:
    cluster.answer("squeue", "")
    cluster.answer("sacct", "")
    (with_job(run).engine_files / "7_submitted.pkl").touch()
    slurm = Slurm(patience=3600)
    for _ in range(5):
        status.collect([run], slurm)

    calls = [line.split()[0] for line in cluster.calls.read_text().splitlines()]
    assert calls == ["squeue", "sacct"]


def test_a_run_that_is_removed_meanwhile_hides_nothing(run: RunDirectory, cluster: Cluster) -> None:
    gone = RunDirectory(run.path.with_name("20260103-000000-abcd"))
    cluster.answer("squeue", f"7|RUNNING|N/A|1|None|{with_job(run).code}")

    assert [told.state for told in status.collect([run, gone])] == ["running", "unknown"]
