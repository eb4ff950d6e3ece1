"""The optimizer and the learning rate, number by number."""

from __future__ import annotations

from typing import Any

import pytest

from configs.schema import Data, Model, Optimizer, Recipe, Schedule, Train
from train.model import build_model
from train.optim import learning_rate, make_optimizer, settings_without_effect


def test_sgd_is_torchs_with_the_recipes_numbers() -> None:
    model = build_model(Model(), seed=0)
    group = make_optimizer(model, Optimizer(lr=0.2, weight_decay=0.3, momentum=0.4)).param_groups[0]

    assert (group["lr"], group["weight_decay"], group["momentum"]) == (0.2, 0.3, 0.4)
    assert group["nesterov"] is False
    assert len(group["params"]) == 161


def rates(schedule: Schedule, total_steps: int) -> list[float]:
    return [
        learning_rate(step, 1.0, schedule, steps_per_epoch=10, total_steps=total_steps)
        for step in range(total_steps)
    ]


def test_step_schedule_drops_when_its_epoch_is_over() -> None:
    values = rates(Schedule(kind="step", milestones=[1, 3], gamma=0.1), 40)

    assert values[:10] == [1.0] * 10
    assert values[10:30] == pytest.approx([0.1] * 20)
    assert values[30:] == pytest.approx([0.01] * 10)


def test_warmup_rises_in_equal_steps_to_the_peak() -> None:
    values = rates(Schedule(kind="step", warmup_steps=4), 6)

    assert values == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0])


@pytest.mark.parametrize(("kind", "middle"), [("linear", 0.5), ("cosine", 0.5)])
def test_falling_schedules_start_at_the_peak_and_end_near_zero(kind: str, middle: float) -> None:
    values = rates(Schedule(kind=kind, warmup_steps=10), 110)

    assert values[9] == values[10] == 1.0
    assert values[60] == pytest.approx(middle)
    assert 0 < values[-1] < 0.02
    assert values[10:] == sorted(values[10:], reverse=True)


def told(**schedule: Any) -> list[str]:
    """What is told of a run of 3 epochs of 10 steps."""
    recipe = Recipe(schedule=Schedule(epochs=3, **schedule), train=Train(batch_size=32))
    return settings_without_effect(recipe, num_images=320, steps_per_epoch=10, total_steps=30)


def test_settings_that_the_run_comes_to_are_not_told() -> None:
    assert told(milestones=[1, 2], warmup_steps=30) == []


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        (
            {"kind": "cosine", "milestones": [1]},
            "schedule.milestones has no effect with schedule.kind cosine: "
            "set it to [] or schedule.kind to step",
        ),
        (
            {"milestones": [2, 3, 9]},
            "schedule.milestones has [3, 9], but the run ends after 30 steps of 10 an epoch: "
            "raise schedule.epochs or lower the milestones",
        ),
        (
            {"warmup_steps": 31},
            "schedule.warmup_steps is 31, but the run ends after 30 steps "
            "and never reaches optimizer.lr: lower it",
        ),
    ],
)
def test_setting_that_the_run_never_comes_to_is_told_with_its_remedy(
    schedule: dict[str, Any], text: str
) -> None:
    assert told(**schedule) == [text]


@pytest.mark.parametrize(
    ("data", "schedule", "text"),
    [
        (
            {},
            {"resolution": [(0.01, 16), (0.5, 24)]},
            "schedule.resolution has no step at 16 pixels, for the run has 30: "
            "leave [0.01, 16] out or make the run longer",
        ),
        (
            {"mix_until": 0.5},
            {},
            "data.mix_until has no effect, for data.mixup and data.cutmix are 0: "
            "raise one of them or set data.mix_until to 1",
        ),
        (
            {"mixup": 0.2, "mix_until": 0.01},
            {},
            "data.mix_until is 0.01 of 30 steps, which is none, so that no batch is mixed: "
            "raise it, or set data.mixup and data.cutmix to 0",
        ),
    ],
)
def test_share_that_comes_to_no_step_is_told(
    data: dict[str, Any], schedule: dict[str, Any], text: str
) -> None:
    recipe = Recipe(data=Data(**data), schedule=Schedule(epochs=3, **schedule))
    texts = settings_without_effect(recipe, num_images=320, steps_per_epoch=10, total_steps=30)

    assert texts == [text]


def test_batch_larger_than_the_data_is_told() -> None:
    recipe = Recipe(train=Train(batch_size=64))
    texts = settings_without_effect(recipe, num_images=50, steps_per_epoch=1, total_steps=20)

    assert texts == [
        "train.batch_size is 64, more than the 50 training images, "
        "so that each batch repeats some: lower it"
    ]
