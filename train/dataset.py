"""The images as tensors: read once a node, kept in one mapped cache file, held on the device.

The cache is a safetensors file of uint8 pixels. It stands beside the archive or, where that folder
is read-only, in this machine's temporary folder. It appears whole, by a rename, and is used only
for the archive that it was made from.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from configs.schema import ARCHIVE_NAME, Data
from train.archive import check_md5, read_archive
from train.digits import write_digits
from train.errors import RequestError

CACHE_NAME = "cifar-10-python.cache.safetensors"
LOCK_TIMEOUT_S = 600


@dataclass(frozen=True)
class Split:
    """`images` uint8 (N, 32, 32, 3), R G B; `labels` int64 (N,)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """Both splits, the names of the classes, and the MD5 of the archive they came from."""

    train: Split
    test: Split
    classes: list[str]
    md5: str


def load_dataset(data: Data, device: torch.device) -> Dataset:
    """The data set on `device`, cut to the recipe's limits.

    Args:
        data: the recipe's section.
        device: where the images are to live; CIFAR-10 takes 184 MB.

    Raises:
        RequestError: the archive is missing, damaged or not the expected one, or holds fewer
            images than the recipe asks for.
    """
    archive = Path(data.root) / ARCHIVE_NAME
    if data.source == "digits":
        make_folder(archive.parent)
    cache = cache_path(archive)
    with locked(cache):
        if data.source == "digits" and not archive.exists():
            write_digits(archive)
        if not is_current(cache, archive):
            write_cache(cache, archive, data.md5)
    return read_cache(cache, archive, data, device)


def make_folder(folder: Path) -> None:
    """Make `folder` and what is above it; RequestError when that is not allowed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"data.root {folder} cannot be made: {error.strerror}") from None


def cache_path(archive: Path) -> Path:
    """Where the cache of `archive` is or will be.

    Raises:
        RequestError: neither the archive's folder nor the temporary one can be written.
    """
    folder = archive.parent
    if os.access(folder, os.W_OK):
        return folder / CACHE_NAME
    # Private to the user: in a shared temporary folder a foreign file must not pass for ours.
    key = hashlib.sha256(str(archive.resolve()).encode()).hexdigest()[:16]
    scratch = Path(tempfile.gettempdir()) / f"slurm-finetune-{os.getuid()}"
    try:
        scratch.mkdir(mode=0o700, exist_ok=True)
        owner = scratch.lstat().st_uid
    except OSError as error:
        raise RequestError(
            f"the data cache fits neither beside {archive} nor in {scratch}: {error.strerror}"
        ) from None
    if owner != os.getuid() or scratch.is_symlink():
        raise RequestError(f"{scratch} belongs to somebody else: set TMPDIR to a folder of yours")
    return scratch / f"{key}-{CACHE_NAME}"


@contextlib.contextmanager
def locked(cache: Path) -> Iterator[None]:
    """Let one process at a time look for the cache and write it.

    The lock saves work; the rename is what keeps the cache whole. So a file system without locks
    is no reason to stop.

    Raises:
        RequestError: another process held the lock for ten minutes.
    """
    lock = FileLock(f"{cache}.lock", timeout=LOCK_TIMEOUT_S)
    try:
        lock.acquire()
    except Timeout:
        raise RequestError(
            f"another process has held {lock.lock_file} for {LOCK_TIMEOUT_S} s: "
            "see whether a worker hangs, then remove that file"
        ) from None
    except (OSError, NotImplementedError):
        pass
    try:
        yield
    finally:
        lock.release()


def identity(archive: Path) -> str:
    """What tells one archive from another without reading it: its size and modification time."""
    status = archive.stat()
    return f"{status.st_size}-{status.st_mtime_ns}"


def is_current(cache: Path, archive: Path) -> bool:
    """Whether `cache` is whole and was made from `archive` as it is now."""
    if not cache.exists() or not archive.exists():
        return False
    try:
        with safe_open(cache, framework="pt") as file:
            return file.metadata()["identity"] == identity(archive)
    except (SafetensorError, KeyError, TypeError, OSError):
        return False


def write_cache(cache: Path, archive: Path, expected_md5: str) -> None:
    """Read `archive` and write its images to `cache`, whole or not at all."""
    content = read_archive(archive, expected_md5)
    tensors = {
        "train.images": content.train.pixels,
        "train.labels": content.train.labels,
        "test.images": content.test.pixels,
        "test.labels": content.test.labels,
    }
    metadata = {
        "identity": identity(archive),
        "md5": content.md5,
        "classes": json.dumps(content.classes),
    }
    unfinished = cache.with_name(f"{cache.name}.{os.getpid()}.partial")
    try:
        save_file(tensors, unfinished, metadata)
        unfinished.replace(cache)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise RequestError(f"the data cache {cache} cannot be written: {error}") from None


def read_cache(cache: Path, archive: Path, data: Data, device: torch.device) -> Dataset:
    """The data set in `cache`; the MD5 is held against the recipe's even when nothing was read."""
    with safe_open(cache, framework="pt") as file:
        metadata = file.metadata()
        check_md5(archive, metadata["md5"], data.md5)

        def split(name: str, limit: int | None) -> Split:
            labels = file.get_slice(f"{name}.labels")
            available = labels.get_shape()[0]
            if limit is not None and limit > available:
                raise RequestError(
                    f"data.{name}_images asks for {limit:,} images, "
                    f"but {archive} has {available:,}: lower it or set it to null"
                )
            images = file.get_slice(f"{name}.images")
            count = limit or available
            return Split(images[:count].to(device), labels[:count].to(device))

        return Dataset(
            train=split("train", data.train_images),
            test=split("test", data.test_images),
            classes=json.loads(metadata["classes"]),
            md5=metadata["md5"],
        )
