"""The optimizer, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math

import torch
from torch import nn

from configs.schema import Optimizer, Recipe, Schedule


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


def settings_without_effect(
    recipe: Recipe, *, num_images: int, steps_per_epoch: int, total_steps: int
) -> list[str]:
    """What the recipe asks for and this run never comes to: key and remedy, one text each.

    Only to be told: a run that is cut short for a trial has such settings, too.

    Args:
        recipe: all of it.
        num_images: to train with.
        steps_per_epoch: optimizer steps of one pass over them.
        total_steps: of the whole run, as `train.max_steps` leaves it.
    """
    schedule, texts = recipe.schedule, []
    if schedule.milestones and schedule.kind != "step":
        texts.append(
            f"schedule.milestones has no effect with schedule.kind {schedule.kind}: "
            "set it to [] or schedule.kind to step"
        )
    late = [epoch for epoch in schedule.milestones if epoch * steps_per_epoch >= total_steps]
    if late and schedule.kind == "step":
        texts.append(
            f"schedule.milestones has {late}, but the run ends after {total_steps:,} steps of "
            f"{steps_per_epoch:,} an epoch: raise schedule.epochs or lower the milestones"
        )
    if schedule.warmup_steps > total_steps:
        texts.append(
            f"schedule.warmup_steps is {schedule.warmup_steps:,}, but the run ends after "
            f"{total_steps:,} steps and never reaches optimizer.lr: lower it"
        )
    if recipe.train.batch_size > num_images:
        texts.append(
            f"train.batch_size is {recipe.train.batch_size:,}, more than the {num_images:,} "
            "training images, so that each batch repeats some: lower it"
        )
    return texts
