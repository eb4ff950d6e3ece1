"""The average of the weights: the formula, number by number, and a run that is scored with it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from configs.schema import Model, Optimizer, Recipe
from jobs import storage
from tests.train.made_runs import add_checkpoint, make_entries, make_recipe, write_export
from tests.train.runs import changed
from tests.train.steps import ALONE, CPU, first_step, waiting_refused
from train.average import WeightAverage
from train.model import build_model
from train.optim import make_optimizer
from train.prediction import read_model
from train.state import Interval, TrainState, weights_sha256
from train.step import make_step
from train.weights import load_weights

Attempt = Callable[..., bool]


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def at(step: int) -> Tensor:
    return torch.tensor(step)


@pytest.mark.parametrize("half_life", [2.5, 30.0, 1e9])
def test_average_is_the_formula_in_float64_for_weights_and_statistics(half_life: float) -> None:
    model = small_network()
    average = WeightAverage(model, half_life)
    expected = {name: value.double() for name, value in model.state_dict().items()}
    generator = torch.Generator().manual_seed(1)
    for step in range(60):
        for name, value in model.state_dict().items():
            if name.endswith("num_batches_tracked"):
                value.add_(1)
            else:
                value.copy_(torch.randn(value.shape, generator=generator))
        average.update(at(step))
        decay = min(0.5 ** (1 / half_life), (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value.double()
    expected["1.num_batches_tracked"] = at(60).double()

    averaged = average.model.state_dict()
    assert averaged.keys() == expected.keys()
    for name, value in averaged.items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)


def test_after_the_ramp_what_is_left_of_a_step_halves_in_the_half_life() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    average = WeightAverage(model, 40.0)
    nn.init.zeros_(model.weight)
    for step in range(1000, 1040):
        average.update(at(step))

    assert average.model.weight.item() == pytest.approx(0.5, rel=1e-4)


def test_what_is_frozen_stays_as_it_is_to_the_last_bit() -> None:
    """The sign of a zero included, which a mean would lose."""
    model = build_model(Model(stem="cifar", freeze_stages=4), seed=0)
    model.conv1.weight.data.fill_(-0.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    average = WeightAverage(model, 2.0)
    nn.init.ones_(model.fc.weight)
    average.update(at(3))

    for name, value in average.model.state_dict().items():
        is_same = value.numpy().tobytes() == before[name].numpy().tobytes()
        assert is_same == (name != "fc.weight"), name


def test_tensors_of_a_step_are_all_there_parameters_first_and_momentum_last() -> None:
    """A step that is recorded and undone gives back every one of them."""
    model = build_model(Model(), seed=0)
    state = TrainState(model, make_optimizer(model, Optimizer()), Interval.empty(CPU))
    without = {id(tensor) for tensor in state.tensors()}
    state.average = WeightAverage(model, 5.0)
    averaged = state.average.model
    first = state.tensors()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    state.optimizer.step()
    last = state.tensors()

    parameters = [id(value) for value in model.parameters()]
    assert [id(value) for value in last[: len(parameters)]] == parameters
    assert [id(value) for value in last[: len(first)]] == [id(value) for value in first]
    added = {id(value) for value in (*averaged.parameters(), *averaged.buffers())}
    assert {id(value) for value in first} == without | added
    assert len(last) - len(first) == len(parameters)


@pytest.fixture
def short(recipe: Recipe) -> Recipe:
    """One epoch of three steps on few images, the last a tail, with all groups of parameters."""
    recipe = changed(recipe, "data", train_images=24, test_images=20)
    recipe = changed(recipe, "evaluate", batch_size=5)
    recipe = changed(recipe, "schedule", epochs=1, fixres_tail=0.3)
    recipe = changed(recipe, "optimizer", decay_norms_and_biases=False)
    recipe = changed(recipe, "model", head_lr_multiplier=10.0)
    return changed(recipe, "train", batch_size=8)


def model_of(recipe: Recipe, entries: dict[str, Tensor]) -> nn.Module:
    model = build_model(recipe.model, seed=0)
    model.load_state_dict(entries)
    return model


def test_training_does_not_know_of_the_average(short: Recipe) -> None:
    averaging = first_step(changed(short, "train", ema_half_life=0.5))
    plain = first_step(short)
    for step in range(2):
        averaging(step, 0.02)
        plain(step, 0.02)

    assert weights_sha256(averaging.state.model) == weights_sha256(plain.state.model)
    assert averaging.state.interval.loss_sum == plain.state.interval.loss_sum
    assert plain.state.outcome is plain.state.model
    assert weights_sha256(averaging.state.outcome) != weights_sha256(plain.state.model)
    assert "model_ema" not in plain.state.state_dict(ALONE)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_replayed_steps_average_and_rest_as_eager_ones_and_wait_for_nothing(short: Recipe) -> None:
    """Six steps in fp32, the last two of them the tail."""
    recipe = changed(changed(short, "schedule", epochs=2), "train", ema_half_life=0.3)
    recipe = changed(recipe, "data", resolution=64)
    on_gpu = dataclasses.replace(ALONE, device=torch.device("cuda", 0))
    eager, recorded = first_step(recipe, on_gpu), first_step(recipe, on_gpu)
    said: list[str] = []
    graphed = make_step(recorded, said.append)
    kernel = recorded.state.model.layer1[0].conv1.weight
    start = torch.cat([value.flatten() for value in recorded.state.outcome.parameters()])

    for step in range(6):
        before = kernel.detach().clone()
        with waiting_refused() if step else contextlib.nullcontext():  # the first is recorded
            eager(step, 0.002)
            graphed(step, 0.002)

    assert said[0].startswith("steps of 64 px: one CUDA graph"), said
    assert torch.equal(kernel, before)
    ends = [
        torch.cat([value.flatten() for value in each.state.outcome.parameters()])
        for each in (eager, recorded)
    ]
    assert (ends[1] - ends[0]).norm() < 0.05 * (ends[0] - start).norm()
    assert int(recorded.state.outcome.bn1.num_batches_tracked) == 6


def test_export_prediction_and_a_new_start_take_the_average(tmp_path: Path) -> None:
    recipe = make_recipe()
    averaged = make_entries(recipe, seed=77)
    path = add_checkpoint(tmp_path / "run", recipe, 10, score=50.0, model_ema=averaged)
    expected = weights_sha256(model_of(recipe, averaged))

    out, told = write_export(tmp_path / "run", "safetensors", tmp_path)
    assert expected in told
    for file in (path, out):
        model = build_model(recipe.model, seed=0)
        account = load_weights(model, file)
        assert weights_sha256(model) == expected
        assert len(account.loaded) == len(averaged)
        replica, _ = read_model(file, {})._idle.get()
        assert weights_sha256(replica) == expected
    account = load_weights(model, path)
    assert account.layout == "ours"
    assert account.ignored["model"] == "a second set of weights: model_ema is used"


def test_doctor_reckons_with_the_average_in_a_checkpoint() -> None:
    averaged = Recipe.model_validate({"train": {"ema_half_life": 0.1}})

    assert 2 * storage.checkpoint_bytes(averaged) == 3 * storage.checkpoint_bytes(Recipe())
