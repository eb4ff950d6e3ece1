"""Which parameters are decayed, which have a learning rate of their own, and which rest."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from configs.schema import Model, Optimizer, Recipe
from tests.train.runs import changed
from tests.train.steps import first_step
from train.model import ResNet50, build_model
from train.optim import make_optimizer, set_learning_rate

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
    assert len(kernels) == 1 + 4 * 4, "the stem's, and four of each stage of one block"
