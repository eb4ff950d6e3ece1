"""`data.local_copy`: one copy of the cache in the node's scratch, or a word why not."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from configs.archives import ARCHIVE_NAME
from configs.schema import Data
from tests.train.archives import levels
from train import cache as cache_module
from train import dataset as dataset_module
from train.cache import shared_path
from train.dataset import load_dataset

CPU = torch.device("cpu")
CACHE_NAME = shared_path(Path(ARCHIVE_NAME)).name


def test_local_copy_is_mapped_and_the_shared_cache_stays(data: Data, scratch: Path) -> None:
    local = data.model_copy(update={"local_copy": True})
    shared = Path(data.root) / CACHE_NAME

    dataset = load_dataset(local, CPU)

    [copy] = scratch.rglob(f"*{CACHE_NAME}")
    assert (levels(dataset.train), dataset.remark) == ([10, 20, 30], "")
    assert copy.read_bytes() == shared.read_bytes()
    mapped = Path("/proc/self/maps").read_text()
    assert str(copy) in mapped
    assert str(shared) not in mapped


def test_a_sound_shared_cache_is_copied_and_not_built_again(
    data: Data, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_dataset(data, CPU)
    for name in ("read_archive", "write_cache"):
        monkeypatch.delattr(dataset_module, name)

    dataset = load_dataset(data.model_copy(update={"local_copy": True}), CPU)

    assert levels(dataset.train) == [10, 20, 30]
    assert len(list(scratch.rglob(f"*{CACHE_NAME}"))) == 1


def test_a_sound_local_copy_is_used_without_a_look_at_the_shared_cache(
    data: Data, scratch: Path
) -> None:
    local = data.model_copy(update={"local_copy": True})
    load_dataset(local, CPU)
    (Path(data.root) / CACHE_NAME).unlink()

    assert levels(load_dataset(local, CPU).train) == [10, 20, 30]
    assert not (Path(data.root) / CACHE_NAME).exists()


def test_a_damaged_local_copy_is_made_again(data: Data, scratch: Path) -> None:
    local = data.model_copy(update={"local_copy": True})
    load_dataset(local, CPU)
    [copy] = scratch.rglob(f"*{CACHE_NAME}")
    whole = copy.read_bytes()
    copy.write_bytes(whole[:-20] + bytes(20))

    assert levels(load_dataset(local, CPU).test) == [40, 50]
    assert copy.read_bytes() == whole


def test_without_room_for_a_local_copy_the_shared_cache_is_used_with_a_remark(
    data: Data, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_file = cache_module.whole_file

    def full_in_scratch(path: Path) -> Any:
        if path.parent != Path(data.root):
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole_file(path)

    monkeypatch.setattr(cache_module, "whole_file", full_in_scratch)
    dataset = load_dataset(data.model_copy(update={"local_copy": True}), CPU)

    assert levels(dataset.train) == [10, 20, 30]
    assert dataset.remark == (
        "data.local_copy: this node has no copy of the data cache in TMPDIR "
        f"(No space left on device), so it maps {Path(data.root) / CACHE_NAME}"
    )


def test_a_cache_that_only_scratch_takes_is_the_local_copy(
    data: Data, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    dataset = load_dataset(data.model_copy(update={"local_copy": True}), CPU)

    assert (levels(dataset.train), dataset.remark) == ([10, 20, 30], "")
    assert len(list(scratch.rglob(f"*{CACHE_NAME}"))) == 1
