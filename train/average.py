"""The moving average of a model's weights, which is steadier than the model itself."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor, nn


class WeightAverage:
    """An exponential moving average of a model in training, batch-norm statistics included.

    After each step every number of it becomes d times itself and 1 - d times the model's, where d
    is min(D, (1 + n) / (10 + n)) in step n (from 0). D halves what is left of a step in `half_life`
    more; the other term is the ramp of TensorFlow's tf.train.ExponentialMovingAverage (argument
    `num_updates`), by which the start is soon forgotten.

    Args:
        source: the model, on its device and with its first weights.
        half_life: in optimizer steps, above 0.
    """

    def __init__(self, source: nn.Module, half_life: float) -> None:
        self.model = copy.deepcopy(source).eval()
        # Of D, exactly also where that is next to 1.
        self._least_share = -math.expm1(-math.log(2) / half_life)
        mine, theirs = list(moving(self.model)), list(moving(source))
        self._numbers = [tensor for tensor in mine if tensor.is_floating_point()]
        self._new_numbers = [tensor for tensor in theirs if tensor.is_floating_point()]
        self._counters = [tensor for tensor in mine if not tensor.is_floating_point()]
        self._new_counters = [tensor for tensor in theirs if not tensor.is_floating_point()]

    @torch.no_grad()
    def update(self, step: Tensor) -> None:
        """Take in the model as it is after `step`, int64 () from 0 on its device.

        Nothing here waits for the device or asks what lies there.
        """
        share = (9 / (10 + step)).clamp(min=self._least_share)  # 1 - d
        # Towards the model in three passes, for a share on the device is no argument of
        # torch._foreach_lerp_; in place, for the weights have no second copy to spare.
        torch._foreach_sub_(self._numbers, self._new_numbers)
        torch._foreach_mul_(self._numbers, 1 - share)
        torch._foreach_add_(self._numbers, self._new_numbers)
        if self._counters:  # none where every norm is frozen
            torch._foreach_copy_(self._counters, self._new_counters)


def moving(model: nn.Module) -> Iterator[Tensor]:
    """All of `model` that training changes: what is frozen stays the same to the last bit."""
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if any(parameter.requires_grad for parameter in own):
            yield from chain(own, module.buffers(recurse=False))
