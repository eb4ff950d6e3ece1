"""Whole runs of the real worker: their times add up, and a score that was not reached has none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.time_to_accuracy import summary

SMALL = (
    "--data-root=digits",
    "--seeds=1",
    "--set=model.weights=null",
    "--set=data.train_images=32",
    "--set=data.test_images=8",
    "--set=data.resolution=32",
    "--set=train.batch_size=8",
    "--set=train.device=cpu",
    "--set=schedule.epochs=1",
    "--set=logging.every_steps=2",
)


def test_a_run_is_timed_from_its_start_to_its_score(measure: Callable[..., Any]) -> None:
    printed, found = measure(
        "time_to_accuracy", "--config", "finetune.yaml", "--target", "0", *SMALL
    )

    [run] = found["recipes"]["finetune.yaml"]["runs"]
    assert (run["exit_code"], run["seed"], run["steps"], run["of_steps"]) == (0, 1, 4, 4)
    assert 0 < run["start_up_s"] < run["to_target_s"] < run["process_s"]
    late = run["to_target_s"] - run["to_target_without_start_up_s"]
    assert late == pytest.approx(run["start_up_s"], abs=0.02)
    assert run["training_s"] == run["training_s_of_all_steps"]
    summed = found["recipes"]["finetune.yaml"]["summary"]
    assert summed["accuracy_top-1"] == {"mean": run["accuracy_top-1"], "deviation": None}
    assert f"{run['training_s']:.2f}" in printed


def test_a_target_counts_for_a_recipe_only_if_every_seed_came_to_it() -> None:
    runs = [
        {"exit_code": 0, "accuracy_top-1": 97.0, "to_target_s": 30.0},
        {"exit_code": 0, "accuracy_top-1": 96.0},
        {"exit_code": 75, "accuracy_top-1": 50.0},
    ]

    assert summary(runs) == {
        "runs": 3,
        "finished": 2,
        "accuracy_top-1": {"mean": 96.5, "deviation": 0.707},
    }
