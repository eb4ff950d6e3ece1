"""The optimizer, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math

import torch
from torch import nn

from configs.schema import Optimizer, Schedule


def make_optimizer(model: nn.Module, config: Optimizer) -> torch.optim.SGD:
    """SGD over all parameters of `model`, norms and biases included, as the recipe says."""
    return torch.optim.SGD(
        model.parameters(),
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.nesterov,
        fused=True,
    )


def learning_rate(
    step: int, peak: float, schedule: Schedule, *, steps_per_epoch: int, total_steps: int
) -> float:
    """The learning rate of `step` (from 0).

    A warm-up rises linearly and reaches `peak` at its last step. After it, 'step' multiplies by
    gamma for each milestone whose epoch is over; 'cosine' (Loshchilov and Hutter 2016, arXiv
    1608.03983, without restarts) and 'linear' fall from `peak` to 0 at `total_steps`.
    """
    if step < schedule.warmup_steps:
        return peak * (step + 1) / schedule.warmup_steps
    if schedule.kind == "step":
        epoch = step // steps_per_epoch
        return peak * schedule.gamma ** sum(epoch >= milestone for milestone in schedule.milestones)
    progress = (step - schedule.warmup_steps) / max(1, total_steps - schedule.warmup_steps)
    if schedule.kind == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * progress))
    return peak * (1 - progress)
