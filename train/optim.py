"""The optimizer, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from configs.schema import Optimizer, Recipe, Schedule
from train.model import ResNet50


def make_optimizer(
    model: ResNet50, config: Optimizer, head_lr_multiplier: float = 1.0
) -> torch.optim.SGD:
    """SGD over all parameters of `model` that are trained, norms and biases included.

    A group whose learning rate is not that of the step has the factor as `lr_multiplier`.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [{"params": trained}]
    if head_lr_multiplier != 1.0:
        head = set(model.fc.parameters())
        body = [parameter for parameter in trained if parameter not in head]
        last = {"params": list(model.fc.parameters()), "lr_multiplier": head_lr_multiplier}
        groups = [{"params": body}, last] if body else [last]
    optimizer = torch.optim.SGD(
        groups,
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.nesterov,
        fused=True,
    )
    for group in optimizer.param_groups:
        if trained and trained[0].is_cuda:
            # A recorded step reads it from the device, so that it can change from step to step.
            group["lr"] = torch.tensor(config.lr, device=trained[0].device)
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Have the next step taken with `lr`, and by each group's multiple of it."""
    for group in optimizer.param_groups:
        value = lr * group.get("lr_multiplier", 1.0)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(value)
        else:
            group["lr"] = value


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
    if recipe.model.freeze_stages is not None and recipe.model.weights is None:
        texts.append(
            "model.freeze_stages keeps layers at their random initial values, for model.weights is "
            "null: name a checkpoint or set model.freeze_stages to null"
        )
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
