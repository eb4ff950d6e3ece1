"""Frozen stages and the last layer's own learning rate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from configs.continuation import Taken, objections, shaping
from configs.schema import Model, Optimizer, Recipe
from tests.train.runs import changed, results, rows
from train import checkpoint
from train.distributed import Ranks, average_buffers
from train.model import build_model
from train.optim import make_optimizer, set_learning_rate

Attempt = Callable[..., bool]


def parts(entries: dict[str, Tensor]) -> set[str]:
    return {name.partition(".")[0] for name in entries}


def state_of(run_dir: Path) -> dict[str, Tensor]:
    folder = run_dir / "checkpoints"
    return checkpoint.load(folder, checkpoint.manifests(folder)[-1], torch.device("cpu"))["model"]


@pytest.mark.parametrize(
    ("stages", "frozen"),
    [
        (None, set()),
        (0, {"conv1", "bn1"}),
        (2, {"conv1", "bn1", "layer1", "layer2"}),
        (4, {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4"}),
    ],
)
def test_frozen_are_the_stem_and_the_first_stages(stages: int | None, frozen: set[str]) -> None:
    """In training mode too, their norms keep the statistics that they have."""
    model = build_model(Model(stem="cifar", freeze_stages=stages), seed=0)
    for mode in (True, False, True):
        model.train(mode)
        still = {name for name, module in model.named_children() if not module.training}
        assert still == (frozen if mode else {name for name, _ in model.named_children()})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = make_optimizer(model, Optimizer(lr=0.1))
    model(torch.rand(4, 3, 8, 8)).square().sum().backward()
    optimizer.step()

    after = model.state_dict()
    moved = {name: value for name, value in after.items() if not torch.equal(value, before[name])}
    assert parts(moved) == {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"} - frozen
    trained = {id(value) for group in optimizer.param_groups for value in group["params"]}
    assert trained == {id(p) for n, p in model.named_parameters() if n.split(".")[0] not in frozen}


def test_run_on_two_ranks_leaves_frozen_entries_as_they_are_and_resumes_exactly(
    recipe: Recipe, make_run: Callable[..., Path], attempt: Attempt
) -> None:
    """Parameters, statistics and counters, bit for bit, through evaluations and checkpoints."""
    recipe = changed(recipe, "model", freeze_stages=2, head_lr_multiplier=10.0)
    recipe = changed(recipe, "schedule", epochs=1)
    whole = make_run(recipe, name="whole")
    assert attempt(whole, world_size=2)
    fresh = build_model(recipe.model, recipe.run.seed).state_dict()
    trained = state_of(whole)
    moved = {name: value for name, value in trained.items() if not torch.equal(value, fresh[name])}

    assert parts(moved) == {"layer3", "layer4", "fc"}
    told = [row["lr"] for row in rows(whole) if row["mode"] == "train"]
    assert told == [pytest.approx(0.02 * 0.75)], "the body's, after step 2 of 3 of a cosine"

    interrupted = make_run(recipe, name="interrupted")
    assert not attempt(interrupted, world_size=2, looks=1)
    assert attempt(interrupted, world_size=2)
    assert results(interrupted)["weights_sha256"] == results(whole)["weights_sha256"]


def averaged(ranks: Ranks) -> list[float]:
    """A statistic of a frozen and of a trained norm after their mean over ranks."""
    model = build_model(Model(stem="cifar", freeze_stages=0), seed=0)
    norms = [model.bn1, model.layer1[0].bn1]
    for norm in norms:
        norm.running_var.fill_(0.1)
    norms[1].running_var.mul_(ranks.rank + 1)
    average_buffers(model, ranks)
    return [float(norm.running_var[0]) for norm in norms]


def test_mean_over_three_ranks_moves_no_frozen_statistics(
    on_ranks: Callable[..., list[list[float]]],
) -> None:
    """Three times 0.1 is not 0.3 in floating point, so a mean would."""
    for frozen, trained in on_ranks(3, averaged):
        assert frozen == float(torch.tensor(0.1))
        assert trained == pytest.approx(0.2)


def test_last_layer_takes_exactly_the_multiplied_learning_rate() -> None:
    model = build_model(Model(stem="cifar"), seed=0)
    optimizer = make_optimizer(model, Optimizer(lr=0.1, momentum=0.0, weight_decay=0.0), 10.0)
    set_learning_rate(optimizer, 0.03)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()

    body, head = optimizer.param_groups
    assert (body["lr"], head["lr"]) == (0.03, 0.03 * 10.0)
    assert {id(value) for value in head["params"]} == {id(value) for value in model.fc.parameters()}
    for name, value in model.named_parameters():
        lr = 0.03 * 10.0 if name.startswith("fc.") else 0.03
        torch.testing.assert_close(value.detach(), before[name] - lr, rtol=0, atol=1e-7)


def test_multiplier_of_one_leaves_the_optimizers_state_as_it_was_without() -> None:
    """One group and no key of its own, so that older checkpoints load and newer ones equal them."""
    model = build_model(Model(stem="cifar"), seed=0)
    plain = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, nesterov=False, fused=True
    )

    assert make_optimizer(model, Optimizer(lr=0.1)).state_dict() == plain.state_dict()


def test_with_all_stages_frozen_the_multiplier_is_the_only_groups() -> None:
    model = build_model(Model(stem="cifar", freeze_stages=4), seed=0)
    optimizer = make_optimizer(model, Optimizer(), 5.0)

    assert [group["lr_multiplier"] for group in optimizer.param_groups] == [5.0]
    assert len(optimizer.param_groups[0]["params"]) == 2


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("freeze_stages", 1, "its steps so far trained other layers"),
        ("head_lr_multiplier", 2.0, "its steps so far were taken with the value before"),
    ],
)
def test_a_checkpoint_from_before_the_keys_goes_on_at_their_defaults_only(
    key: str, value: float, reason: str
) -> None:
    old = {name: v for name, v in shaping(Recipe()).items() if name != f"model.{key}"}
    changed_model = Recipe(model=Model.model_validate({key: value}))

    assert objections(old, shaping(Recipe()), Taken(3, 1)) == {}
    assert objections(old, shaping(changed_model), Taken(3, 1)) == {f"model.{key}": reason}
