"""Image files of any size and kind as the 32 x 32 pixels that the training data were made of.

The network learned from CIFAR's images, which were 32 x 32 before they were resized to
`data.resolution`. So a photograph becomes one of them first: upright, its centre square, brought to
32 x 32 by Pillow's bilinear filter, which takes the mean over all pixels that become one. An image
of 32 x 32 stays as it is, to the last bit.
"""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from train.archive import SIDE
from train.errors import RequestError

# No others: some of Pillow's readers start programs of the system (EPS) or are seldom used.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
Report = Callable[[Path, str], None]


@functools.cache
def readable_formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@functools.cache
def suffixes() -> frozenset[str]:
    """By what the names of images in a folder end, in lower case."""
    formats = readable_formats()
    return frozenset(
        suffix for suffix, name in Image.registered_extensions().items() if name in formats
    )


def find_images(sources: Iterable[Path], report: Report) -> Iterator[Path]:
    """The files in `sources` and the images below its folders, each folder's by name.

    In a folder, hidden files and those whose names do not end as an image's are passed over, and
    links to other folders are not followed. A folder that cannot be listed is told to `report`.
    """
    for source in sources:
        if not os.path.isdir(source):  # noqa: PTH112 - Path's raises where one may not enter
            yield source
            continue

        def tell(error: OSError) -> None:
            report(Path(error.filename), error.strerror or str(error))

        for folder, inner, names in os.walk(source, onerror=tell):
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            for name in sorted(names):
                if not name.startswith(".") and Path(name).suffix.lower() in suffixes():
                    yield Path(folder, name)


def read_photo(path: Path) -> np.ndarray:
    """The image in a file as uint8 (32, 32, 3), R G B.

    Of several frames it is the first one. Transparent parts become white.

    Raises:
        RequestError: it cannot be read; the text does not name the file.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise RequestError("it is no file")
        with path.open("rb") as file, Image.open(file, formats=readable_formats()) as image:
            white = grey_level_of_white(image)
            image.load()
            return np.asarray(shrink(to_rgb(square(upright(image)), white)))
    except RequestError:
        raise
    except Exception as error:  # a damaged file may raise anything
        raise RequestError(reason(error)) from None


def upright(image: Image.Image) -> Image.Image:
    """The image as its EXIF data says that it was taken, or as it is if they are damaged."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged data may raise anything
        return image


def reason(error: Exception) -> str:
    """Why an image cannot be read, in one line."""
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"it has more than {Image.MAX_IMAGE_PIXELS:,} pixels"
    if isinstance(error, Image.UnidentifiedImageError):
        return f"it is no image in one of these formats: {', '.join(readable_formats())}"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.splitlines()[0]


def square(image: Image.Image) -> Image.Image:
    """The square in the middle."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def grey_level_of_white(image: Image.Image) -> int:
    """How white is written in an image as it was opened: 255, or 65535 for 16 bits.

    Raises:
        RequestError: nobody knows.
    """
    # Pillow brings deep PNG and PPM images to 16 bits, also where it holds them in 32.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return 65535
    if image.mode in ("I", "F"):
        raise RequestError("it has 32 bits a pixel: save it with 8 or 16")
    return 255


def to_rgb(image: Image.Image, white: int) -> Image.Image:
    """The image in 8 bits a channel, without transparency; `white` is its grey level of white."""
    if white > 255:
        levels = np.asarray(image.convert("I"))
        return Image.fromarray(((levels * 255 + white // 2) // white).astype(np.uint8)).convert(
            "RGB"
        )
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        colours = image.convert("RGBA")
        image = Image.new("RGBA", image.size, "white")
        image.alpha_composite(colours)
    return image.convert("RGB")


def shrink(image: Image.Image) -> Image.Image:
    """The square image at 32 x 32."""
    return image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
