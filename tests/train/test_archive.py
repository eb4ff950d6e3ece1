"""The archive reader: what it reads, and what it refuses without harm."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.archives import ARCHIVE_NAME
from tests.train.archives import BATCH, python2_batch
from train import archive as archive_module
from train.archive import CIFAR10, Images, read_archive, write_archive
from train.batchpickles import read_pickle
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
    [None, 3, [], [1, 2], ["", "dog"], [b"\xff", b"dog"], ["\x1b[2J"], ["x" * 201], b"cat"],
)
def test_class_names_that_are_no_list_of_texts_are_refused(
    archive_of: Callable[..., Path], names: Any
) -> None:
    path = archive_of(**{"batches.meta": {b"label_names": names}})

    with pytest.raises(RequestError, match=r"batches\.meta has no list of class names, in UTF-8"):
        read_archive(path, "none")


@pytest.mark.parametrize("protocol", range(1, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_batch_of_any_protocol_is_read_as_pythons_own_unpickler_reads_it(
    protocol: int, order: Any
) -> None:
    batch = {
        b"data": np.asarray(BATCH[b"data"], order=order),
        b"labels": [0, 1, 255],
        b"filenames": [b"a.png", b"b.png", b"a.png"],
        b"other": np.arange(6, dtype=">i4").reshape(2, 3),
        b"plain": (None, True, False, 1.5, -(2**70), "text", {b"x": [(), (1,), (1, 2)]}),
    }
    content = pickle.dumps(batch, protocol)

    found = read_pickle(content)

    expected = pickle.loads(content, encoding="bytes")  # noqa: S301 - of our own making
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert np.array_equal(found[key], value) if isinstance(value, np.ndarray) else True
        assert isinstance(value, np.ndarray) or found[key] == value


def test_a_batch_of_python_2_is_read_as_pythons_own_unpickler_reads_it() -> None:
    found = read_pickle(python2_batch())

    expected = pickle.loads(python2_batch(), encoding="bytes")  # noqa: S301 - of our own making
    assert np.array_equal(found.pop(b"data"), expected.pop(b"data"))
    assert found == expected
    assert found[b"filenames"] == [b"a.png", b"b.png", b"c.png"]


def test_more_images_than_a_batch_takes_are_written_as_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_module, "IMAGES_PER_BATCH", 5)
    path = tmp_path / "own.tar.gz"
    write_archive(path, some_images(12, 1), some_images(5, 2), CLASSES)

    with tarfile.open(path) as tar:
        names = [name.rpartition("/")[2] for name in tar.getnames()]
    assert names == ["batches.meta", "data_batch_1", "data_batch_2", "data_batch_3", "test_batch"]
    assert np.array_equal(read_archive(path, "none").train.pixels, some_images(12, 1).pixels)


def test_what_is_written_is_read_by_torchvision(archive: Path, tmp_path: Path) -> None:
    from torchvision import datasets

    class Unchecked(datasets.CIFAR10):
        train_list = (("data_batch_1", ""),)

        def _check_integrity(self) -> bool:
            return True

        def _load_meta(self) -> None:
            meta = Path(self.root, self.base_folder, "batches.meta").read_bytes()
            self.classes = pickle.loads(meta, encoding="latin1")["label_names"]  # noqa: S301 - ours

    with tarfile.open(archive) as tar:
        # Pythons before 3.11.4 know no filter, later ones warn without.
        safely: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        tar.extractall(tmp_path, **safely)  # noqa: S202 - ours
    theirs = Unchecked(str(tmp_path))

    assert np.array_equal(theirs.data, some_images(12, 1).pixels)
    assert theirs.targets == some_images(12, 1).labels.tolist()
    assert theirs.classes == CLASSES
