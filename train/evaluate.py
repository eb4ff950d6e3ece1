"""Evaluation: every test image exactly once, the same integers for any number of ranks."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.schema import Recipe
from train.cache import Split
from train.distributed import Ranks
from train.images import to_input
from train.vote import StopVote


@dataclass(frozen=True)
class Scores:
    """The outcome on N images, on the CPU and the same on every rank.

    `loss`: mean cross-entropy. `top5`: bool (N,), whether the label is among the five most likely.
    `predictions`, `labels`: int64 (N,). `confidences`: float64 (N,), of the prediction. `flip`: the
    scores of the mean outputs for each image and its mirror, where the recipe asks for them.
    """

    loss: float
    top5: Tensor
    predictions: Tensor
    confidences: Tensor
    labels: Tensor
    num_classes: int
    num_batches: int
    flip: Scores | None = None

    @property
    def top1_percent(self) -> float:
        """Share of images whose label is the prediction, in percent."""
        return 100.0 * int((self.predictions == self.labels).sum()) / len(self.labels)

    @property
    def top5_percent(self) -> float:
        """Share of images whose label is among the five most likely classes, in percent."""
        return 100.0 * int(self.top5.sum()) / len(self.labels)

    @property
    def confusion(self) -> Tensor:
        """Counts int64 (classes, classes): rows are true classes, columns predicted ones."""
        cells = self.labels * self.num_classes + self.predictions
        counts = torch.bincount(cells, minlength=self.num_classes**2)
        return counts.view(self.num_classes, self.num_classes)


@torch.no_grad()
def evaluate(
    model: nn.Module,
    split: Split,
    recipe: Recipe,
    ranks: Ranks,
    autocast: AbstractContextManager[None],
    stop: StopVote,
) -> Scores | None:
    """Score `model` (not wrapped for several ranks) on all images of `split`.

    Whole batches are dealt out to the ranks, never padded and never cut anew: a batch has the same
    images, and so the same scores, for any number of ranks. One reduction puts the rows together.

    With `evaluate.flip` what is averaged are the logits, as airbench does it (Jordan 2024, arXiv
    2404.00498, `infer_mirror`); the other scores do not know of it.

    Returns:
        the scores, or None when a stop was agreed on before the last batch.
    """
    batch_size = recipe.evaluate.batch_size
    starts = range(0, len(split), batch_size)
    views = 2 if recipe.evaluate.flip else 1
    # Per image: seen, prediction, its confidence, top-5 hit, loss. float64 holds each exactly.
    rows = torch.zeros(views, len(split), 5, dtype=torch.float64, device=split.images.device)
    was_training = model.training
    model.eval()
    for first in range(0, len(starts), ranks.world_size):
        if stop.is_agreed():
            break
        for start in starts[first : first + ranks.world_size][ranks.rank : ranks.rank + 1]:
            part = slice(start, start + batch_size)
            images = to_input(split.images[part], recipe.data, recipe.data.resolution)
            with autocast:
                logits = model(images).float()
            rows[0, part] = score(logits, split.labels[part])
            if recipe.evaluate.flip:
                with autocast:
                    mirrored = model(images.flip(3)).float()
                rows[1, part] = score((logits + mirrored) / 2, split.labels[part])
    model.train(was_training)
    if stop.has_agreed:
        return None

    tables = ranks.all_reduce(rows).cpu()
    assert (tables[..., 0] == 1).all(), "every image is counted exactly once"
    plain, *averaged = (
        Scores(
            loss=float(table[:, 4].mean()),
            top5=table[:, 3] > 0,
            predictions=table[:, 1].long(),
            confidences=table[:, 2],
            labels=split.labels.cpu(),
            num_classes=recipe.model.num_classes,
            num_batches=len(starts),
        )
        for table in tables
    )
    return replace(plain, flip=averaged[0]) if averaged else plain


def score(logits: Tensor, labels: Tensor) -> Tensor:
    """What is known of each image of a batch: float64 (B, 5), see `evaluate`."""
    confidences, predictions = logits.softmax(dim=1).max(dim=1)
    ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices
    columns = (
        torch.ones_like(labels),
        predictions,
        confidences,
        (ranked == labels[:, None]).any(dim=1),
        F.cross_entropy(logits, labels, reduction="none"),
    )
    return torch.stack([column.double() for column in columns], dim=1)
