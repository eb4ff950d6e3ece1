"""What a report says of runs that lie there as plain files."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest

from jobs import comparison, record, report, summary
from jobs.comparison import INPUTS
from jobs.metrics import Progress
from jobs.record import TOP1, TOP5, Record
from jobs.rundir import RunDirectory, seconds_of
from jobs.status import State, Status
from tests.jobs.past_runs import STEPS, attempt, write_run

NOW = seconds_of("2026-01-01T10:00:00Z")


def gathered(*runs: RunDirectory, state: State = "finished") -> list[Record]:
    told = [Status(run, state, 1, Progress(), "") for run in runs]
    return [record.gather(each, NOW) for each in told]


def test_only_what_differs_between_the_recipes_is_told(tmp_path: Path) -> None:
    """In the schema's order, and never the run's own name and folder."""
    runs = [
        write_run(tmp_path, "a", {"optimizer.lr": 0.1, "run.seed": 1}),
        write_run(tmp_path, "b", {"run.name": "other", "run.root": "/x", "run.notes": "text"}),
    ]

    assert comparison.differences(gathered(*runs)) == ["run.seed", "optimizer.lr"]
    assert comparison.differences(gathered(runs[0])) == []


def test_a_key_that_an_older_recipe_does_not_have_is_at_its_default(tmp_path: Path) -> None:
    old, new = write_run(tmp_path, "a"), write_run(tmp_path, "b")
    lines = old.config.read_text().splitlines()
    old.config.write_text("\n".join(line for line in lines if "label_smoothing" not in line))

    assert comparison.differences(gathered(old, new)) == []


def test_runs_that_differ_in_the_seed_have_a_mean_and_a_deviation(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path, stamp, {"run.seed": seed}, scores=scores)
        for stamp, seed, scores in (
            ("a", 1, (96.0, 95.0)),
            ("b", 2, (90.0, 97.0)),
            ("c", 3, (90.0, 96.5)),
        )
    ]
    alone = write_run(tmp_path, "d", {"optimizer.lr": 0.5}, scores=(50.0,))
    seeds, other = comparison.group(gathered(*runs, alone))

    assert seeds.seeds == [1, 2, 3]
    # The squares of -7/6, 5/6 and 1/3 add up to 13/6.
    assert vars(seeds.score(TOP1)) == {"n": 3, "mean": 577 / 6, "sd": math.sqrt(13 / 12)}
    assert seeds.score(f"best_{TOP1}").mean == 96.5
    assert seeds.score(TOP5).mean == pytest.approx(50 + 577 / 12, rel=1e-15)
    assert vars(other.score(TOP1)) == {"n": 1, "mean": 50.0, "sd": None}
    assert summary.spread(other.score(TOP1)) == "50.00 ± -"


@pytest.mark.parametrize(
    ("changes", "together"),
    [
        ({"run.seed": 9}, True),
        ({"run.notes": "a word"}, True),
        ({"cluster.partition": "other"}, True),
        ({"logging.every_steps": 7}, True),
        ({"data.root": "/moved"}, True),
        ({"train.cuda_graph": False}, True),
        ({"train.batch_size": 64}, False),
        ({"model.weights": "/other.pth"}, False),
        ({"evaluate.every_epochs": 2}, False),
    ],
)
def test_only_what_shapes_the_result_parts_a_group(
    tmp_path: Path, changes: dict[str, Any], together: bool
) -> None:
    runs = gathered(write_run(tmp_path, "a"), write_run(tmp_path, "b", changes))

    assert len(comparison.group(runs)) == (1 if together else 2)


def test_another_number_of_workers_is_another_group(tmp_path: Path) -> None:
    """Batch normalisation sees each worker's share."""
    runs = [write_run(tmp_path, "a"), write_run(tmp_path, "b")]
    runs[1].results.write_text(json.dumps({"world_size": 4}))

    assert len(comparison.group(gathered(*runs))) == 2


@pytest.mark.parametrize("key", ["archive_sha256", "weights_sha256"])
def test_different_inputs_in_a_group_are_said(tmp_path: Path, key: str) -> None:
    runs = [write_run(tmp_path, "a"), write_run(tmp_path, "b", {"data.root": "/moved"})]

    def told(*contents: str | None) -> bool:
        for run, content in zip(runs, contents, strict=True):
            run.provenance.write_text(json.dumps({key: content}))
        records = gathered(*runs)
        [together] = comparison.group(records)
        said = any(
            f"group 1: its runs {each}" in summary.plain(records) for each in INPUTS.values()
        )
        assert said == bool(together.differing_inputs)
        return said

    assert told("1", "2")
    assert not told("1", "1")
    assert not told("1", None)  # an older run, which did not note it


def test_different_code_in_a_group_is_said(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, "a", code="1"), write_run(tmp_path, "b", code="2")]
    records = gathered(*runs)
    [together] = comparison.group(records)

    assert together.code == "differs"
    assert "group 1: its runs had different code" in summary.plain(records)
    runs[1].provenance.unlink()
    assert comparison.group(gathered(*runs))[0].code == "differs"
    runs[0].provenance.unlink()
    assert comparison.group(gathered(*runs))[0].code == "unknown"


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({}, "01234567"),
        ({"diff_sha256": "abc"}, "01234567*"),
        ({"new_files": ["train/new.py"]}, "01234567*"),
        ({"new_files": []}, "01234567"),
        ({"commit": None, "new_files": None}, "-"),
    ],
)
def test_the_commit_has_a_mark_if_the_code_was_not_just_that(
    tmp_path: Path, changes: dict[str, Any], shown: str
) -> None:
    run = write_run(tmp_path, "a")
    run.provenance.write_text(json.dumps(json.loads(run.provenance.read_text()) | changes))
    [told] = gathered(run)

    assert summary.commit(told) == shown


def test_unfinished_runs_are_shown_and_do_not_count_in_the_mean(tmp_path: Path) -> None:
    whole = write_run(tmp_path, "a", {"run.seed": 1}, scores=(90.0,))
    half = write_run(tmp_path, "b", {"run.seed": 2}, scores=(40.0, 30.0), is_finished=False)
    lines = half.metrics.read_text().splitlines(keepends=True)
    half.metrics.write_text("".join(line for line in lines if json.loads(line)["step"] <= 300))
    records = [*gathered(whole), *gathered(half, state="running")]
    [together] = comparison.group(records)
    values = records[1].values()

    assert (together.seeds, together.score(TOP1).n) == ([1], 1)
    assert (values[TOP1], values[f"best_{TOP1}"], values["best_epoch"]) == (40.0, 40.0, 1)
    assert (values["step"], values["steps"], values["workers"]) == (300, STEPS, 8)
    assert "running 75 %" in summary.plain(records)


def test_a_run_that_never_started_is_shown_with_what_it_asks_for(tmp_path: Path) -> None:
    asked = {"cluster.nodes": 2, "cluster.gpus_per_node": 4}
    run = write_run(tmp_path, "a", asked, attempts=[], scores=(1.0,), is_finished=False)
    run.metrics.unlink()
    [waiting] = gathered(run, state="queued")

    assert (waiting.workers, waiting.last(TOP1), waiting.best("epoch")) == (8, None, None)
    assert summary.plain([waiting]).splitlines()[1].split() == ["state", "queued"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "\0",
        '{"best": 5, "world_size": "x", "device": {}, "accuracy_top-1": "high"}',
        '{"classes": ["a", "b"], "confusion_matrix": [[1], [2, 3, 4]]}',
        '{"classes": ["a"], "confusion_matrix": [["1"]]}',
        '{"mistakes": [5, {"png": 7, "confidence": "x"}]}',
        '{"commit": 5, "command": [], "created": 3, "versions": []}',
    ],
)
@pytest.mark.parametrize(
    "name",
    ["config.yaml", "results.json", "mistakes.json", "provenance.json", "attempts.jsonl",
     "metrics.jsonl", "launcher.log"],
)  # fmt: skip
def test_a_damaged_file_hides_neither_the_rest_nor_the_other_runs(
    tmp_path: Path, name: str, text: str
) -> None:
    good = write_run(tmp_path, "a")
    damaged = write_run(tmp_path, "b", {"run.seed": 1})
    (damaged.path / name).write_text(text)
    records = gathered(good, damaged)

    for form in report.FORMATS:
        assert "finetune/a" in report.render(records, form, NOW) or form == "table"
        assert report.render(records[1:], form, NOW)
    assert report.as_json(records)["runs"][0] == report.as_json(gathered(good))["runs"][0]


@pytest.mark.parametrize(
    "values",
    [
        {"nodes": None},
        {"nodes": [5]},
        {"start": "noon"},
        {"end": "yesterday"},
        {"end": 5},
        {"workers": "two"},
        {"first_step": "one"},
        {"reason": {"a": "crash"}},
        {"gpu_seconds_lost": "much"},
    ],
)
def test_a_strange_line_in_the_ledger_is_left_out(tmp_path: Path, values: dict[str, Any]) -> None:
    run = write_run(tmp_path, "a", attempts=[attempt(1, **values), attempt(2)])
    records = gathered(run)

    assert [entry.attempt for entry in records[0].attempts] == [2]
    for form in report.FORMATS:
        assert report.render(records, form, NOW)


@pytest.mark.parametrize(
    "line",
    [
        {"mode": "val", "step": "x", "accuracy_top-1": "high", "epoch": None},
        {"mode": "train", "step": 5, "loss": 1e999, "lr": True},
        {"mode": 3},
    ],
)
def test_a_strange_line_in_the_metrics_is_left_out(tmp_path: Path, line: dict[str, Any]) -> None:
    run = write_run(tmp_path, "a")
    run.metrics.write_text(json.dumps(line) + "\n" + run.metrics.read_text())
    records = gathered(run)

    assert records[0].values()["step"] == STEPS
    for form in report.FORMATS:
        assert "nan" not in report.render(records, form, NOW).lower().replace("provenance", "")


def test_csv_and_json_carry_everything_unrounded(tmp_path: Path) -> None:
    scores = (91.123456789, 90.987654321)
    runs = [write_run(tmp_path, "a", {"run.seed": 4}, scores=scores), write_run(tmp_path, "b")]
    records = gathered(*runs)
    [row, _] = csv.DictReader(io.StringIO(report.render(records, "csv", NOW)))
    whole = json.loads(report.render(records, "json", NOW))

    assert float(row[TOP1]) == whole["runs"][0][TOP1] == 90.987654321
    assert float(row[f"best_{TOP1}"]) == 91.123456789
    assert float(row["images_per_second"]) == 8123.456789
    assert (row["run.seed"], row["cluster.setup"], row["model.weights"]) == ("4", "[]", "")
    assert row["uncommitted_changes"] == "false"
    assert (row["group_accuracy_top-1_n"], row["group"], row["group_code"]) == ("2", "1", "same")
    assert whole["groups"][0]["runs"] == [run.label for run in runs]
    assert whole["runs"][0]["results"] == json.loads(runs[0].results.read_text())
    assert whole["runs"][0]["ledger"][0]["reason"] == "finished"
    assert whole["differences"] == ["run.seed"]


def test_the_keys_of_csv_and_json_do_not_depend_on_the_runs(tmp_path: Path) -> None:
    whole = write_run(tmp_path, "a", {"optimizer.lr": 0.5})
    broken = write_run(tmp_path, "b", attempts=[], is_finished=False)
    for path in (broken.provenance, broken.metrics, broken.attempts):
        path.unlink()

    def keys(run: RunDirectory) -> list[str]:
        return report.render(gathered(run), "csv", NOW).splitlines()[0].split(",")

    assert keys(whole) == keys(broken)
    assert list(gathered(whole)[0].values()) == list(gathered(broken)[0].values())
