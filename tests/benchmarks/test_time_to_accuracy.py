"""A score that was not reached has no time; how a run is timed is tested with the GPU's parts."""

from __future__ import annotations

from benchmarks.time_to_accuracy import summary


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
