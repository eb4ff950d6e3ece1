"""Steps of a run and of its epochs, and shares of them."""

from __future__ import annotations

from typing import Any

import pytest

from configs.schema import Recipe, Schedule
from configs.steps import count_steps, steps_of, steps_per_epoch, tail_steps


def test_steps_per_epoch_are_those_of_mmcls() -> None:
    assert steps_per_epoch(50_000, 32) == 1_563
    assert steps_per_epoch(50_000, 128) == 391


@pytest.mark.parametrize(
    ("train", "steps"), [({}, 30), ({"max_steps": 7}, 7), ({"max_steps": 70}, 30)]
)
def test_the_run_ends_with_its_epochs_or_its_limit_whichever_is_first(
    train: dict[str, Any], steps: int
) -> None:
    recipe = Recipe.model_validate({"schedule": {"epochs": 3}, "train": train})

    assert count_steps(recipe, 10) == steps


def test_a_share_of_a_run_is_whole_steps() -> None:
    assert [steps_of(share, 7) for share in (0.01, 0.5, 0.8, 1.0)] == [0, 4, 6, 7]


@pytest.mark.parametrize(
    ("share", "total", "steps"), [(0.0, 90, 0), (0.1, 90, 9), (0.29, 100, 29), (0.1, 4, 0)]
)
def test_tail_is_its_share_of_the_steps(share: float, total: int, steps: int) -> None:
    assert tail_steps(Schedule(fixres_tail=share), total) == steps
