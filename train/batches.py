"""Which images each step sees and how they are changed: pure functions of (seed, step).

The whole batch is drawn on every worker and then sliced by rank. So any number of workers sees the
same batches, and a run can go on with another number of them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from configs.schema import Data
from train.cache import Split
from train.images import crop, flip, to_input


def derive_seed(seed: int, stream: str, index: int) -> int:
    """A 63-bit seed of its own for each seed, stream of numbers ('order', ...) and index."""
    digest = hashlib.sha256(f"{seed}/{stream}/{index}".encode()).digest()
    return int.from_bytes(digest[:8]) >> 1


def generator(seed: int, stream: str, index: int) -> torch.Generator:
    """A CPU generator that starts from `derive_seed`."""
    return torch.Generator().manual_seed(derive_seed(seed, stream, index))


def steps_per_epoch(num_images: int, batch_size: int) -> int:
    """Optimizer steps of one pass, the last batch being filled up: 1,563 for 50,000 by 32."""
    return -(-num_images // batch_size)


@dataclass(frozen=True)
class Draw:
    """What chance decided for one batch of B images, over all ranks or of one.

    `step` int64 (), from 0; `indices` int64 (B,); `offsets` int64 (B, 2), the crop's top and left;
    `flips` bool (B,).
    """

    step: Tensor
    indices: Tensor
    offsets: Tensor
    flips: Tensor

    def share(self, rank: int, world_size: int) -> Draw:
        """The consecutive rows of one rank.

        Consecutive, so that a micro-batch holds the same images for any number of ranks.
        """
        size = len(self.indices) // world_size
        rows = slice(rank * size, (rank + 1) * size)
        return Draw(self.step, self.indices[rows], self.offsets[rows], self.flips[rows])

    def to(self, device: torch.device) -> Draw:
        """The same on `device`."""
        return Draw(*(pinned(part, device).to(device, non_blocking=True) for part in self.parts()))

    def fill(self, other: Draw) -> None:
        """Take over the values of `other`, in the same tensors."""
        for mine, theirs in zip(self.parts(), other.parts(), strict=True):
            mine.copy_(pinned(theirs, mine.device), non_blocking=True)

    def parts(self) -> list[Tensor]:
        """All tensors, in one order."""
        return [getattr(self, field.name) for field in fields(self)]


def pinned(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` where a GPU can read it by itself, so that copying it there stops nobody."""
    return tensor.pin_memory() if device.type == "cuda" else tensor


class TrainBatches:
    """The training batches of one rank, by step."""

    def __init__(
        self, split: Split, data: Data, *, batch_size: int, seed: int, rank: int, world_size: int
    ) -> None:
        self.split = split
        self.data = data
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.steps_per_epoch = steps_per_epoch(len(split), batch_size)
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
        return Draw(
            step=torch.tensor(step),
            indices=self.order(epoch)[rows % len(self.split)],
            offsets=torch.randint(positions, (self.batch_size, 2), generator=source),
            flips=torch.rand(self.batch_size, generator=source) < self.data.flip,
        )

    def share(self, step: int) -> Draw:
        """What the batch of `step` is on this rank."""
        return self.draw(step).share(self.rank, self.world_size)

    def resolution(self, step: int) -> int:
        """The side in pixels of the images of `step`."""
        return self.data.resolution

    def render(self, draw: Draw, resolution: int) -> tuple[Tensor, Tensor]:
        """The images of a draw of b images that lies on the data set's device.

        Nothing here depends on a value on the device, so a GPU works on it without the host.

        Returns:
            float32 (b, 3, resolution, resolution), channels last, and labels int64 (b,).
        """
        images = crop(self.split.images[draw.indices], draw.offsets, self.data.crop_padding)
        images = to_input(flip(images, draw.flips), self.data, resolution)
        return images, self.split.labels[draw.indices]

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """This rank's share of the batch of `step`, as `render` gives it."""
        return self.render(self.share(step).to(self.split.images.device), self.resolution(step))
