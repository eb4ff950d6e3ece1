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
    rows = offsets[:, 0, None] + torch.arange(height, device=images.device)
    columns = offsets[:, 1, None] + torch.arange(width, device=images.device)
    image = torch.arange(count, device=images.device)
    return padded[image[:, None, None], rows[:, :, None], columns[:, None, :]]


def flip(images: Tensor, flips: Tensor) -> Tensor:
    """Mirror the images (B, H, W, C) for which `flips`, bool (B,), says so, left to right."""
    return torch.where(flips[:, None, None, None], images.flip(2), images)


def resize(images: Tensor, resolution: int) -> Tensor:
    """Bring the images (B, C, H, W) to `resolution` as Pillow's bilinear filter does.

    uint8 images come out equal to Pillow's bit for bit, floats within one grey level of that.
    """
    if images.shape[-1] == resolution:
        return images
    # antialias matters when shrinking only, and is what Pillow always does.
    return F.interpolate(images, (resolution, resolution), mode="bilinear", antialias=True)


@functools.cache
def channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    """One value a channel, float32 (1, C, 1, 1), made once a device.

    Made anew for each batch, the copy to a GPU would make the host wait for all the work before it.
    """
    return torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1)


def to_input(images: Tensor, data: Data, resolution: int) -> Tensor:
    """Resize and normalise, as the network takes it.

    On a CPU the resize of uint8 equals Pillow's bilinear filter bit for bit; on a GPU it works on
    floats and stays within one grey level of that.

    Args:
        images: grey levels, uint8 or float32 (B, H, W, 3).
        data: the recipe's section, for the mean and the standard deviation.
        resolution: side in pixels of what comes out.

    Returns:
        float32 (B, 3, resolution, resolution), channels last.
    """
    batch = images.permute(0, 3, 1, 2)  # a view: NHWC in memory is what channels_last means
    if batch.device.type != "cpu":
        batch = batch.float()
    batch = resize(batch, resolution).float()
    mean = channels(tuple(data.mean), batch.device)
    std = channels(tuple(data.std), batch.device)
    return ((batch - mean) / std).contiguous(memory_format=torch.channels_last)
