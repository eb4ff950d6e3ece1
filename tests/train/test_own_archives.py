"""CIFAR-100 and archives of one's own, in the layout of CIFAR-10's."""

from __future__ import annotations

import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.train import archives
from tests.train.archives import BATCH
from train.archive import CIFAR10, CIFAR100, read_archive
from train.errors import RequestError


def as_published(rows: np.ndarray) -> np.ndarray:
    return rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def test_cifar_100_is_read_with_its_fine_labels(tmp_path: Path) -> None:
    """In the published layout: one batch to train, one to test, and the names in meta."""
    batch = BATCH | {b"fine_labels": [2, 0, 1], b"coarse_labels": [0, 0, 0]}
    parts = {
        "meta": {b"fine_label_names": [b"a", b"b", b"c"], b"coarse_label_names": [b"all"]},
        "train": batch,
        "test": batch | {b"fine_labels": [1, 1, 2]},
    }
    absent = dict.fromkeys(archives.GOOD)
    path = tmp_path / "cifar-100-python.tar.gz"
    archives.write(path, [archives.members(CIFAR100.folder, **absent, **parts)])

    content = read_archive(path, "none")

    assert content.classes == ["a", "b", "c"]
    assert content.train.labels.tolist() == [2, 0, 1]
    assert content.test.labels.tolist() == [1, 1, 2]
    assert np.array_equal(content.test.pixels, as_published(BATCH[b"data"]))


@pytest.mark.parametrize("name", ["meta", "train", "test"])
def test_a_member_that_cifar_100_lacks_is_named(tmp_path: Path, name: str) -> None:
    parts: dict[str, Any] = {
        "meta": {b"fine_label_names": [b"a", b"b"]},
        "train": BATCH | {b"fine_labels": [0, 1, 1]},
        "test": BATCH | {b"fine_labels": [0, 1, 1]},
    }
    del parts[name]
    path = tmp_path / "own.tar.gz"
    absent = dict.fromkeys(archives.GOOD)
    archives.write(path, [archives.members(CIFAR100.folder, **absent, **parts)])

    with pytest.raises(RequestError, match=rf"it has no member cifar-100-python/{name}\."):
        read_archive(path, "none")


def test_an_own_archive_may_have_other_batches_classes_and_keys_of_text(tmp_path: Path) -> None:
    """Batches are taken in the order of their numbers; a README beside them does not disturb."""

    def batch(level: int) -> bytes:
        content = {"data": np.full((1, 3072), level, dtype=np.uint8), "labels": [level]}
        return pickle.dumps(content)

    meta = pickle.dumps({"label_names": ["a", "b", "c", "\u00e9t\u00e9"]})
    names = {"data_batch_10": batch(3), "data_batch_9": batch(1), "test_batch": batch(2)}
    contents = {f"./{CIFAR10.folder}/{name}": content for name, content in names.items()}
    contents |= {f"./{CIFAR10.folder}/batches.meta": meta, "./README": b"text"}
    path = archives.tar_by_tarfile(tmp_path / "own.tar.gz", contents)

    content = read_archive(path, "none")

    assert content.classes == ["a", "b", "c", "\u00e9t\u00e9"]
    assert content.train.labels.tolist() == [1, 3]
    assert content.train.pixels[:, 0, 0, 0].tolist() == [1, 3]
    assert content.test.labels.tolist() == [2]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_common_form_of_tar_is_read(tmp_path: Path, form: int) -> None:
    contents = {
        f"{CIFAR10.folder}/{name}": archives.pickled(each) for name, each in archives.GOOD.items()
    }
    path = archives.tar_by_tarfile(tmp_path / "own.tar.gz", contents, format=form)

    assert read_archive(path, "none").train.labels.tolist() == [0, 1, 0]


def test_a_missing_archive_of_ones_own_has_a_remedy_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "own.tar.gz"

    with pytest.raises(RequestError) as refusal:
        read_archive(path, "none")

    assert str(refusal.value) == (
        f"data.root has no own.tar.gz: set data.archive, or put it at {path}"
    )
