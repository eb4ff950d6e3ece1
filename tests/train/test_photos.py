"""Image files of every kind as 32 x 32 pixels: exact where nothing has to be rounded."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from train import photos
from train.errors import RequestError
from train.photos import find_images, read_photo
from train.prediction import strict_about_bombs

PIXELS = np.random.default_rng(0).integers(256, size=(32, 32, 3), dtype=np.uint8)
GREY = PIXELS[:, :, 0]
ORIENTATION = 0x0112


def rgb(channel: np.ndarray) -> np.ndarray:
    return np.repeat(channel[:, :, None], 3, axis=2)


def with_alpha(alpha: int) -> Image.Image:
    image = Image.fromarray(PIXELS).convert("RGBA")
    image.putalpha(alpha)
    return image


def palette() -> Image.Image:
    """Grey levels by way of a palette in which all are upside down."""
    image = Image.fromarray(255 - GREY)
    image.putpalette([255 - level for level in range(256) for _ in range(3)])
    return image


def turned() -> tuple[Image.Image, dict[str, Any]]:
    """Lying on its side, with a note which way is up."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # to be turned by 90 degrees clockwise
    return Image.fromarray(np.rot90(PIXELS)), {"exif": exif}


def clear_index() -> tuple[Image.Image, dict[str, Any]]:
    return palette(), {"transparency": 0}


SIXTEEN = (np.arange(1024).reshape(32, 32) * 64).astype(np.uint16)
KINDS: dict[str, tuple[Any, str, np.ndarray]] = {
    "RGB": (Image.fromarray(PIXELS), "png", PIXELS),
    "grey": (Image.fromarray(GREY), "png", rgb(GREY)),
    "black and white": (Image.fromarray(GREY > 99), "png", rgb((GREY > 99) * np.uint8(255))),
    "palette": (palette(), "png", rgb(GREY)),
    "palette, one clear": (clear_index(), "png", rgb(np.where(GREY == 255, 255, GREY))),
    "opaque RGBA": (with_alpha(255), "png", PIXELS),
    "clear RGBA": (with_alpha(0), "png", np.full_like(PIXELS, 255)),
    "clear grey": (with_alpha(0).convert("LA"), "png", np.full_like(PIXELS, 255)),
    "16 bits": (Image.fromarray(SIXTEEN), "png", rgb(np.round(SIXTEEN / 257).astype(np.uint8))),
    "16-bit TIFF": (
        Image.fromarray(SIXTEEN),
        "tiff",
        rgb(np.round(SIXTEEN / 257).astype(np.uint8)),
    ),
    "16-bit PGM": (Image.fromarray(SIXTEEN), "pgm", rgb(np.round(SIXTEEN / 257).astype(np.uint8))),
    "turned": (turned(), "png", PIXELS),
    "BMP": (Image.fromarray(PIXELS), "bmp", PIXELS),
    "PPM": (Image.fromarray(PIXELS), "ppm", PIXELS),
    "GIF": (Image.fromarray(GREY), "gif", rgb(GREY)),
    "WebP": ((Image.fromarray(PIXELS), {"lossless": True}), "webp", PIXELS),
    "CMYK": (
        Image.fromarray(PIXELS).convert("CMYK"),
        "tiff",
        np.asarray(Image.fromarray(PIXELS).convert("CMYK").convert("RGB")),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_image_of_32_pixels_is_taken_as_it_is(kind: str, tmp_path: Path) -> None:
    image, ending, expected = KINDS[kind]
    image, options = image if isinstance(image, tuple) else (image, {})
    path = tmp_path / f"image.{ending}"
    image.save(path, **options)

    read = read_photo(path)

    assert (read.dtype, read.shape) == (np.uint8, (32, 32, 3))
    assert np.array_equal(read, expected)


def test_half_transparent_is_half_white(tmp_path: Path) -> None:
    black = Image.new("RGBA", (32, 32), (0, 0, 0, 128))
    black.save(tmp_path / "half.png")

    assert set(read_photo(tmp_path / "half.png").flatten().tolist()) == {127}


@pytest.mark.parametrize("size", [(96, 64), (64, 96), (1001, 640)])
def test_of_a_photograph_only_the_centre_square_counts(
    size: tuple[int, int], tmp_path: Path
) -> None:
    """Red in the middle, blue beside it."""
    width, height = size
    side = min(size)
    image = Image.new("RGB", size, "blue")
    left, top = (width - side) // 2, (height - side) // 2
    image.paste("red", (left, top, left + side, top + side))
    image.save(tmp_path / "middle.png")

    assert np.array_equal(read_photo(tmp_path / "middle.png"), np.full((32, 32, 3), [255, 0, 0]))


def test_a_photograph_is_shrunk_by_means_not_by_leaving_pixels_out(tmp_path: Path) -> None:
    stripes = np.zeros((640, 640, 3), dtype=np.uint8)
    stripes[:, ::2] = 200
    Image.fromarray(stripes).save(tmp_path / "stripes.png")

    assert set(read_photo(tmp_path / "stripes.png").flatten().tolist()) <= {99, 100, 101}


def test_one_pixel_and_a_line_are_images(tmp_path: Path) -> None:
    for size in ((1, 1), (1, 500), (8, 8)):
        Image.new("RGB", size, (10, 20, 30)).save(tmp_path / "small.png")

        assert np.array_equal(
            read_photo(tmp_path / "small.png"), np.full((32, 32, 3), [10, 20, 30])
        )


def save_deep(path: Path) -> None:
    Image.fromarray(SIXTEEN.astype(np.int32)).save(path)


def save_cut(path: Path) -> None:
    Image.fromarray(PIXELS).save(path)
    path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize("kind", ["png", "webp"])
@pytest.mark.parametrize("exif", [b"junkjunkjunk", b"II*\0\x08\0\0\0\x09"])
def test_damaged_notes_on_a_sound_image_are_passed_over(
    tmp_path: Path, kind: str, exif: bytes
) -> None:
    options: dict[str, Any] = {"lossless": True} if kind == "webp" else {}
    Image.fromarray(PIXELS).save(tmp_path / f"a.{kind}", exif=exif, **options)

    assert np.array_equal(read_photo(tmp_path / f"a.{kind}"), PIXELS)


@pytest.mark.parametrize(
    ("name", "save", "words"),
    [
        ("deep.tiff", save_deep, "32 bits a pixel: save it with 8 or 16"),
        ("text.png", lambda path: path.write_text("no image"), "no image in one of these formats"),
        ("empty.png", lambda path: path.touch(), "no image in one of these formats"),
        ("cut.png", save_cut, "truncated"),
        ("gone.png", lambda path: None, "No such file or directory"),
        ("pipe.png", os.mkfifo, "no file"),
        (
            "program.eps",
            lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
            "no image in one of these formats: .*PNG",
        ),
    ],
)
def test_what_cannot_be_read_is_told_why(
    name: str, save: Callable[[Path], Any], words: str, tmp_path: Path
) -> None:
    save(tmp_path / name)

    with pytest.raises(RequestError, match=words):
        read_photo(tmp_path / name)


@pytest.mark.parametrize("side", [40, 400])
def test_bombs_are_refused_from_pillows_limit_on(
    side: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of which Pillow itself only warns up to twice the limit."""
    Image.new("L", (side, 40)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1599)

    with strict_about_bombs(), pytest.raises(RequestError, match="more than 1,599 pixels"):
        read_photo(tmp_path / "bomb.png")


def test_folders_are_searched_by_name_and_other_files_passed_over(tmp_path: Path) -> None:
    for name in (
        "b.png", "a/z.JPG", "a/c/x.webp", "a/notes.txt", "c.tiff", ".hidden.png", ".git/y.png",
        "A.PNG", "page.eps",
    ):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    told: list[Path] = []
    named = tmp_path / "a" / "notes.txt"

    found = find_images([named, tmp_path, named], lambda path, _: told.append(path))

    listed = [str(path.relative_to(tmp_path)) for path in found]
    inside = ["A.PNG", "b.png", "c.tiff", "a/z.JPG", "a/c/x.webp"]
    assert listed == ["a/notes.txt", *inside, "a/notes.txt"]
    assert told == []


def test_every_format_that_is_read_has_a_name_in_folders() -> None:
    assert {".png", ".jpg", ".jpeg", ".webp", ".tif", ".bmp", ".gif", ".ppm"} <= photos.suffixes()
    assert not {".eps", ".ps", ".pdf", ".mpg", ".h5", ".fits"} & photos.suffixes()
