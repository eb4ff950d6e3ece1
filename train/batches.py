"""Which images each step sees and how they are changed: pure functions of (seed, step).

The whole batch is drawn on every worker and then sliced by rank. So any number of workers sees the
same batches, and a run can go on with another number of them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from configs import Recipe
from configs.steps import count_steps, steps_of, steps_per_epoch
from train.cache import Split
from train.images import crop, flip, to_input
from train.mixing import draw_keep, mix_images, mix_labels


def derive_seed(seed: int, stream: str, index: int) -> int:
    """A 63-bit seed of its own for each seed, stream of numbers ('order', ...) and index."""
    digest = hashlib.sha256(f"{seed}/{stream}/{index}".encode()).digest()
    return int.from_bytes(digest[:8]) >> 1


def generator(seed: int, stream: str, index: int) -> torch.Generator:
    """A CPU generator that starts from `derive_seed`."""
    return torch.Generator().manual_seed(derive_seed(seed, stream, index))


@dataclass(frozen=True)
class Draw:
    """What chance decided for one batch of B images, over all ranks or of one.

    `step` int64 (), from 0; `indices` int64 (B,); `offsets` int64 (B, 2), the crop's top and left;
    `flips` bool (B,).

    Only of a recipe that mixes images: `keep` float32 (H, W), what each pixel keeps of its image,
    the rest being the partner's; `label_weight` float32 (), its mean; the partners by
    `partner_indices` and so on, for they may be in another rank's share.
    """

    step: Tensor
    indices: Tensor
    offsets: Tensor
    flips: Tensor
    keep: Tensor | None = None
    label_weight: Tensor | None = None
    partner_indices: Tensor | None = None
    partner_offsets: Tensor | None = None
    partner_flips: Tensor | None = None

    def share(self, rank: int, world_size: int) -> Draw:
        """The consecutive rows of one rank.

        Consecutive, so that a micro-batch holds the same images for any number of ranks.
        """
        size = len(self.indices) // world_size
        rows = slice(rank * size, (rank + 1) * size)
        of_all = ("step", "keep", "label_weight")
        return Draw(
            **{name: part if name in of_all else part[rows] for name, part in self.named_parts()}
        )

    def to(self, device: torch.device) -> Draw:
        """The same on `device`."""
        return Draw(*(pinned(part, device).to(device, non_blocking=True) for part in self.parts()))

    def fill(self, other: Draw) -> None:
        """Take over the values of `other`, in the same tensors."""
        for mine, theirs in zip(self.parts(), other.parts(), strict=True):
            mine.copy_(pinned(theirs, mine.device), non_blocking=True)

    def parts(self) -> list[Tensor]:
        """All tensors, in one order."""
        return [part for _, part in self.named_parts()]

    def named_parts(self) -> list[tuple[str, Tensor]]:
        """The same, each with its name."""
        named = ((field.name, getattr(self, field.name)) for field in fields(self))
        return [(name, part) for name, part in named if part is not None]


def pinned(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` where a GPU can read it by itself, so that copying it there stops nobody."""
    return tensor.pin_memory() if device.type == "cuda" else tensor


class TrainBatches:
    """The training batches of one rank, by step.

    `total_steps`: optimizer steps of the whole run.
    """

    def __init__(self, split: Split, recipe: Recipe, *, rank: int, world_size: int) -> None:
        self.split = split
        self.data = recipe.data
        self.phases = recipe.schedule.resolution
        self.num_classes = recipe.model.num_classes
        self.batch_size = recipe.train.batch_size
        self.seed = recipe.run.seed
        self.rank = rank
        self.world_size = world_size
        self.steps_per_epoch = steps_per_epoch(len(split), self.batch_size)
        self.total_steps = count_steps(recipe, self.steps_per_epoch)
        self._order: tuple[int, Tensor] | None = None

    def order(self, epoch: int) -> Tensor:
        """The permutation of all images in `epoch` (from 0), int64 (N,)."""
        if self._order is None or self._order[0] != epoch:
            source = generator(self.seed, "order", epoch)
            self._order = (epoch, torch.randperm(len(self.split), generator=source))
        return self._order[1]

    def draw(self, step: int) -> Draw:
        """What the batch of `step` (from 0) is, over all ranks.

        The last batch of an epoch is filled up with the epoch's first images, as the samplers of
        MMClassification and torch do, so that every image is seen and every batch has one size.
        """
        epoch, batch = divmod(step, self.steps_per_epoch)
        rows = torch.arange(batch * self.batch_size, (batch + 1) * self.batch_size)
        source = generator(self.seed, "augmentation", step)
        positions = 2 * self.data.crop_padding + 1
        draw = Draw(
            step=torch.tensor(step),
            indices=self.order(epoch)[rows % len(self.split)],
            offsets=torch.randint(positions, (self.batch_size, 2), generator=source),
            flips=torch.rand(self.batch_size, generator=source) < self.data.flip,
        )
        return self._with_partners(draw, step) if self.data.is_mixed else draw

    def _with_partners(self, draw: Draw, step: int) -> Draw:
        """`draw` and what its images are mixed with, from streams of numbers of their own.

        After `data.mix_until`, and in batches that stay clean, they keep all of themselves.
        """
        _, height, width, _ = self.split.images.shape
        keep = torch.ones(height, width)
        if step < steps_of(self.data.mix_until, self.total_steps):
            chance = np.random.default_rng(derive_seed(self.seed, "mixing", step))
            keep = draw_keep(self.data, height, width, chance)
        rows = torch.randperm(self.batch_size, generator=generator(self.seed, "partners", step))
        return replace(
            draw,
            keep=keep,
            label_weight=keep.double().mean().float(),
            partner_indices=draw.indices[rows],
            partner_offsets=draw.offsets[rows],
            partner_flips=draw.flips[rows],
        )

    def share(self, step: int) -> Draw:
        """What the batch of `step` is on this rank."""
        return self.draw(step).share(self.rank, self.world_size)

    def resolution(self, step: int) -> int:
        """The side in pixels of the images of `step`."""
        sides = (side for share, side in self.phases if step < steps_of(share, self.total_steps))
        return next(sides, self.data.resolution)

    def render(self, draw: Draw, resolution: int) -> tuple[Tensor, Tensor]:
        """The images of a draw of b images that lies on the data set's device.

        Nothing here depends on a value on the device, so a GPU works on it without the host.

        Returns:
            float32 (b, 3, resolution, resolution), channels last, and labels int64 (b,), or what
            each class has of an image, float32 (b, classes), where the recipe mixes images.
        """
        images = self.view(draw.indices, draw.offsets, draw.flips)
        labels = self.split.labels[draw.indices]
        if draw.partner_indices is not None:
            partners = self.view(draw.partner_indices, draw.partner_offsets, draw.partner_flips)
            images = mix_images(images, partners, draw.keep)
            others = self.split.labels[draw.partner_indices]
            labels = mix_labels(labels, others, draw.label_weight, self.num_classes)
        return to_input(images, self.data, resolution), labels

    def view(self, indices: Tensor, offsets: Tensor, flips: Tensor) -> Tensor:
        """Images of the data set, cropped and flipped: uint8 (b, H, W, 3)."""
        return flip(crop(self.split.images[indices], offsets, self.data.crop_padding), flips)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """This rank's share of the batch of `step`, as `render` gives it."""
        return self.render(self.share(step).to(self.split.images.device), self.resolution(step))
