"""Mixup and cutmix: an image and its label, in part replaced by another one of the batch.

Mixup blends whole images (Zhang et al. 2017, arXiv 1710.09412), cutmix pastes a box of the other
(Yun et al. 2019, arXiv 1905.04899). Both are one map: what each pixel keeps of its own
image, the rest being the other's. As in both papers' code a batch has one map, and the pairs are a
permutation of it.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from configs.schema import Data


def draw_keep(data: Data, height: int, width: int, chance: np.random.Generator) -> Tensor:
    """What each pixel of a batch keeps of its own image, 0 to 1: float32 (height, width)."""
    keep = torch.ones(height, width)
    is_mixed = chance.random() < data.mix_probability
    is_cut = chance.random() < 0.5 if data.mixup and data.cutmix else data.cutmix > 0
    if is_mixed and is_cut:
        share = chance.beta(data.cutmix, data.cutmix)
        side = math.sqrt(1 - share)
        keep[draw_span(height, side, chance), draw_span(width, side, chance)] = 0.0
    elif is_mixed:
        keep.fill_(chance.beta(data.mixup, data.mixup))
    return keep


def draw_span(length: int, share: float, chance: np.random.Generator) -> slice:
    """Rows or columns of a box of `share` of the side, centred anywhere and cut off at the edge."""
    size, centre = int(length * share), int(chance.integers(length))
    return slice(max(0, centre - size // 2), min(length, centre + size // 2))


def mix_images(images: Tensor, partners: Tensor, keep: Tensor) -> Tensor:
    """Each image with its partner, in grey levels that are not rounded.

    Before the resize, where images are small. The resize of floats and the normalisation carry a
    mean over to the mean, so mixup comes out as it would after them; a box comes out with edges as
    soft as those in the pictures, and covers whole pixels of these.

    Args:
        images: uint8 (B, H, W, C).
        partners: the same.
        keep: float32 (H, W), the weight of `images`.

    Returns:
        float32 (B, H, W, C); where `keep` is 1, the image's own values.
    """
    keep = keep[:, :, None]
    return keep * images + (1 - keep) * partners


def mix_labels(labels: Tensor, partners: Tensor, weight: Tensor, num_classes: int) -> Tensor:
    """What each class has of an image and its partner.

    Args:
        labels: int64 (B,).
        partners: the same.
        weight: float32 (), of `labels`.
        num_classes: K.

    Returns:
        float32 (B, K), rows that sum to 1.
    """
    classes = torch.arange(num_classes, device=labels.device)
    mine, other = labels[:, None] == classes, partners[:, None] == classes
    return weight * mine + (1 - weight) * other
