"""The whole state of a training run, as one object."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from configs import Recipe
from configs.continuation import Taken, objections, shaping
from train.average import WeightAverage
from train.distributed import Ranks
from train.errors import RequestError


@dataclass
class Interval:
    """Sums since the last training line, kept on the device so that no step waits for them.

    `loss_sum`: float64 (), loss times images of this rank. `images`: of this rank. `first_bad`:
    int64 (), the first step whose loss was not finite, -1 for none. `seconds`, `data_seconds`: of
    the steps and of their batches, on this rank. `parts`: seconds by part, as Stopwatch names them.
    """

    loss_sum: Tensor
    first_bad: Tensor
    images: int = 0
    steps: int = 0
    seconds: float = 0.0
    data_seconds: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)

    @classmethod
    def empty(cls, device: torch.device) -> Interval:
        """Sums over no step yet."""
        return cls(
            loss_sum=torch.zeros((), dtype=torch.float64, device=device),
            first_bad=torch.full((), -1, dtype=torch.int64, device=device),
        )

    def add(self, loss: Tensor, images: int, step: Tensor) -> None:
        """Add, on the device alone, the mean `loss` () of `images` seen in `step`, int64 ()."""
        self.loss_sum += loss.detach().double() * images
        is_first = ~torch.isfinite(loss.detach()) & (self.first_bad < 0)
        self.first_bad.copy_(torch.where(is_first, step, self.first_bad))

    def count(self, images: int) -> None:
        """Count a step and its images."""
        self.images += images
        self.steps += 1

    def reset(self) -> None:
        """Begin anew, in the same tensors, for a recorded step goes on writing there."""
        self.loss_sum.zero_()
        self.first_bad.fill_(-1)
        self.images, self.steps, self.seconds, self.data_seconds = 0, 0, 0.0, 0.0
        self.parts = {}


@dataclass
class TrainState:
    """Everything that a run needs to go on where it stopped.

    `step`: optimizer steps done. `best`: the best evaluation so far, or None. `last`: the newest.
    `average`: of the weights, where the recipe asks for it. The order of images, their augmentation
    and the learning rate need no entry: they are functions of the step.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    interval: Interval
    average: WeightAverage | None = None
    step: int = 0
    best: dict[str, float] | None = None
    last: dict[str, float] | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def is_evaluated(self) -> bool:
        """Whether `last` are the scores of this very step."""
        return self.last is not None and self.last["step"] == self.step

    @property
    def is_best(self) -> bool:
        """Whether this very step has the best score so far."""
        return self.best is not None and self.best["step"] == self.step

    @property
    def score(self) -> float | None:
        """Top-1 of this very step in percent, None if it was not evaluated."""
        return self.last["accuracy_top-1"] if self.last and self.is_evaluated else None

    @property
    def outcome(self) -> nn.Module:
        """The model that is scored and given away: the average where there is one."""
        return self.average.model if self.average else self.model

    @property
    def models(self) -> dict[str, nn.Module]:
        """All models by their names in a checkpoint, that in training first.

        The average is called as torchvision's training script calls it, so that whoever reads
        others' checkpoints finds it.
        """
        return {"model": self.model} | ({"model_ema": self.average.model} if self.average else {})

    @property
    def statistics(self) -> list[Tensor]:
        """The batch-norm statistics: the part of the models in which ranks differ in training."""
        buffers = (buffer for model in self.models.values() for buffer in model.buffers())
        return [buffer for buffer in buffers if buffer.is_floating_point()]

    def tensors(self) -> list[Tensor]:
        """All that a step changes: the parameters first, the momentum, once there is one, last."""
        momentum = (
            value
            for entry in self.optimizer.state.values()
            for value in entry.values()
            if isinstance(value, Tensor)
        )
        models = (
            tensor
            for model in self.models.values()
            for tensor in (*model.parameters(), *model.buffers())
        )
        return [*models, self.interval.loss_sum, self.interval.first_bad, *momentum]

    def state_dict(self, ranks: Ranks) -> dict[str, Any]:
        """Tensors and plain values only, so that `torch.load(weights_only=True)` reads it.

        A collective call. `model` and, where there is an average, `model_ema` hold the mean of all
        ranks' batch-norm statistics. Under `ranks`, one row a rank, is what only that many ranks
        can go on from bit for bit: each one's own statistics, float32 (ranks, n), and sums, float64
        (ranks, 2).
        """
        rows = ranks.all_gather(flatten(self.statistics))
        interval = self.interval
        images = torch.tensor(interval.images, dtype=torch.float64).to(interval.loss_sum.device)
        sums = ranks.all_gather(torch.stack([interval.loss_sum, images]))
        # In this form the mean of equal rows is that row, to the last bit.
        mean = rows[0] + (rows - rows[0]).mean(dim=0)
        means = iter(unflatten(mean, self.statistics))
        models = {key: with_statistics(model, means) for key, model in self.models.items()}
        return {
            **models,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "best": self.best,
            "last": self.last,
            "seconds": dict(self.seconds),
            "interval": {
                "steps": interval.steps,
                "seconds": interval.seconds,
                "data_seconds": interval.data_seconds,
                "parts": dict(interval.parts),
            },
            "ranks": {"statistics": rows, "sums": sums},
        }

    def load_state_dict(self, saved: dict[str, Any], ranks: Ranks) -> None:
        """Become the state that was `saved`; on another number of ranks, up to rounding."""
        for key, model in self.models.items():
            model.load_state_dict(saved[key])
        rates = [group["lr"] for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(saved["optimizer"])
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate  # set before each step; a number or, on a GPU, a tensor there
        self.step = saved["step"]
        self.best = saved["best"]
        self.last = saved["last"]
        self.seconds = saved["seconds"]
        rows, sums = saved["ranks"]["statistics"], saved["ranks"]["sums"]
        if len(rows) == ranks.world_size:
            for buffer, part in zip(
                self.statistics, unflatten(rows[ranks.rank], self.statistics), strict=True
            ):
                buffer.copy_(part)
            loss_sum, images = sums[ranks.rank]
        else:
            loss_sum, images = sums.sum(dim=0) if ranks.is_main else torch.zeros_like(sums[0])
        self.interval = replace(
            Interval.empty(self.interval.loss_sum.device),
            loss_sum=loss_sum.to(self.interval.loss_sum.device),
            images=int(images),
            **saved["interval"],
        )


def check_same_run(saved: dict[str, Any], recipe: Recipe, steps_per_epoch: int) -> None:
    """Refuse to go on with `saved` under a recipe that asks for another run.

    Raises:
        RequestError: naming the keys that may not differ, with both values and the reason.
    """
    before, now = saved["recipe"], shaping(recipe)
    taken = Taken(saved["step"], -(-saved["step"] // steps_per_epoch))
    refused = objections(before, now, taken)
    if refused:
        problems = [
            f"{key} was {before.get(key)!r} and is {now.get(key)!r}: {reason}"
            for key, reason in refused.items()
        ]
        raise RequestError(
            f"config.yaml is not that of the checkpoint ({'; '.join(problems)}): set it back, or "
            "start a new run from this one's checkpoint by model.weights"
        )


def with_statistics(model: nn.Module, values: Iterator[Tensor]) -> dict[str, Tensor]:
    """The entries of `model`, those of its batch-norm statistics with the next of `values`."""
    entries: dict[str, Tensor] = dict(model.state_dict())
    for name, buffer in model.named_buffers():
        if buffer.is_floating_point():
            entries[name] = next(values)
    return entries


def flatten(tensors: list[Tensor]) -> Tensor:
    """All values in one row (n,)."""
    return torch.cat([tensor.flatten() for tensor in tensors])


def unflatten(row: Tensor, like: list[Tensor]) -> list[Tensor]:
    """The parts of `row` (n,) in the shapes of `like`."""
    parts = row.split([tensor.numel() for tensor in like])
    return [part.view_as(tensor) for part, tensor in zip(parts, like, strict=True)]


def weights_sha256(model: nn.Module) -> str:
    """SHA-256 over name, dtype, shape and bytes of every tensor, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()
