"""The data set's cache: whole, current, written once, or not used."""

from __future__ import annotations

import errno
import os
import platform
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from configs.archives import ARCHIVE_NAME
from configs.schema import Data
from tests.train.archives import levels, write_grey
from train import cache as cache_module
from train import dataset as dataset_module
from train.archive import Archive, Images
from train.cache import cache_paths, identity, shared_path, write_cache
from train.dataset import load_dataset
from train.digits import write_digits
from train.errors import RequestError

CPU = torch.device("cpu")
CACHE_NAME = shared_path(Path(ARCHIVE_NAME)).name


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


@pytest.mark.parametrize("block", [b"\x00", b"\xff"])
@pytest.mark.parametrize("start", [-20, 4096])
def test_cache_with_lost_blocks_is_made_again(data: Data, block: bytes, start: int) -> None:
    """As a node that lost power leaves them; also when the MD5 of the archive is asked for."""
    md5 = load_dataset(data, CPU).md5
    cache = Path(data.root) / CACHE_NAME
    whole = cache.read_bytes()
    cache.write_bytes(whole[:start] + block * len(whole[start:]))

    dataset = load_dataset(data.model_copy(update={"md5": md5}), CPU)

    assert levels(dataset.train) == [10, 20, 30]
    assert levels(dataset.test) == [40, 50]
    assert (dataset.test.labels == 0).all()


def test_cache_with_changed_facts_is_made_again(data: Data) -> None:
    """The names of the classes are under the sum, too."""
    load_dataset(data, CPU)
    cache = Path(data.root) / CACHE_NAME
    cache.write_bytes(cache.read_bytes().replace(b"grey", b"gray"))

    assert load_dataset(data, CPU).classes == ["grey", "other"]


def test_cache_with_labels_outside_the_classes_is_not_used(data: Data) -> None:
    archive = Path(data.root) / ARCHIVE_NAME
    images = Images(np.zeros((1, 32, 32, 3), dtype=np.uint8), np.array([2]))
    content = Archive(images, images, ["grey", "other"], "0" * 32)
    write_cache(Path(data.root) / CACHE_NAME, content, identity(archive))

    assert levels(load_dataset(data, CPU).train) == [10, 20, 30]


def test_archive_that_changes_while_it_is_read_is_refused(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the cache would hold the old images under the new archive's identity."""
    read_archive = dataset_module.read_archive

    def replaced_meanwhile(path: Path, md5: str) -> Archive:
        content = read_archive(path, md5)
        write_grey(path, [60, 70, 80], [90])
        return content

    monkeypatch.setattr(dataset_module, "read_archive", replaced_meanwhile)
    with pytest.raises(RequestError, match="changed while it was read"):
        load_dataset(data, CPU)
    monkeypatch.undo()

    assert levels(load_dataset(data, CPU).train) == [60, 70, 80]


def test_what_a_killed_writer_left_is_removed(data: Data) -> None:
    left = Path(data.root) / f"{CACHE_NAME}.{platform.node()}.01234567.partial"
    left.touch()
    load_dataset(data, CPU)

    assert not left.exists()


def test_full_folder_is_cached_in_scratch(
    data: Data, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_file = cache_module.whole_file

    def full_beside_the_archive(path: Path) -> Any:
        if path.parent == Path(data.root):
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole_file(path)

    monkeypatch.setattr(cache_module, "whole_file", full_beside_the_archive)

    assert levels(load_dataset(data, CPU).train) == [10, 20, 30]
    assert len(list(scratch.rglob(f"*{CACHE_NAME}"))) == 1


@pytest.fixture
def small_files() -> Iterator[None]:
    """The system refuses to let a file grow beyond 1 MiB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_files")
def test_cache_that_fits_nowhere_is_told_with_both_folders(
    digits_root: Path, tmp_path: Path, scratch: Path
) -> None:
    root = tmp_path / "data"
    root.mkdir()
    shutil.copy(digits_root / ARCHIVE_NAME, root)
    with pytest.raises(RequestError) as refusal:
        load_dataset(Data(root=str(root), md5="none"), CPU)

    private = scratch / f"slurm-finetune-{os.getuid()}"
    assert str(refusal.value) == (
        f"the data cache of {root / ARCHIVE_NAME} fits nowhere "
        f"({root}: File too large; {private}: File too large): "
        "free 200 MB in one of these folders, or set TMPDIR to one that has them"
    )
    assert list(tmp_path.rglob("*.partial")) == []


def test_folder_that_takes_no_digits_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(RequestError) as refusal:
        write_digits(tmp_path / "file" / ARCHIVE_NAME)

    assert str(refusal.value) == (
        f"data.root {tmp_path / 'file'} does not take the digits (Not a directory): "
        "free space there, or set data.root to a folder you may write in"
    )


def test_scratch_of_somebody_else_is_not_used(
    data: Data, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = scratch / "elsewhere"
    elsewhere.mkdir()
    (scratch / f"slurm-finetune-{os.getuid()}").symlink_to(elsewhere)
    monkeypatch.setattr(os, "access", lambda path, mode: False)

    with pytest.raises(RequestError, match="it belongs to somebody else"):
        load_dataset(data, CPU)
    assert list(elsewhere.iterdir()) == []


def test_cache_in_a_read_only_folder_is_used(
    data: Data, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_dataset(data, CPU)
    monkeypatch.setattr(os, "access", lambda path, mode: False)

    assert levels(load_dataset(data, CPU).train) == [10, 20, 30]
    assert list(scratch.iterdir()) == []


@pytest.mark.usefixtures("scratch")
def test_read_only_folder_is_cached_in_scratch(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may write everywhere, so the answer of the file system is what has to be set.
    monkeypatch.setattr(os, "access", lambda path, mode: False)

    assert levels(load_dataset(data, CPU).train) == [10, 20, 30]
    assert cache_paths(Path(data.root) / ARCHIVE_NAME)[1].is_file()
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


def test_digits_that_another_process_has_written_stay(tmp_path: Path) -> None:
    """Where there are no locks, it may be reading them already."""
    path = tmp_path / ARCHIVE_NAME
    write_digits(path)
    before = path.stat()

    write_digits(path)

    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert list(tmp_path.iterdir()) == [path]


def test_two_archives_of_one_folder_have_a_cache_each(data: Data) -> None:
    write_grey(Path(data.root) / "own.tar.gz", [60, 70], [80])
    own = data.model_copy(update={"archive": "own.tar.gz"})
    caches = [shared_path(Path(data.root) / name) for name in (data.archive, own.archive)]

    assert levels(load_dataset(data, CPU).train) == [10, 20, 30]
    assert levels(load_dataset(own, CPU).train) == [60, 70]
    before = [cache.stat() for cache in caches]
    assert levels(load_dataset(data, CPU).train) == [10, 20, 30]
    assert levels(load_dataset(own, CPU).train) == [60, 70]
    assert before == [cache.stat() for cache in caches]


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to(path)])
def test_what_stands_in_a_caches_place_and_is_no_file_does_not_hang(
    data: Data, scratch: Path, make: Callable[[Path], None]
) -> None:
    make(Path(data.root) / CACHE_NAME)

    assert levels(load_dataset(data, CPU).train) == [10, 20, 30]


def test_cache_with_other_tensors_is_not_used(data: Data) -> None:
    """As of images of another size, under a right sum."""
    archive = Path(data.root) / ARCHIVE_NAME
    images = Images(np.zeros((1, 16, 16, 3), dtype=np.uint8), np.array([0]))
    content = Archive(images, images, ["grey", "other"], "0" * 32)
    write_cache(Path(data.root) / CACHE_NAME, content, identity(archive))

    assert levels(load_dataset(data, CPU).train) == [10, 20, 30]
