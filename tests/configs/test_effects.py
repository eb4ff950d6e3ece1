"""What a run never comes to is told with its key and its remedy, and nothing else is."""

from __future__ import annotations

from typing import Any

import pytest

from configs import load_recipe
from configs.effects import settings_without_effect
from configs.schema import Recipe


def told(**sections: dict[str, Any]) -> list[str]:
    """What is told of a run of 3 epochs of 10 steps, where nothing else is set."""
    schedule = {"epochs": 3} | sections.pop("schedule", {})
    recipe = Recipe.model_validate({"train": {"batch_size": 32}, **sections, "schedule": schedule})
    return settings_without_effect(recipe, 320)


def test_settings_that_the_run_comes_to_are_not_told() -> None:
    assert told(schedule={"milestones": [1, 2], "warmup_steps": 30}) == []


@pytest.mark.parametrize(
    "recipe", ["finetune.yaml", "finetune_fast.yaml", "scratch.yaml", "scratch_fast.yaml"]
)
def test_every_setting_of_a_recipe_of_ours_has_its_effect(recipe: str) -> None:
    assert settings_without_effect(load_recipe(recipe, []).recipe, 50_000) == []


@pytest.mark.parametrize(
    ("sections", "text"),
    [
        (
            {"schedule": {"kind": "cosine", "milestones": [1]}},
            "schedule.milestones has no effect with schedule.kind cosine: "
            "set it to [] or schedule.kind to step",
        ),
        (
            {"schedule": {"milestones": [2, 3, 9]}},
            "schedule.milestones has [3, 9], but the run ends after 30 steps of 10 an epoch: "
            "raise schedule.epochs or lower the milestones",
        ),
        (
            {"schedule": {"warmup_steps": 31}},
            "schedule.warmup_steps is 31, but the run ends after 30 steps "
            "and never reaches optimizer.lr: lower it",
        ),
        (
            {"schedule": {"resolution": [(0.01, 16), (0.5, 24)]}},
            "schedule.resolution has no step at 16 pixels, for the run has 30: "
            "leave [0.01, 16] out or make the run longer",
        ),
        (
            {"schedule": {"fixres_tail": 0.001}},
            "schedule.fixres_tail 0.001 is less than half of one of the run's 30 steps: "
            "raise it or set it to 0",
        ),
        (
            {
                "schedule": {"fixres_tail": 0.1},
                "model": {"freeze_stages": 4, "weights": "resnet50.pth"},
            },
            "schedule.fixres_tail has no effect with model.freeze_stages 4, by which only the last "
            "layer is trained: set it to 0 or lower model.freeze_stages",
        ),
        (
            {"model": {"freeze_stages": 1}},
            "model.freeze_stages keeps layers at their random initial values, for model.weights is "
            "null: name a checkpoint or set model.freeze_stages to null",
        ),
        (
            {"data": {"mix_until": 0.5}},
            "data.mix_until has no effect, for data.mixup and data.cutmix are 0: "
            "raise one of them or set data.mix_until to 1",
        ),
        (
            {"data": {"mixup": 0.2, "mix_until": 0.01}},
            "data.mix_until is 0.01 of 30 steps, which is none, so that no batch is mixed: "
            "raise it, or set data.mixup and data.cutmix to 0",
        ),
        (
            {"optimizer": {"weight_decay": 0.0, "decay_norms_and_biases": False}},
            "optimizer.decay_norms_and_biases false has no effect with optimizer.weight_decay 0: "
            "raise that or set this to true",
        ),
        (
            {"train": {"batch_size": 321}},
            "train.batch_size is 321, more than the 320 training images, "
            "so that each batch repeats some: lower it",
        ),
    ],
)
def test_setting_that_the_run_never_comes_to_is_told_with_its_remedy(
    sections: dict[str, dict[str, Any]], text: str
) -> None:
    assert told(**sections) == [text]


def test_a_half_life_below_one_step_is_told() -> None:
    def of_a_run_of(steps: int) -> list[str]:
        return told(train={"ema_half_life": 0.01, "max_steps": steps}, schedule={"epochs": 10})

    assert of_a_run_of(100) == []
    assert of_a_run_of(99) == [
        "train.ema_half_life 0.01 is less than one of the run's 99 steps, so that the average is "
        "next to the model itself: raise it or set it to null"
    ]
