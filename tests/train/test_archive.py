"""The archive reader: what it reads, and what it refuses without harm."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.schema import ARCHIVE_NAME
from train.archive import CIFAR10, Images, read_archive, write_archive
from train.errors import RequestError

CLASSES = ["cat", "dog"]
FOLDER = CIFAR10.folder


def some_images(count: int, seed: int) -> Images:
    source = np.random.default_rng(seed)
    pixels = source.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return Images(pixels, source.integers(0, len(CLASSES), count))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / ARCHIVE_NAME
    write_archive(path, some_images(12, 1), some_images(5, 2), CLASSES)
    return path


@pytest.fixture
def archive_of(tmp_path: Path) -> Callable[..., Path]:
    """Write an archive with the given members, a good one where nothing is said."""

    def write(**members: Any) -> Path:
        rows = np.zeros((3, 3072), dtype=np.uint8)
        good = {
            "batches.meta": {b"label_names": [b"cat", b"dog"]},
            "data_batch_1": {b"data": rows, b"labels": [0, 1, 0]},
            "test_batch": {b"data": rows, b"labels": [1, 1, 0]},
        }
        path = tmp_path / ARCHIVE_NAME
        with tarfile.open(path, "w:gz") as tar:
            for name, content in (good | members).items():
                if content is None:
                    continue
                data = content if isinstance(content, bytes) else pickle.dumps(content, 2)
                info = tarfile.TarInfo(f"{FOLDER}/{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return path

    return write


def test_what_is_written_is_read_back_equal(archive: Path) -> None:
    content = read_archive(archive, "none")

    assert np.array_equal(content.train.pixels, some_images(12, 1).pixels)
    assert np.array_equal(content.train.labels, some_images(12, 1).labels)
    assert np.array_equal(content.test.pixels, some_images(5, 2).pixels)
    assert content.classes == CLASSES


def test_equal_images_make_equal_archives(archive: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.tar.gz"
    write_archive(again, some_images(12, 1), some_images(5, 2), CLASSES)

    assert archive.read_bytes() == again.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.tar.gz", ARCHIVE_NAME]


def test_real_archive_has_cifar10s_pixels_and_labels(real_cifar10: Path) -> None:
    """Channel means and class counts are those of the published data set."""
    content = read_archive(real_cifar10 / ARCHIVE_NAME, "none")

    assert content.train.pixels.shape == (50_000, 32, 32, 3)
    assert np.bincount(content.train.labels).tolist() == [5_000] * 10
    assert np.bincount(content.test.labels).tolist() == [1_000] * 10
    means = content.train.pixels.mean(axis=(0, 1, 2))
    assert means == pytest.approx([125.307, 122.950, 113.865], abs=1e-3)


def test_missing_archive_names_its_place_and_its_source(tmp_path: Path) -> None:
    path = tmp_path / ARCHIVE_NAME

    with pytest.raises(RequestError) as refusal:
        read_archive(path, "none")

    assert str(refusal.value) == (
        f"data.root has no {ARCHIVE_NAME}: bring it from "
        f"https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz and put it at {path}"
    )


def test_md5_is_held_against_the_recipe(archive: Path) -> None:
    md5 = hashlib.md5(archive.read_bytes(), usedforsecurity=False).hexdigest()

    assert read_archive(archive, md5).md5 == md5
    with pytest.raises(RequestError, match=f"has MD5 {md5}, but data.md5 asks for c58f30108f71"):
        read_archive(archive, "official")


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.9])
def test_truncated_archive_is_refused(archive: Path, kept: float) -> None:
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(kept * len(whole)) if kept < 1 else int(kept)])

    with pytest.raises(RequestError, match=r"truncated or damaged|has no member"):
        read_archive(archive, "none")


def test_flipped_byte_is_refused(archive: Path) -> None:
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 0xFF
    archive.write_bytes(bytes(content))

    with pytest.raises(RequestError, match=str(archive)):
        read_archive(archive, "none")


def test_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / ARCHIVE_NAME
    path.write_bytes(gzip.compress(b"<html>404 Not Found</html>" * 100))

    with pytest.raises(RequestError, match="truncated or damaged"):
        read_archive(path, "none")


ROWS = np.zeros((3, 3072), dtype=np.uint8)


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"test_batch": None}, f"it has no member {FOLDER}/test_batch"),
        ({"batches.meta": None}, f"it has no member {FOLDER}/batches.meta"),
        ({"data_batch_1": None}, f"it has no member {FOLDER}/data_batch_1"),
        ({"test_batch": [1, 2]}, f"member {FOLDER}/test_batch is refused: it holds no dictionary"),
        ({"test_batch": b"\x80\x02}"}, f"member {FOLDER}/test_batch is refused: damaged pickle"),
        ({"test_batch": {b"data": ROWS, b"labels": [0, 1]}}, "not one of labels for each"),
        ({"test_batch": {b"data": ROWS, b"labels": [0, 1, 2]}}, "labels outside its 2 classes"),
        ({"test_batch": {b"data": ROWS[:, 1:], b"labels": [0, 1, 1]}}, "no uint8 rows of 3072"),
        ({"test_batch": {b"data": ROWS * 1.0, b"labels": [0, 1, 1]}}, "no uint8 rows of 3072"),
        ({"test_batch": {b"data": ROWS, b"labels": []}}, "not one of labels for each"),
    ],
)
def test_archive_with_other_content_is_refused(
    archive_of: Callable[..., Path], members: dict[str, Any], reason: str
) -> None:
    with pytest.raises(RequestError, match=reason):
        read_archive(archive_of(**members), "none")


@pytest.mark.parametrize(
    "names",
    [None, 3, [], [1, 2], [b"", b"dog"], [b"\xff", b"dog"], ["\x1b[2J"], ["x" * 201], b"cat"],
)
def test_class_names_that_are_no_list_of_texts_are_refused(
    archive_of: Callable[..., Path], names: Any
) -> None:
    path = archive_of(**{"batches.meta": {b"label_names": names}})

    with pytest.raises(RequestError, match=r"batches\.meta has no list of class names, in UTF-8"):
        read_archive(path, "none")


class Malicious:
    """Asks, when unpickled, for a command to be run."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def test_pickle_that_asks_for_code_is_refused_and_not_run(
    archive_of: Callable[..., Path], tmp_path: Path
) -> None:
    mark = tmp_path / "was-here"
    path = archive_of(test_batch={b"data": Malicious(f"touch {mark}"), b"labels": [0]})

    with pytest.raises(RequestError, match=r"asks for posix\.system"):
        read_archive(path, "none")
    assert not mark.exists()
