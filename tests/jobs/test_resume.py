"""What `resume` accepts and refuses, and that nothing of a run changes where it refuses."""

from __future__ import annotations

import json
import shutil

import pytest

from configs import read_resolved
from jobs.controller import clean_environment
from jobs.rundir import RunDirectory
from tests.jobs.workplace import (
    Workplace,
    eventually,
    ledger_lines,
    make_workplace,
    saved_steps,
)

EACH_STEP_SAVED = {"STUB_SAVE_EVERY": "1"}


def content(run: RunDirectory) -> dict[str, bytes]:
    """Everything in the run directory but the code."""
    return {
        str(path): path.read_bytes()
        for path in run.path.rglob("*")
        if path.is_file() and not path.is_relative_to(run.code)
    }


@pytest.fixture
def finished(workplace: Workplace) -> RunDirectory:
    """A run of 20 epochs under a step schedule that has ended after its third step."""
    done = workplace.launch("--config", "stub.yaml", **EACH_STEP_SAVED)
    assert done.returncode == 0, done.stderr
    return workplace.runs[0]


@pytest.fixture(scope="session")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A project with such a run, for tests that leave it as it is."""
    workplace = make_workplace(
        tmp_path_factory.mktemp("untouched") / "project", clean_environment()
    )
    done = workplace.launch("--config", "stub.yaml", **EACH_STEP_SAVED)
    assert done.returncode == 0, done.stderr
    return workplace


def test_a_finished_run_goes_on_for_longer_and_keeps_its_results(
    workplace: Workplace, finished: RunDirectory
) -> None:
    before = finished.results.read_bytes()

    done = workplace.launch(
        "resume", "--set", "schedule.epochs=40", "--set", "schedule.milestones=[30]", STUB_STEPS="5"
    )

    assert done.returncode == 0, done.stderr
    assert "goes on from the checkpoint of step 3" in done.stderr
    assert "the results so far are kept: " in done.stderr
    assert (finished.path / "results-step-3.json").read_bytes() == before
    assert json.loads(finished.results.read_text())["steps"] == 5
    schedule = read_resolved(finished.config).schedule
    assert (schedule.epochs, schedule.milestones) == (40, [30])
    assert [line["reason"] for line in ledger_lines(finished)] == ["finished", "finished"]
    assert [line["first_step"] for line in ledger_lines(finished)] == [1, 4]


@pytest.mark.parametrize(
    ("changes", "problems"),
    [
        ([], ["is finished; to train on, give it more epochs: --set schedule.epochs=40"]),
        (["schedule.epochs=20"], ["is finished; to train on"]),
        (["logging.every_steps=7"], ["is finished; to train on"]),
        (["schedule.epochs=40", "train.max_steps=3"], ["is finished; to train on"]),
        (["schedule.epochs=40", "train.max_steps=2"], ["the run has taken 3 steps already"]),
        (
            ["schedule.epochs=40", "model.stem=cifar", "train.batch_size=64", "run.seed=3"],
            [
                "--set run.seed: that would be another run: the order of the images",
                "--set model.stem: that would be another run: its checkpoint holds another network",
                "--set train.batch_size: that would be another run: its steps so far",
            ],
        ),
        (["data.flip=0.0"], ["its steps so far saw other images"]),
        (["model.weights=w.pth"], ["it goes on from its own checkpoint"]),
        (["schedule.kind=cosine"], ["--set schedule.kind: that would be another run"]),
        (["schedule.warmup_steps=5"], ["the warm-up of its steps so far followed from it"]),
        (["schedule.epoch=40"], ["did you mean 'schedule.epochs'?"]),
    ],
)
def test_what_would_be_another_run_or_no_more_of_it_is_refused_with_the_reason(
    untouched: Workplace, changes: list[str], problems: list[str]
) -> None:
    [finished] = untouched.runs
    before = content(finished)

    done = untouched.launch("resume", *(f"--set={each}" for each in changes))

    assert (done.returncode, done.stdout) == (2, "")
    for problem in problems:
        assert problem in done.stderr
    assert content(finished) == before


def test_a_cosine_schedule_cannot_become_longer(workplace: Workplace) -> None:
    cosine = ("--set", "schedule.kind=cosine")
    workplace.launch("--config", "stub.yaml", *cosine, **EACH_STEP_SAVED)

    done = workplace.launch("resume", "--set", "schedule.epochs=40")

    assert done.returncode == 2
    assert "a cosine schedule falls to 0 at the end of the run" in done.stderr
    assert done.stderr.endswith("; start a new run for that\n")


def test_a_limit_in_steps_is_raised_and_a_value_as_it_was_is_no_change(
    workplace: Workplace,
) -> None:
    limit = ("--set", "train.max_steps=3")
    workplace.launch("--config", "stub.yaml", *limit, **EACH_STEP_SAVED)

    same = ("--set", "train.batch_size=32", "--set", "optimizer.lr=0.0025")
    done = workplace.launch("resume", "--set", "train.max_steps=5", *same, STUB_STEPS="5")

    assert done.returncode == 0, done.stderr
    assert ledger_lines(workplace.runs[0])[1]["first_step"] == 4


def test_before_the_first_checkpoint_the_whole_schedule_may_change(workplace: Workplace) -> None:
    workplace.launch("--config", "stub.yaml", STUB="crash:0")

    changes = ("--set", "schedule.kind=cosine", "--set", "schedule.epochs=3")
    done = workplace.launch("resume", *changes, "--set", "data.root=data/../data")

    assert done.returncode == 0, done.stderr
    assert read_resolved(workplace.runs[0].config).schedule.kind == "cosine"


def test_a_run_goes_on_as_it_was_whatever_its_paths_and_the_site_are_now(
    workplace: Workplace,
) -> None:
    shutil.copytree(workplace.project / "data", workplace.project / "a$b")
    workplace.launch("--config", "stub.yaml", "--set", "data.root=a$$b", STUB="crash:0")
    before = read_resolved(workplace.runs[0].config)
    (workplace.project / "configs" / "site.yaml").write_text("cluster: {env: {A: b}}\n")

    done = workplace.launch("resume", "--set", "run.notes=again", b="elsewhere")

    assert done.returncode == 0, done.stderr
    run = before.run.model_copy(update={"notes": "again"})
    assert read_resolved(workplace.runs[0].config) == before.model_copy(update={"run": run})


def test_of_a_sweep_every_run_that_ended_unfinished_goes_on(workplace: Workplace) -> None:
    workplace.launch(
        "--config", "stub.yaml", "--sweep", "run.seed=1,2,3", STUB="crash:0", STUB_STEPS="300"
    )
    first, second, third = workplace.runs
    one = workplace.launch("resume", second.label)
    assert one.returncode == 0, one.stderr

    done = workplace.launch("resume", STUB_STEPS="3")

    assert done.returncode == 0, done.stderr
    assert f"passed over: {second.label} is finished" in done.stderr
    assert [len(ledger_lines(run)) for run in (first, second, third)] == [2, 2, 2]
    assert all(run.results.exists() for run in (first, second, third))
    again_done = workplace.launch("resume")
    assert again_done.returncode == 2
    assert "ended unfinished" in again_done.stderr


def test_of_a_sweep_all_is_refused_or_nothing(workplace: Workplace) -> None:
    workplace.launch("--config", "stub.yaml", "--sweep", "run.seed=1,2", **EACH_STEP_SAVED)
    before = [content(run) for run in workplace.runs]

    done = workplace.launch("resume", "--set", "schedule.epochs=40", "--set", "optimizer.lr=1.0")

    assert done.returncode == 2
    assert done.stderr.count("--set optimizer.lr: that would be another run") == 1
    assert [content(run) for run in workplace.runs] == before


def test_a_whole_sweep_is_made_longer(workplace: Workplace) -> None:
    workplace.launch("--config", "stub.yaml", "--sweep", "run.seed=1,2", **EACH_STEP_SAVED)

    done = workplace.launch("resume", "--set", "schedule.epochs=40", STUB_STEPS="5")

    assert done.returncode == 0, done.stderr
    assert [json.loads(run.results.read_text())["steps"] for run in workplace.runs] == [5, 5]
    assert len(list(workplace.logs.glob("stub/*/*/results-step-3.json"))) == 2


def test_cancelling_one_run_of_a_sweep_leaves_the_others_and_all_of_it_ends_it(
    workplace: Workplace,
) -> None:
    process = workplace.start(
        "--config", "stub.yaml", "--sweep", "run.seed=1,2,3", STUB_STEPS="600"
    )

    def running(index: int) -> bool:
        runs = workplace.runs
        return len(runs) == 3 and runs[index].metrics.exists()

    eventually("the first runs", lambda: running(0))
    first, second, third = workplace.runs
    alone = workplace.launch("cancel", first.label)
    assert alone.returncode == 0, alone.stderr
    eventually("the second runs", lambda: running(1))
    assert "cancelled" in workplace.launch("status", first.label).stdout

    whole = workplace.launch("cancel", "stub")

    assert whole.returncode == 0, whole.stderr
    assert "cancelled 1 run of the sweep stub/" in whole.stdout
    assert process.wait(timeout=60) == 130
    reasons = [[line["reason"] for line in ledger_lines(run)] for run in (first, second, third)]
    assert reasons == [["cancelled"], ["cancelled"], []]
    assert saved_steps(second)
    again = workplace.launch("cancel", "stub")
    assert (again.returncode, "neither queued nor running" in again.stderr) == (2, True)
