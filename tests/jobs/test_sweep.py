"""A sweep: what its values mean, what its runs are called, how they run without Slurm."""

from __future__ import annotations

import json

import pytest

from configs import read_resolved
from jobs import sweep
from jobs.errors import RequestError
from jobs.rundir import RunDirectory
from tests.jobs.workplace import Workplace, ledger_lines


def test_every_combination_is_an_element_and_the_last_axis_changes_fastest() -> None:
    axes = sweep.parse_axes(["optimizer.lr=0.001,1e-2", "run.seed=1,2,3"])

    elements = sweep.combine(axes)

    assert [each.folder for each in elements] == [
        "0-lr=0.001,seed=1",
        "1-lr=0.001,seed=2",
        "2-lr=0.001,seed=3",
        "3-lr=0.01,seed=1",
        "4-lr=0.01,seed=2",
        "5-lr=0.01,seed=3",
    ]
    assert elements[3].changes == {"optimizer.lr": 0.01, "run.seed": 1}
    assert elements[3].overrides == ["optimizer.lr=0.01", "run.seed=1"]


def test_values_are_yaml_and_names_of_folders_are_plain_and_sort_in_order() -> None:
    [axis] = sweep.parse_axes(["schedule.steps=[1, 2],[3]"])
    assert axis.values == ([1, 2], [3])
    [axis] = sweep.parse_axes(["model.weights=a/b c.pth,'x,y.pth',null,true"])
    assert axis.values == ("a/b c.pth", "x,y.pth", None, True)

    names = [each.folder for each in sweep.combine([axis])]
    assert names[:2] == ["0-weights=a_b_c.pth", "1-weights=x,y.pth"]
    many = sweep.combine(sweep.parse_axes([f"run.seed={','.join(map(str, range(11)))}"]))
    assert [each.folder for each in many] == sorted(each.folder for each in many)


def test_keys_that_end_alike_are_told_apart() -> None:
    assert sweep.describe({"optimizer.lr": 1, "other.lr": 2, "run.seed": 3}) == (
        "optimizer.lr=1,other.lr=2,seed=3"
    )


def test_everything_wrong_with_the_axes_is_told_at_once() -> None:
    wrong = {
        "run.seed": "expected a key and its values, as in optimizer.lr=0.001,0.0025",
        "run.seed=": "expected a key and its values, as in optimizer.lr=0.001,0.0025",
        "run.seed=1,2,1": "has a value twice",
        "cluster.nodes=1,2": "cluster.nodes cannot differ: the elements of a Slurm array are alike",
        "run.name=a,b": "run.name cannot differ: it names the sweep",
    }

    with pytest.raises(RequestError) as refused:
        sweep.parse_axes([*wrong, "model.stem=[a", "train.x=1,2", "train.x=3"])

    problems = list(refused.value.problems)
    assert problems[:5] == [f"--sweep {text}: {reason}" for text, reason in wrong.items()]
    assert problems[5].startswith("--sweep model.stem=[a: not valid YAML: ")
    assert problems[6:] == ["--sweep train.x=3: train.x has its values already; give them together"]


def test_without_slurm_the_runs_follow_each_other_and_a_failure_stops_none(
    workplace: Workplace,
) -> None:
    done = workplace.launch(
        "--config", "stub.yaml", "--set", "cluster.env.STUB=crash:0",
        "--set", "cluster.env.STUB_STEPS='300'",
        "--sweep", "train.batch_size=32,64", "--sweep", "run.seed=7,8",
    )  # fmt: skip

    assert done.returncode == 1
    runs = workplace.runs
    [folder] = {run.sweep for run in runs}
    assert [run.label for run in runs] == [
        f"stub/{folder.name}/{each.folder}" for each in sweep.read(folder)
    ]
    recipes = [read_resolved(run.config) for run in runs]
    assert [(each.train.batch_size, each.run.seed) for each in recipes] == [
        (32, 7), (32, 8), (64, 7), (64, 8),
    ]  # fmt: skip
    assert sweep.changes_of(runs[2]) == {"train.batch_size": 64, "run.seed": 7}
    assert [[line["reason"] for line in ledger_lines(run)] for run in runs] == [["crash"]] * 4
    ends = [ledger_lines(run)[0]["end"] for run in runs]
    starts = [ledger_lines(run)[0]["start"] for run in runs]
    assert all(end <= start for end, start in zip(ends, starts[1:], strict=False))
    assert done.stderr.count(f"error: stub/{folder.name}/") == 4


@pytest.mark.parametrize(
    ("axis", "words"),
    [
        ("optimizer.lr=0.1,fast", "expected a number"),
        ("train.batch_size=32,33", "33 images cannot be shared evenly by 2 workers"),
    ],
)
def test_problems_of_any_element_are_told_once_and_nothing_is_made(
    workplace: Workplace, axis: str, words: str
) -> None:
    two = ("--set", "cluster.cpu_workers=2")
    done = workplace.launch(
        "--config", "stub.yaml", *two, "--sweep", axis, "--sweep", "run.seed=1,2,3"
    )

    assert done.returncode == 2
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: --sweep {axis.partition('=')[0]}: {words}")
    assert list(workplace.logs.iterdir()) == []


def test_a_dry_run_names_the_runs_and_makes_nothing(workplace: Workplace) -> None:
    done = workplace.launch("--config", "stub.yaml", "--sweep", "run.seed=1,2", "--dry-run")

    assert done.returncode == 0
    assert "# 2 runs\n#   0-seed=1\n#   1-seed=2\n" in done.stdout
    assert list(workplace.logs.iterdir()) == []


def test_a_damaged_list_of_elements_is_no_element(workplace: Workplace) -> None:
    folder = workplace.logs / "stub" / "20260101-000000-aaaa"
    folder.mkdir(parents=True)
    for content in ("", "[]", json.dumps({"elements": [{"folder": 1}]})):
        (folder / "sweep.json").write_text(content)
        assert sweep.changes_of(RunDirectory(folder / "0-seed=1")) == {}
