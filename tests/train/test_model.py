"""The network and the learning rate, number by number."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from configs.schema import Model, Optimizer, Schedule
from train.model import build_model
from train.optim import learning_rate, make_optimizer


@pytest.mark.parametrize(("stem", "parameters"), [("cifar", 23_520_842), ("imagenet", 23_528_522)])
def test_number_of_parameters(stem: str, parameters: int) -> None:
    model = build_model(Model(stem=stem), seed=0)

    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert len(model.state_dict()) == 320


@pytest.mark.parametrize(("stem", "side"), [("cifar", 4), ("imagenet", 1)])
def test_stem_sets_the_size_of_the_last_map(stem: str, side: int) -> None:
    model = build_model(Model(stem=stem), seed=0).eval()
    shapes = []
    model.layer4.register_forward_hook(lambda *args: shapes.append(args[2].shape))
    with torch.no_grad():
        model(torch.zeros(2, 3, 32, 32))

    assert shapes == [(2, 2048, side, side)]


def test_initialisation_depends_on_the_seed_and_on_nothing_else() -> None:
    first = build_model(Model(), seed=5).state_dict()
    torch.rand(7)
    before = torch.random.get_rng_state()
    second = build_model(Model(), seed=5).state_dict()

    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(before, torch.random.get_rng_state())
    assert not torch.equal(first["conv1.weight"], build_model(Model(), 6).conv1.weight)


def test_initialisation_is_mmcls() -> None:
    """He's normal by fan out, a head of deviation 0.01, closing norms at 0 from scratch only."""
    scratch = build_model(Model(stem="cifar"), seed=0)

    assert scratch.conv1.weight.detach().std() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)
    assert scratch.fc.weight.detach().std() == pytest.approx(0.01, rel=0.05)
    assert (scratch.fc.bias == 0).all()
    assert (scratch.layer1[0].bn3.weight == 0).all()
    pretrained = build_model(Model(weights="some.pth"), seed=0)
    assert (pretrained.layer1[0].bn3.weight == 1).all()


def test_label_smoothing_is_mmcls_formula() -> None:
    """Target (1 - eps) * onehot + eps / K; mean over images of -sum(target * log softmax)."""
    logits = torch.randn(16, 10, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(16) % 10
    target = (1 - 0.1) * F.one_hot(labels, 10) + 0.1 / 10
    expected = -(target * logits.log_softmax(dim=1)).sum(dim=1).mean()

    assert torch.allclose(F.cross_entropy(logits, labels, label_smoothing=0.1), expected)


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
