"""The optimizer, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from configs.schema import Optimizer, Recipe, Schedule
from train.batches import steps_of
from train.model import STAGES, ResNet50


def make_optimizer(
    model: ResNet50,
    config: Optimizer,
    head_lr_multiplier: float = 1.0,
    *,
    has_fixres_tail: bool = False,
) -> torch.optim.SGD:
    """SGD over all parameters of `model` that are trained.

    As few groups as the recipe needs, one where it treats all alike, in the order in which the
    model comes to them. A group whose learning rate is not that of the step has the factor as
    `lr_multiplier`, and one that `schedule.fixres_tail` leaves as it is has `rests_in_tail`.
    """
    groups: dict[str, dict[str, Any]] = {}
    trained = []
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            options: dict[str, Any] = {}
            if module is model.fc and head_lr_multiplier != 1.0:
                options["lr_multiplier"] = head_lr_multiplier
            if not (config.decay_norms_and_biases or is_kernel(module, name)):
                options["weight_decay"] = 0.0
            if has_fixres_tail and isinstance(module, nn.Conv2d):
                options["rests_in_tail"] = True
            group = groups.setdefault(str(options), {"params": [], **options})
            group["params"].append(parameter)
            trained.append(parameter)
    optimizer = torch.optim.SGD(
        list(groups.values()),
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


def is_kernel(module: nn.Module, name: str) -> bool:
    """Whether the parameter `name` of `module` is what it multiplies by, and no norm or bias."""
    return isinstance(module, nn.Conv2d | nn.Linear) and name == "weight"


def set_learning_rate(
    optimizer: torch.optim.Optimizer, lr: float, *, in_tail: bool = False
) -> None:
    """Have the next step taken with `lr`, and by each group's multiple of it.

    `in_tail`: whether that step is one of `schedule.fixres_tail`'s.
    """
    for group in optimizer.param_groups:
        rests = in_tail and group.get("rests_in_tail", False)
        value = 0.0 if rests else lr * group.get("lr_multiplier", 1.0)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(value)
        else:
            group["lr"] = value


def tail_steps(schedule: Schedule, total_steps: int) -> int:
    """Steps at the end of the run in which only the last layer and the batch norms are trained.

    FixRes: what a network has learned at low resolution is fitted to a higher one by these alone
    (Touvron et al. 2019, arXiv 1906.06423).
    """
    return steps_of(schedule.fixres_tail, total_steps)


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
    half_life, tail = recipe.train.ema_half_life, schedule.fixres_tail
    if half_life is not None and half_life * total_steps < 1:
        texts.append(
            f"train.ema_half_life {half_life:g} is less than one of the run's {total_steps:,} "
            "steps, so that the average is next to the model itself: raise it or set it to null"
        )
    if tail and not tail_steps(schedule, total_steps):
        texts.append(
            f"schedule.fixres_tail {tail:g} is less than half of one of the run's {total_steps:,} "
            "steps: raise it or set it to 0"
        )
    if tail and recipe.model.freeze_stages == len(STAGES):
        texts.append(
            "schedule.fixres_tail has no effect with model.freeze_stages 4, by which only the last "
            "layer is trained: set it to 0 or lower model.freeze_stages"
        )
    if not (recipe.optimizer.decay_norms_and_biases or recipe.optimizer.weight_decay):
        texts.append(
            "optimizer.decay_norms_and_biases false has no effect with optimizer.weight_decay 0: "
            "raise that or set this to true"
        )
    if recipe.train.batch_size > num_images:
        texts.append(
            f"train.batch_size is {recipe.train.batch_size:,}, more than the {num_images:,} "
            "training images, so that each batch repeats some: lower it"
        )
    return texts + _shares_without_effect(recipe, total_steps)


def _shares_without_effect(recipe: Recipe, total_steps: int) -> list[str]:
    data, texts, begin = recipe.data, [], 0
    for share, side in recipe.schedule.resolution:
        end = steps_of(share, total_steps)
        if begin == end:
            texts.append(
                f"schedule.resolution has no step at {side} pixels, for the run has "
                f"{total_steps:,}: leave [{share}, {side}] out or make the run longer"
            )
        begin = end
    for key in ("mix_probability", "mix_until"):
        if getattr(data, key) < 1 and not data.is_mixed:
            texts.append(
                f"data.{key} has no effect, for data.mixup and data.cutmix are 0: raise one of "
                f"them or set data.{key} to 1"
            )
    if data.is_mixed and not steps_of(data.mix_until, total_steps):
        texts.append(
            f"data.mix_until is {data.mix_until} of {total_steps:,} steps, which is none, so that "
            "no batch is mixed: raise it, or set data.mixup and data.cutmix to 0"
        )
    return texts
