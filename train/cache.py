"""The cache of an archive: one safetensors file of uint8 pixels that every process of a node maps.

It stands beside the archive or, where that folder takes no file, in this machine's temporary
folder. It appears whole, by a rename, and is used only for the archive that it was made from and
only with the SHA-256 that it was written with: every process sees to that (184 MB take 0.1 s with
the processor's SHA instructions).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import inspect
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from train.archive import SIDE, Archive
from train.errors import RequestError
from train.files import whole_file

LOCK_TIMEOUT_S = 600
LOOK_AGAIN_S = 1.0
# Where there are no locks, some versions would wait for a file that a killed process leaves.
LOCK_OPTIONS = (
    {"fallback_to_soft": False}
    if "fallback_to_soft" in inspect.signature(FileLock.__init__).parameters
    else {}
)
NAMES = ("train.images", "train.labels", "test.images", "test.labels")


@dataclass(frozen=True)
class Split:
    """`images` uint8 (N, 32, 32, 3), R G B; `labels` int64 (N,)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """Both splits, the names of the classes, and the MD5 of the archive they came from.

    `remark`: what a person should know of how they came here; empty if nothing.
    """

    train: Split
    test: Split
    classes: list[str]
    md5: str
    remark: str = ""


@dataclass(frozen=True)
class Turn:
    """What another process has made meanwhile, if anything, and whether the lock is held."""

    found: Dataset | None
    is_locked: bool


def shared_path(archive: Path) -> Path:
    """The cache of `archive` beside it; each archive of a folder has its own."""
    return archive.with_name(f"{archive.name.removesuffix('.tar.gz')}.cache.safetensors")


def scratch_path(archive: Path) -> Path:
    """The cache of `archive` in this machine's temporary folder.

    Raises:
        OSError: there is no such folder that works.
    """
    key = hashlib.sha256(str(archive.resolve()).encode()).hexdigest()[:16]
    scratch = Path(tempfile.gettempdir()) / f"slurm-finetune-{os.getuid()}"
    return scratch / f"{key}-{shared_path(archive).name}"


def cache_paths(archive: Path) -> list[Path]:
    """Where the cache of `archive` may be, the better place first."""
    paths = [shared_path(archive)]
    with contextlib.suppress(OSError):
        paths.append(scratch_path(archive))
    return paths


def find_cache(archive: Path) -> Dataset | None:
    """What the first sound cache of `archive` holds, on the CPU; None when there is none."""
    return next(filter(None, (read_cache(cache, archive) for cache in cache_paths(archive))), None)


def open_place(folder: Path, archive: Path) -> None:
    """See that a cache may be written in `folder`, and make the temporary one.

    Raises:
        OSError: it may not.
    """
    if folder == archive.parent:
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, "it cannot be written")
        return
    folder.mkdir(mode=0o700, exist_ok=True)
    if not is_ours(folder):
        raise PermissionError(errno.EPERM, "it belongs to somebody else")


def is_ours(folder: Path) -> bool:
    """Whether `folder` is a folder of this user.

    In a shared temporary folder somebody else's file must not pass for ours.
    """
    status = folder.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()


@contextlib.contextmanager
def take_turn(name: Path, look: Callable[[], Dataset | None]) -> Iterator[Turn]:
    """Wait until the lock `name` is ours or another process has made what `look` finds.

    The lock saves work; the rename is what keeps a cache whole. So a file system without locks
    is no reason to stop. The system frees the lock of a process that is killed.

    Raises:
        RequestError: another process held the lock for ten minutes and made nothing.
    """
    lock = FileLock(f"{name}.lock", **LOCK_OPTIONS)
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    found = None
    while not lock.is_locked and not found:
        try:
            lock.acquire(timeout=LOOK_AGAIN_S)
        except Timeout:
            found = look()
            if not found and time.monotonic() > deadline:
                raise RequestError(
                    f"another process has held {lock.lock_file} for {LOCK_TIMEOUT_S} s: "
                    "see whether a worker hangs, then remove that file"
                ) from None
        except (OSError, NotImplementedError):
            break
    try:
        yield Turn(found or look(), lock.is_locked)
    finally:
        lock.release()


def identity(archive: Path) -> str:
    """What tells one archive from another without reading it: its size and modification time.

    Empty when there is none.
    """
    try:
        status = archive.stat()
    except OSError:
        return ""
    return f"{status.st_size}-{status.st_mtime_ns}"


def seal(facts: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over all that a cache holds, as hex digits."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, values in sorted(arrays.items()):
        digest.update(f"{name} {values.dtype} {values.shape}\n".encode())
        digest.update(values.data)
    return digest.hexdigest()


def write_cache(cache: Path, content: Archive, source: str) -> None:
    """Write the images of the archive whose `identity` was `source` before it was read.

    Raises:
        OSError, SafetensorError: it cannot be written; what was there still is.
    """
    splits = (content.train.pixels, content.train.labels, content.test.pixels, content.test.labels)
    arrays = dict(zip(NAMES, splits, strict=True))
    facts = {"identity": source, "md5": content.md5, "classes": json.dumps(content.classes)}
    facts["sha256"] = seal(facts, arrays)
    # safetensors' own way to a file does not tell of a disk that fills up at the very end.
    packed = save(arrays, facts)
    with whole_file(cache) as file:
        file.write(packed)


def copy_cache(cache: Path, copy: Path) -> None:
    """Copy a cache; whoever uses the copy checks it like any other.

    Raises:
        OSError: it cannot be copied; what was there still is.
    """
    with cache.open("rb") as source, whole_file(copy) as target:
        shutil.copyfileobj(source, target, 2**20)


def read_cache(cache: Path, archive: Path) -> Dataset | None:
    """What `cache` holds, mapped; None unless it is whole and of `archive` as it is now."""
    try:
        is_safe = cache.parent == archive.parent or is_ours(cache.parent)
        if not is_safe or not cache.is_file():  # opening a FIFO would wait for ever
            return None
        with safe_open(cache, framework="pt") as file:
            facts = dict(file.metadata())
            if not facts["identity"] or facts["identity"] != identity(archive):
                return None
            tensors = {name: file.get_tensor(name) for name in NAMES}
        sha256 = facts.pop("sha256")
        if seal(facts, {name: tensor.numpy() for name, tensor in tensors.items()}) != sha256:
            return None
        classes = json.loads(facts["classes"])
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OSError):
        return None
    parts = [tensors[name] for name in NAMES]
    train, test = Split(*parts[:2]), Split(*parts[2:])
    is_whole = all(is_sound(split, len(classes)) for split in (train, test))
    return Dataset(train, test, classes, facts["md5"]) if is_whole else None


def is_sound(split: Split, num_classes: int) -> bool:
    """Whether a split holds images and a label of the classes for each."""
    images, labels = split.images, split.labels
    if images.dtype != torch.uint8 or images.shape[1:] != (SIDE, SIDE, 3) or not len(images):
        return False
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        return False
    return 0 <= int(labels.min()) <= int(labels.max()) < num_classes
