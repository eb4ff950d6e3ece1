"""The whole state of a training run, as one object."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class Interval:
    """Sums since the last training line, kept on the device so that no step waits for them.

    `loss_sum`: float64 (), loss times images of this rank. `images`: of this rank. `first_bad`:
    int64 (), the first step whose loss was not finite, -1 for none.
    """

    loss_sum: Tensor
    first_bad: Tensor
    images: int = 0
    steps: int = 0

    @classmethod
    def empty(cls, device: torch.device) -> Interval:
        """Sums over no step yet."""
        return cls(
            loss_sum=torch.zeros((), dtype=torch.float64, device=device),
            first_bad=torch.full((), -1, dtype=torch.int64, device=device),
        )

    def add(self, loss: Tensor, images: int, step: int) -> None:
        """Count `images` with the mean `loss` (), seen in `step`."""
        self.loss_sum += loss.detach().double() * images
        self.images += images
        is_first = ~torch.isfinite(loss.detach()) & (self.first_bad < 0)
        self.first_bad.masked_fill_(is_first, step)


@dataclass
class TrainState:
    """Everything that a run needs to go on where it stopped.

    `step`: optimizer steps done. `best`: the best evaluation so far, or None. `last`: the newest.
    The order of images, their augmentation and the learning rate need no entry: they are functions
    of the step.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    interval: Interval
    step: int = 0
    best: dict[str, float] | None = None
    last: dict[str, float] | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def is_evaluated(self) -> bool:
        """Whether `last` are the scores of this very step."""
        return self.last is not None and self.last["step"] == self.step

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only, so that `torch.load(weights_only=True)` reads it."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "best": self.best,
            "last": self.last,
            "seconds": self.seconds,
            "interval": {
                "loss_sum": self.interval.loss_sum,
                "first_bad": self.interval.first_bad,
                "images": self.interval.images,
                "steps": self.interval.steps,
            },
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Become the state that was `saved`; tensors move to this state's device."""
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step = saved["step"]
        self.best = saved["best"]
        self.last = saved["last"]
        self.seconds = saved["seconds"]
        device = self.interval.loss_sum.device
        interval = saved["interval"]
        self.interval = Interval(
            loss_sum=interval["loss_sum"].to(device),
            first_bad=interval["first_bad"].to(device),
            images=interval["images"],
            steps=interval["steps"],
        )


def weights_sha256(model: nn.Module) -> str:
    """SHA-256 over name, dtype, shape and bytes of every tensor, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()
