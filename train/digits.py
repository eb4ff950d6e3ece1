"""scikit-learn's handwritten digits as an archive in CIFAR-10's layout, for the quickstart.

Real data that comes with a package: 1,797 digits of 8 x 8 pixels in 17 grey levels, the test set of
Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits" (UCI, 1998), by 13 writers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from train.archive import Images, write_archive
from train.errors import RequestError

HELD_OUT_EVERY = 6


def write_digits(path: Path) -> None:
    """Write the archive at `path`: 1,498 digits to train, every sixth of the set, 299, held out.

    Each 8 x 8 digit becomes 32 x 32 x 3 by repeating pixels and channels.

    Raises:
        RequestError: scikit-learn is not installed, or the folder takes no file.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        raise RequestError(
            "data.source digits needs scikit-learn: pip install scikit-learn"
        ) from None
    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)
    pixels = np.repeat(grey.repeat(4, axis=1).repeat(4, axis=2)[..., None], 3, axis=3)
    labels = digits.target.astype(np.int64)
    held_out = np.arange(len(labels)) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    try:
        write_archive(
            path,
            train=Images(pixels[~held_out], labels[~held_out]),
            test=Images(pixels[held_out], labels[held_out]),
            classes=[str(digit) for digit in digits.target_names],
            replace=False,
        )
    except FileExistsError:
        pass  # where there are no locks another process was faster, and may read it already
    except OSError as error:
        raise RequestError(
            f"data.root {path.parent} does not take the digits ({error.strerror}): "
            "free space there, or set data.root to a folder you may write in"
        ) from None
