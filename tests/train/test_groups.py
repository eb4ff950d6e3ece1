"""Which parameters are decayed, which have a learning rate of their own, and which rest."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from configs.schema import Model, Optimizer, Recipe, Schedule
from tests.train.runs import changed
from tests.train.steps import first_step
from train.batches import count_steps
from train.model import ResNet50, build_model
from train.optim import (
    make_optimizer,
    set_learning_rate,
    settings_without_effect,
    tail_steps,
)

NUMBERS, NORMS_AND_BIASES, HEAD = 23_528_522, 53_130, 20_490


@pytest.fixture(scope="module")
def model() -> ResNet50:
    return build_model(Model(), seed=0)


def count(group: dict[str, Any]) -> int:
    return sum(value.numel() for value in group["params"])


def test_without_decay_are_all_norms_and_biases_those_of_shortcuts_and_head_too(
    model: ResNet50,
) -> None:
    config = Optimizer(weight_decay=0.3, decay_norms_and_biases=False)
    decayed, other = make_optimizer(model, config).param_groups
    names = {id(value): name for name, value in model.named_parameters()}

    assert (decayed["weight_decay"], other["weight_decay"]) == (0.3, 0.0)
    assert (count(decayed), count(other)) == (NUMBERS - NORMS_AND_BIASES, NORMS_AND_BIASES)
    assert {value.dim() for value in other["params"]} == {1}
    found = {names[id(value)] for value in other["params"]}
    assert {"layer1.0.downsample.1.weight", "layer1.0.downsample.1.bias", "fc.bias"} <= found


@pytest.mark.parametrize(
    ("decays", "multiplier", "has_tail", "sizes"),
    [
        (True, 1.0, False, [NUMBERS]),
        (True, 5.0, False, [NUMBERS - HEAD, HEAD]),
        (True, 1.0, True, [NUMBERS - HEAD - 53_120, HEAD + 53_120]),
        (True, 5.0, True, [NUMBERS - HEAD - 53_120, 53_120, HEAD]),
        (False, 5.0, False, [NUMBERS - HEAD - 53_120, 53_120, HEAD - 10, 10]),
        (False, 1.0, True, [NUMBERS - HEAD - 53_120, NORMS_AND_BIASES, HEAD - 10]),
        (False, 5.0, True, [NUMBERS - HEAD - 53_120, 53_120, HEAD - 10, 10]),
    ],
)
def test_groups_are_as_few_as_the_recipe_needs_and_hold_every_parameter_once(
    model: ResNet50, decays: bool, multiplier: float, has_tail: bool, sizes: list[int]
) -> None:
    config = Optimizer(decay_norms_and_biases=decays)
    optimizer = make_optimizer(model, config, multiplier, has_fixres_tail=has_tail)
    groups = optimizer.param_groups

    assert [count(group) for group in groups] == sizes
    held = [id(value) for group in groups for value in group["params"]]
    assert sorted(held) == sorted(map(id, model.parameters()))


@pytest.mark.parametrize("in_tail", [False, True])
@pytest.mark.parametrize("lr", [0.2, torch.tensor(0.2)], ids=["number", "tensor"])
def test_in_the_tail_convolutions_have_no_learning_rate(
    model: ResNet50, lr: float | Tensor, in_tail: bool
) -> None:
    """As a number or, on a GPU, in the tensor that a recorded step reads."""
    optimizer = make_optimizer(model, Optimizer(), 5.0, has_fixres_tail=True)
    for group in optimizer.param_groups:
        group["lr"] = lr.clone() if isinstance(lr, Tensor) else lr
    before = [group["lr"] for group in optimizer.param_groups]
    set_learning_rate(optimizer, 0.1, in_tail=in_tail)

    now = [group["lr"] for group in optimizer.param_groups]
    assert [float(value) for value in now] == pytest.approx([0.0 if in_tail else 0.1, 0.1, 0.5])
    if isinstance(lr, Tensor):
        assert all(one is other for one, other in zip(before, now, strict=True))


def test_steps_of_the_tail_change_last_layer_and_norms_alone_to_the_last_bit(
    recipe: Recipe,
) -> None:
    """Weight decay and momentum included, which move a weight without any gradient."""
    recipe = changed(recipe, "model", zero_init_residual=False)  # or some gradients begin at 0
    recipe = changed(recipe, "optimizer", weight_decay=0.1)
    recipe = changed(recipe, "schedule", fixres_tail=0.5)
    recipe = changed(recipe, "train", max_steps=4)
    take = first_step(recipe)
    model = take.state.model
    kernels = {name for name, value in model.named_parameters() if value.dim() == 4}
    everything = {name for name, _ in model.named_parameters()}

    moved = []
    for step in range(4):
        before = {name: value.detach().clone() for name, value in model.named_parameters()}
        take(step, 0.02)
        after = dict(model.named_parameters())
        moved.append({name for name in after if not torch.equal(before[name], after[name])})

    assert moved == [everything, everything, everything - kernels, everything - kernels]
    assert "fc.weight" not in kernels
    assert len(kernels) == 53


@pytest.mark.parametrize(
    ("share", "total", "steps"), [(0.0, 90, 0), (0.1, 90, 9), (0.29, 100, 29), (0.1, 4, 0)]
)
def test_tail_is_its_share_of_the_steps(share: float, total: int, steps: int) -> None:
    assert tail_steps(Schedule(fixres_tail=share), total) == steps


def test_the_run_ends_with_its_epochs_or_its_limit_whichever_is_first() -> None:
    recipe = Recipe(schedule=Schedule(epochs=3))

    assert count_steps(recipe, 10) == 30
    assert count_steps(changed(recipe, "train", max_steps=7), 10) == 7
    assert count_steps(changed(recipe, "train", max_steps=70), 10) == 30


@pytest.mark.parametrize(
    ("settings", "text"),
    [
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
            {"optimizer": {"weight_decay": 0.0, "decay_norms_and_biases": False}},
            "optimizer.decay_norms_and_biases false has no effect with optimizer.weight_decay 0: "
            "raise that or set this to true",
        ),
    ],
)
def test_a_switch_that_does_nothing_is_told(settings: dict[str, Any], text: str) -> None:
    recipe = Recipe.model_validate(settings)
    told = settings_without_effect(recipe, num_images=320, steps_per_epoch=10, total_steps=30)

    assert told == [text]
