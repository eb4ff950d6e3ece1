"""Crop, flip, resize and normalise whole batches on the device they live on.

The order is that of the configuration we match: zero padding on raw pixels, crop, flip, bilinear
resize as Pillow does it, and normalisation last.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from configs.schema import Data

CACHED_VALUES = 2**18  # float32: a megabyte, of the two that a core's second cache has today


def crop(images: Tensor, offsets: Tensor, padding: int) -> Tensor:
    """Cut a window of the original size out of each zero-padded image.

    Args:
        images: uint8 (B, H, W, C).
        offsets: int64 (B, 2), top and left of the window, 0 to 2 * padding; the middle is
            `padding`.
        padding: zero pixels on each side.

    Returns:
        uint8 (B, H, W, C).
    """
    if padding == 0:
        return images
    count, height, width, _ = images.shape
    padded = F.pad(images, (0, 0, padding, padding, padding, padding))
    # A view of all windows, (B, tops, lefts, H, W, C): each is taken as a whole, not by its pixels.
    windows = padded.unfold(1, height, 1).unfold(2, width, 1).permute(0, 1, 2, 4, 5, 3)
    return windows[torch.arange(count, device=images.device), offsets[:, 0], offsets[:, 1]]


def flip(images: Tensor, flips: Tensor) -> Tensor:
    """Mirror the images (B, H, W, C) for which `flips`, bool (B,), says so, left to right."""
    return torch.where(flips[:, None, None, None], images.flip(2), images)


def resize(images: Tensor, resolution: int) -> Tensor:
    """Bring the images (B, C, H, W) to `resolution` as Pillow's bilinear filter does.

    uint8 images come out equal to Pillow's bit for bit, floats within one grey level of that.
    """
    if images.shape[-1] == resolution:
        return images
    # It matters when shrinking only, costs time on floats, and for uint8 is Pillow's arithmetic.
    antialias = images.dtype == torch.uint8 or resolution < images.shape[-1]
    return F.interpolate(images, (resolution, resolution), mode="bilinear", antialias=antialias)


@functools.cache
def channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    """One value a channel, float32 (1, C, 1, 1), made once a device.

    Made anew for each batch, the copy to a GPU would make the host wait for all the work before it.
    """
    return torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1)


def to_input(images: Tensor, data: Data, resolution: int) -> Tensor:
    """Resize and normalise, as the network takes it.

    On a CPU the resize of uint8 equals Pillow's bilinear filter bit for bit. On a GPU small images
    are normalised first, for a weighted mean of normalised values is the normalised mean, and the
    result stays within one grey level of Pillow's.

    Args:
        images: grey levels, uint8 or float32 (B, H, W, 3).
        data: the recipe's section, for the mean and the standard deviation.
        resolution: side in pixels of what comes out.

    Returns:
        float32 (B, 3, resolution, resolution), channels last.
    """
    batch = images.permute(0, 3, 1, 2)  # a view: NHWC in memory is what channels_last means
    mean = channels(tuple(data.mean), batch.device)
    std = channels(tuple(data.std), batch.device)
    if batch.device.type == "cpu":
        return normalise(resize(batch, resolution).permute(0, 2, 3, 1), mean, std)
    batch = resize((batch.float() - mean) / std, resolution)
    return batch.contiguous(memory_format=torch.channels_last)


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """`(images - mean) / std` on a CPU, four times as fast as this, and equal to the last bit.

    Line by line, so that a processor works on many channels at once, and a megabyte at a time, so
    that the three passes over it find it in the cache.

    Args:
        images: uint8 or float32 (B, H, W, C).
        mean: one value a channel, float32 (1, C, 1, 1).
        std: likewise.

    Returns:
        float32 (B, C, H, W), channels last.
    """
    count, height, width, depth = images.shape
    lines = images.reshape(count, height, width * depth)
    subtracted, divided = (values.flatten().repeat(width) for values in (mean, std))
    normalised = torch.empty(lines.shape)
    size = max(1, CACHED_VALUES // (height * width * depth))
    for source, target in zip(lines.split(size), normalised.split(size), strict=True):
        target.copy_(source).sub_(subtracted).div_(divided)
    return normalised.view(images.shape).permute(0, 3, 1, 2)
