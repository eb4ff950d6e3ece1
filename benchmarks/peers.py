"""The training steps that others publish, in our words: torchvision's reference and timm's.

Written after references/classification/{train,presets,utils}.py of pytorch/vision and train.py and
timm/data/loader.py of huggingface/pytorch-image-models (commit aa4b585). What is left out of both
is what they print. Both get this project's precision: bf16 autocast has no gradient scaler, which
spares them the one that their float16 needs.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler
from torchvision import transforms

from benchmarks.pictures import Pictures
from configs import Recipe
from train.cache import Split

Batches = Callable[[], Iterator[tuple[Tensor, Tensor]]]


@dataclass(frozen=True)
class Setting:
    """What all rivals have in common."""

    recipe: Recipe
    device: torch.device
    autocast: AbstractContextManager[None]

    @property
    def resolution(self) -> int:
        """Side of the images in pixels."""
        return self.recipe.data.resolution

    @property
    def batch_size(self) -> int:
        """Images a step."""
        return self.recipe.train.batch_size

    def mean_and_std(self) -> tuple[list[float], list[float]]:
        """The recipe's, for pixels from 0 to 1."""
        data = self.recipe.data
        return [value / 255 for value in data.mean], [value / 255 for value in data.std]


class PeerStep:
    """One training step of a peer, to be called again and again between `begin` and `end`.

    Args:
        step: takes images and labels.
        batches: makes an endless iterator over them.
        warm_up: calls before the clock may run: what loading processes have in stock is not made
            in the time that is measured.
    """

    def __init__(
        self, step: Callable[[Tensor, Tensor], None], batches: Batches, warm_up: int = 1
    ) -> None:
        self.warm_up = warm_up
        self._step = step
        self._batches = batches
        self._feed: Iterator[tuple[Tensor, Tensor]] = iter(())

    def begin(self) -> None:
        """Start what loads the images."""
        self._feed = self._batches()

    def end(self) -> None:
        """Stop it, so that it disturbs nobody else."""
        self._feed = iter(())

    def __call__(self) -> None:
        """Take the next batch and the step."""
        self._step(*next(self._feed))


def one_batch(setting: Setting) -> Batches:
    """Random images on the device, the same at every step."""
    shape = (setting.batch_size, 3, setting.resolution, setting.resolution)
    images = torch.randn(shape, device=setting.device)
    labels = torch.randint(
        setting.recipe.model.num_classes, (setting.batch_size,), device=setting.device
    )

    def forever() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield images, labels

    return forever


def again(loader: Any) -> Batches:
    """The batches of a loader, epoch after epoch."""

    def forever() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from loader

    return forever


class Meter:
    """A running mean of numbers, as both loops keep it on the host."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def update(self, value: float, count: int) -> None:
        """Take in the mean of `count` more."""
        self.total += value * count
        self.count += count


def torchvision_step(setting: Setting, split: Split | None, workers: int) -> PeerStep:
    """The step of torchvision's reference: contiguous images, SGD, three values read a step.

    Args:
        setting: what is trained.
        split: the images, loaded as its presets say; None for one batch on the device.
        workers: loading processes.
    """
    recipe, device = setting.recipe, setting.device
    model = torchvision.models.resnet50(num_classes=recipe.model.num_classes).to(device).train()
    criterion = nn.CrossEntropyLoss(label_smoothing=recipe.train.label_smoothing)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=recipe.optimizer.lr,
        momentum=recipe.optimizer.momentum,
        weight_decay=recipe.optimizer.weight_decay,
    )
    losses, top1, top5 = Meter(), Meter(), Meter()

    def step(images: Tensor, labels: Tensor) -> None:
        images, labels = images.to(device), labels.to(device)
        with setting.autocast:
            output = model(images)
            loss = criterion(output, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first, fifth = hits_percent(output, labels, (1, 5))
        losses.update(loss.item(), 1)
        top1.update(first.item(), len(images))
        top5.update(fifth.item(), len(images))

    if split is None:
        return PeerStep(step, one_batch(setting))
    mean, std = setting.mean_and_std()
    preset = transforms.Compose(
        [
            transforms.RandomResizedCrop(setting.resolution),
            transforms.RandomHorizontalFlip(),
            transforms.PILToTensor(),
            transforms.ConvertImageDtype(torch.float),
            transforms.Normalize(mean, std),
        ]
    )
    pictures = Pictures(split, preset)
    loader = DataLoader(
        pictures,
        batch_size=setting.batch_size,
        sampler=RandomSampler(pictures),
        num_workers=workers,
        pin_memory=device.type == "cuda",
        drop_last=True,  # a smaller last batch would be another amount of work
    )
    return PeerStep(step, again(loader), warm_up=1 + stock(workers))


def hits_percent(output: Tensor, labels: Tensor, sizes: tuple[int, ...]) -> list[Tensor]:
    """Share of rows whose label is among their k highest values, in percent, for each k."""
    with torch.no_grad():
        ranked = output.topk(max(sizes), dim=1).indices.t()
        hits = ranked == labels[None]
        return [
            hits[:size].flatten().sum(dtype=torch.float32) * (100 / len(labels)) for size in sizes
        ]


def stock(workers: int) -> int:
    """Batches that loading processes have ready: torch's DataLoader asks each for two ahead."""
    return 2 * workers


def has_timm() -> bool:
    """Whether timm can be imported; it is no dependency."""
    return importlib.util.find_spec("timm") is not None


def timm_step(setting: Setting, split: Split | None, workers: int) -> PeerStep:
    """The step of timm's train.py with --channels-last --amp-dtype bfloat16 --opt sgd.

    Its loader normalises on the device. Its colour jitter is off, for the others have none.

    Args:
        setting: what is trained.
        split: the images, loaded by its loader; None for one batch on the device.
        workers: loading processes.
    """
    import timm
    import timm.data
    import timm.loss
    import timm.optim

    recipe, device = setting.recipe, setting.device
    model = timm.create_model("resnet50", num_classes=recipe.model.num_classes)
    model = model.to(device).to(memory_format=torch.channels_last).train()
    smoothing = recipe.train.label_smoothing
    criterion = (
        timm.loss.LabelSmoothingCrossEntropy(smoothing) if smoothing else nn.CrossEntropyLoss()
    )
    optimizer = timm.optim.create_optimizer_v2(
        model,
        opt="sgd",
        lr=recipe.optimizer.lr,
        momentum=recipe.optimizer.momentum,
        weight_decay=recipe.optimizer.weight_decay,
    )
    losses = Meter()

    def step(images: Tensor, labels: Tensor) -> None:
        images, labels = images.to(device), labels.to(device)
        images = images.contiguous(memory_format=torch.channels_last)
        with setting.autocast:
            loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        losses.update(loss.item(), len(images))
        optimizer.zero_grad()

    if split is None:
        return PeerStep(step, one_batch(setting))
    mean, std = setting.mean_and_std()
    loader = timm.data.create_loader(
        Pictures(split),
        input_size=(3, setting.resolution, setting.resolution),
        batch_size=setting.batch_size,
        is_training=True,
        color_jitter=None,
        interpolation="bilinear",
        mean=tuple(mean),
        std=tuple(std),
        num_workers=workers,
        pin_memory=device.type == "cuda",
        device=device,
        persistent_workers=False,
    )
    return PeerStep(step, again(loader), warm_up=2 + stock(workers))
