"""The optimizer and the learning rate, number by number."""

from __future__ import annotations

import pytest

from configs.schema import Model, Optimizer, Schedule
from train.model import build_model
from train.optim import learning_rate, make_optimizer


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
