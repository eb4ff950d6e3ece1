"""The optimizer, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from configs.schema import Optimizer, Schedule
from train.model import ResNet50


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
