"""The images as tensors: read once a node, kept in one mapped cache file, held on the device.

The cache is a safetensors file of uint8 pixels. It stands beside the archive or, where that folder
takes no file, in this machine's temporary folder. It appears whole, by a rename, and is used only
for the archive that it was made from and only with the SHA-256 that it was written with: every
process sees to that (184 MB take 0.1 s with the processor's SHA instructions).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from configs.schema import ARCHIVE_NAME, Data
from train.archive import Archive, check_md5, read_archive
from train.digits import write_digits
from train.errors import RequestError
from train.files import remove_unfinished, whole_file

CACHE_NAME = "cifar-10-python.cache.safetensors"
LOCK_TIMEOUT_S = 600
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
            images than the recipe asks for; or there is no place for the cache.
    """
    archive = Path(data.root) / ARCHIVE_NAME
    if data.source == "digits":
        make_folder(archive.parent)
    whole = find_cache(archive) or make_cache(archive, data)
    check_md5(archive, whole.md5, data.md5)

    def cut(split: Split, name: str, limit: int | None) -> Split:
        if limit is not None and limit > len(split):
            raise RequestError(
                f"data.{name}_images asks for {limit:,} images, "
                f"but {archive} has {len(split):,}: lower it or set it to null"
            )
        return Split(split.images[:limit].to(device), split.labels[:limit].to(device))

    return replace(
        whole,
        train=cut(whole.train, "train", data.train_images),
        test=cut(whole.test, "test", data.test_images),
    )


def find_cache(archive: Path) -> Dataset | None:
    """What the first sound cache of `archive` holds, on the CPU; None when there is none."""
    return next(filter(None, (read_cache(cache, archive) for cache in cache_paths(archive))), None)


def make_cache(archive: Path, data: Data) -> Dataset:
    """Read the archive and keep its images in the first place that takes them.

    One process at a time does so; the others find what it made.

    Raises:
        RequestError: the archive cannot be used, or no place takes the cache.
    """
    read = functools.cache(lambda: read_source(archive, data))
    problems = []
    with contextlib.ExitStack() as locks:
        for cache in cache_paths(archive):
            try:
                open_place(cache.parent, archive)
                if locks.enter_context(locked(cache)):
                    remove_unfinished(cache)
                if found := find_cache(archive):
                    return found
                write_cache(cache, *read())
            except (OSError, SafetensorError) as error:
                problems.append(f"{cache.parent}: {getattr(error, 'strerror', None) or error}")
                continue
            if found := read_cache(cache, archive):
                return found
            problems.append(f"{cache.parent}: it does not read back as it was written")
    raise RequestError(
        f"the data cache of {archive} fits nowhere ({'; '.join(problems)}): "
        "free 200 MB in one of these folders, or set TMPDIR to one that has them"
    )


def read_source(archive: Path, data: Data) -> tuple[Archive, str]:
    """The content of the archive and its `identity`; digits are written first where asked for.

    Raises:
        RequestError: the archive cannot be used.
    """
    if data.source == "digits" and not archive.exists():
        remove_unfinished(archive)
        write_digits(archive)
    before = identity(archive)  # of a file that is replaced meanwhile, this fits no later look
    content = read_archive(archive, data.md5)
    if identity(archive) != before:
        raise RequestError(f"{archive} changed while it was read: start again when it is complete")
    return content, before


def make_folder(folder: Path) -> None:
    """Make `folder` and what is above it; RequestError when that is not allowed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(
            f"data.root {folder} cannot be made ({error.strerror}): "
            "set data.root to a folder you may write in"
        ) from None


def cache_paths(archive: Path) -> list[Path]:
    """Where the cache of `archive` may be, the better place first."""
    paths = [archive.parent / CACHE_NAME]
    with contextlib.suppress(OSError):  # there may be no temporary folder that works
        key = hashlib.sha256(str(archive.resolve()).encode()).hexdigest()[:16]
        scratch = Path(tempfile.gettempdir()) / f"slurm-finetune-{os.getuid()}"
        paths.append(scratch / f"{key}-{CACHE_NAME}")
    return paths


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
def locked(cache: Path) -> Iterator[bool]:
    """Let one process at a time write the cache; yields whether the lock is held.

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
        yield lock.is_locked
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


def read_cache(cache: Path, archive: Path) -> Dataset | None:
    """What `cache` holds, mapped; None unless it is whole and of `archive` as it is now."""
    try:
        if cache.parent != archive.parent and not is_ours(cache.parent):
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
    for split in (train, test):
        if not 0 <= int(split.labels.min()) <= int(split.labels.max()) < len(classes):
            return None
    return Dataset(train, test, classes, facts["md5"])
