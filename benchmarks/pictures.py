"""The images that a benchmark works on: the archive that is given, or scikit-learn's digits."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from configs.archives import ARCHIVE_NAME
from configs.schema import Data
from train.cache import Split
from train.dataset import load_dataset
from train.digits import write_digits

# Held until the process ends, which removes it.
_folders: list[tempfile.TemporaryDirectory[str]] = []


@functools.cache
def digits_root() -> Path:
    """A temporary folder with the digits in CIFAR-10's archive layout, written once a process."""
    _folders.append(tempfile.TemporaryDirectory())
    root = Path(_folders[-1].name)
    write_digits(root / ARCHIVE_NAME)
    return root


def training_images(data_root: Path | None) -> Split:
    """The training images of the archive in `data_root`, or the digits, on the CPU."""
    data = Data(root=str(data_root or digits_root()), md5="none")
    return load_dataset(data, torch.device("cpu")).train


class Pictures(torch.utils.data.Dataset[tuple[Any, int]]):
    """The images of a split one by one, as torchvision's CIFAR10 gives them to its transforms.

    Args:
        split: the images.
        transform: from a Pillow image to what is given out; timm sets its own.
    """

    def __init__(self, split: Split, transform: Callable[[Image.Image], Any] | None = None) -> None:
        self.pixels = split.images.numpy()
        self.labels = split.labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        assert self.transform is not None
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]
