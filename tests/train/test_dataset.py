"""The data set's cache: whole, current, written once, or not used."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from configs.schema import ARCHIVE_NAME, Data
from train import dataset as dataset_module
from train.archive import Images, write_archive
from train.dataset import CACHE_NAME, cache_path, load_dataset
from train.distributed import Ranks
from train.errors import RequestError

CPU = torch.device("cpu")


@pytest.fixture
def data(tmp_path: Path) -> Data:
    """Three training and two test images of their own grey level each."""
    write_grey(tmp_path / ARCHIVE_NAME, [10, 20, 30], [40, 50])
    return Data(root=str(tmp_path), md5="none")


def write_grey(path: Path, train: list[int], test: list[int]) -> None:
    def images(levels: list[int]) -> Images:
        pixels = np.stack([np.full((32, 32, 3), level, dtype=np.uint8) for level in levels])
        return Images(pixels, np.zeros(len(levels), dtype=np.int64))

    write_archive(path, images(train), images(test), ["grey", "other"])


def levels(split: dataset_module.Split) -> list[int]:
    return split.images[:, 0, 0, 0].tolist()


def test_images_labels_and_classes_are_the_archives(data: Data) -> None:
    dataset = load_dataset(data, CPU)

    assert levels(dataset.train) == [10, 20, 30]
    assert levels(dataset.test) == [40, 50]
    assert dataset.train.images.shape == (3, 32, 32, 3)
    assert dataset.classes == ["grey", "other"]


def test_limits_keep_the_first_images(data: Data) -> None:
    cut = data.model_copy(update={"train_images": 2, "test_images": 1})
    dataset = load_dataset(cut, CPU)

    assert levels(dataset.train) == [10, 20]
    assert levels(dataset.test) == [40]


def test_more_images_than_there_are_is_refused(data: Data) -> None:
    with pytest.raises(RequestError, match=r"data.test_images asks for 3 images, but .* has 2"):
        load_dataset(data.model_copy(update={"test_images": 3}), CPU)


def test_second_load_does_not_read_the_archive(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    load_dataset(data, CPU)
    monkeypatch.delattr(dataset_module, "read_archive")

    assert levels(load_dataset(data, CPU).train) == [10, 20, 30]


def test_another_archive_replaces_the_cache(data: Data) -> None:
    load_dataset(data, CPU)
    write_grey(Path(data.root) / ARCHIVE_NAME, [60, 70, 80], [90])

    assert levels(load_dataset(data, CPU).train) == [60, 70, 80]


def test_md5_is_checked_even_when_the_cache_is_used(data: Data) -> None:
    load_dataset(data, CPU)

    with pytest.raises(RequestError, match=r"data\.md5 asks for c58f30108f718f92721af3b95e74349a"):
        load_dataset(data.model_copy(update={"md5": "official"}), CPU)


@pytest.mark.parametrize("damage", [b"", b"\x08", b"\xff" * 4096])
def test_damaged_cache_is_made_again(data: Data, damage: bytes) -> None:
    load_dataset(data, CPU)
    (Path(data.root) / CACHE_NAME).write_bytes(damage)

    assert levels(load_dataset(data, CPU).train) == [10, 20, 30]


def test_refused_archive_leaves_no_cache(data: Data) -> None:
    with pytest.raises(RequestError, match="MD5"):
        load_dataset(data.model_copy(update={"md5": "0" * 32}), CPU)

    assert {path.name for path in Path(data.root).iterdir()} <= {
        ARCHIVE_NAME,
        f"{CACHE_NAME}.lock",
    }


def test_read_only_folder_is_cached_in_scratch(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    # Root may write everywhere, so the answer of the file system is what has to be set.
    monkeypatch.setattr(os, "access", lambda path, mode: False)

    assert levels(load_dataset(data, CPU).train) == [10, 20, 30]
    assert scratch in cache_path(Path(data.root) / ARCHIVE_NAME).parents
    assert not (Path(data.root) / CACHE_NAME).exists()


def test_digits_become_an_archive_that_is_read_like_any_other(tmp_path: Path) -> None:
    root = tmp_path / "a" / "new" / "folder"
    data = Data(root=str(root), source="digits", md5="none")
    dataset = load_dataset(data, CPU)

    assert (len(dataset.train), len(dataset.test)) == (1_498, 299)
    assert dataset.classes == [str(digit) for digit in range(10)]
    assert dataset.train.images.max() == 255
    assert (root / ARCHIVE_NAME).is_file()
    assert (root / CACHE_NAME).is_file()


def load_sum(ranks: Ranks, data: Data) -> int:
    return int(load_dataset(data, ranks.device).train.images.sum())


def test_processes_that_start_together_make_one_cache(
    data: Data, on_ranks: Callable[..., list[Any]]
) -> None:
    sums = on_ranks(4, load_sum, data)

    assert sums == [(10 + 20 + 30) * 32 * 32 * 3] * 4
    assert list(Path(data.root).glob("*.partial")) == []
