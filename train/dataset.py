"""The images as tensors: read once a node, kept in one mapped cache file, held on the device."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError

from configs.schema import Data
from train.archive import Archive, check_md5, read_archive
from train.cache import (
    Dataset,
    Split,
    cache_paths,
    copy_cache,
    find_cache,
    identity,
    open_place,
    read_cache,
    scratch_path,
    shared_path,
    take_turn,
    write_cache,
)
from train.digits import write_digits
from train.errors import RequestError
from train.files import remove_unfinished


def load_dataset(data: Data, device: torch.device) -> Dataset:
    """The data set on `device`, cut to the recipe's limits.

    Args:
        data: the recipe's section.
        device: where the images are to live; CIFAR-10 takes 184 MB.

    Raises:
        RequestError: the archive is missing, damaged or not the expected one, or holds fewer
            images than the recipe asks for; or there is no place for the cache.
    """
    archive = Path(data.root) / data.archive
    if data.source == "digits":
        make_folder(archive.parent)
    whole = map_copy(archive, data) if data.local_copy else map_cache(archive, data)
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


def map_copy(archive: Path, data: Data) -> Dataset:
    """The images of `archive`, mapped from a copy of its cache in this node's temporary folder.

    One process a node makes the copy and is the only one to read the shared cache. Where there is
    no place for a copy, the shared cache is mapped and the data set has a remark.

    Raises:
        RequestError: the archive cannot be used, or no place takes the cache.
    """
    try:
        copy = scratch_path(archive)
        open_place(copy.parent, archive)
        if found := read_cache(copy, archive) or make_copy(copy, archive, data):
            return found
        problem = "it does not read back as it was written"
    except OSError as error:
        problem = error.strerror or str(error)
    return replace(
        map_cache(archive, data),
        remark=f"data.local_copy: this node has no copy of the data cache in TMPDIR ({problem}), "
        f"so it maps {shared_path(archive)}",
    )


def make_copy(copy: Path, archive: Path, data: Data) -> Dataset | None:
    """Copy the cache of `archive` to `copy`, or find that another process did; None if in vain.

    Raises:
        OSError: it cannot be copied.
        RequestError: the archive cannot be used, or no place takes the cache.
    """

    def look() -> Dataset | None:
        return read_cache(copy, archive)

    # A lock of its own, under which one process waits for the shared cache: whoever makes that
    # may hold its lock and want the copy's, and here it would be the other way round.
    with take_turn(copy.with_name(f"{copy.name}.copy"), look) as first:
        if first.found:
            return first.found
        map_cache(archive, data)
        with take_turn(copy, look) as second:
            if second.found:  # for the folder of the archive takes no file
                return second.found
            if second.is_locked:
                remove_unfinished(copy)
            copy_cache(shared_path(archive), copy)
        return look()


def map_cache(archive: Path, data: Data) -> Dataset:
    """The images of `archive`, mapped from its cache, which is made where there is none.

    Raises:
        RequestError: the archive cannot be used, or no place takes the cache.
    """
    return find_cache(archive) or make_cache(archive, data)


def make_cache(archive: Path, data: Data) -> Dataset:
    """Read the archive and keep its images in the first place that takes them.

    One process at a time does so; the others find what it made.

    Raises:
        RequestError: the archive cannot be used, or no place takes the cache.
    """
    read = functools.cache(lambda: read_source(archive, data))
    problems = []
    with contextlib.ExitStack() as turns:
        for cache in cache_paths(archive):
            try:
                open_place(cache.parent, archive)
                turn = turns.enter_context(take_turn(cache, lambda: find_cache(archive)))
                if turn.found:
                    return turn.found
                if turn.is_locked:
                    remove_unfinished(cache)
                    if cache.parent == archive.parent:
                        remove_unfinished(archive)  # digits, half written
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
