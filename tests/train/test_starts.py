"""Many processes on one data folder, and those that are killed, lockless or without rights."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from configs.archives import ARCHIVE_NAME
from configs.schema import Data
from tests.train import starts
from tests.train.conftest import in_processes
from train.archive import Images, write_archive
from train.cache import find_cache
from train.dataset import load_dataset

PROCESSES = 8
SUM = 30 * 32 * 32 * 3 * 20


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may read, with one where every user may write."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    for name in ("data", "scratch"):
        (path / name).mkdir()
    (path / "scratch").chmod(0o777)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def data(folder: Path) -> Data:
    """Twenty images to train, all of grey level 30."""
    images = Images(np.full((20, 32, 32, 3), 30, dtype=np.uint8), np.zeros(20, dtype=np.int64))
    write_archive(folder / "data" / ARCHIVE_NAME, images, images, ["grey", "other"])
    (folder / "data" / ARCHIVE_NAME).chmod(0o644)
    return Data(root=str(folder / "data"), md5="none")


def in_step(_rank: int, barrier: Any, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function when all processes are ready."""
    barrier.wait(60)
    return function(*arguments)


@pytest.mark.parametrize("local_copy", [False, True])
def test_processes_that_start_together_read_the_archive_once_and_write_one_cache(
    workers: Any, data: Data, folder: Path, local_copy: bool
) -> None:
    asked = data.model_copy(update={"local_copy": local_copy})
    log, scratch = folder / "log", folder / "scratch"
    barrier = workers.Barrier(PROCESSES)

    sums = in_processes(workers, PROCESSES, in_step, barrier, starts.load, asked, scratch, log)

    assert sums == [SUM] * PROCESSES
    copies = ["copy_cache"] if local_copy else []
    assert starts.recorded(log) == ["read_archive", "write_cache", *copies]
    assert list(folder.rglob("*.partial")) == []


@pytest.mark.parametrize("moment", starts.MOMENTS)
def test_others_go_on_at_once_when_the_one_who_makes_the_cache_is_killed(
    workers: Any, data: Data, folder: Path, moment: Callable[..., None]
) -> None:
    reached, go_on, outcome = workers.Event(), workers.Event(), workers.Queue()
    first = workers.Process(target=starts.be_killed, args=(moment, data, reached, go_on))
    first.start()
    assert reached.wait(60)
    assert (
        find_cache(Path(data.root) / ARCHIVE_NAME) is None or moment is starts.killed_when_renamed
    )
    log = folder / "log"
    second = workers.Process(target=put, args=(outcome, starts.load, data, folder / "scratch", log))
    second.start()
    time.sleep(1.5)  # so that it waits for the lock

    go_on.set()
    killed_at = time.monotonic()

    assert outcome.get(timeout=60) == SUM
    assert time.monotonic() - killed_at < 10
    first.join(60)
    second.join(60)
    assert first.exitcode == -signal.SIGKILL
    made = [] if moment is starts.killed_when_renamed else ["read_archive", "write_cache"]
    assert starts.recorded(log) == made
    assert list(folder.rglob("*.partial")) == []


def put(outcome: Any, function: Callable[..., Any], *arguments: Any) -> None:
    outcome.put(function(*arguments))


@pytest.mark.parametrize("number", starts.NO_LOCKS)
def test_two_writers_without_locks_both_end_with_a_sound_cache(
    workers: Any, data: Data, folder: Path, number: int
) -> None:
    """As on two nodes of an NFS server whose lock daemon is not there."""
    log, scratch = folder / "log", folder / "scratch"
    barrier, together = workers.Barrier(2), workers.Barrier(2)
    arguments = (starts.load_without_locks, data, scratch, log, number, together)

    began = time.monotonic()
    sums = in_processes(workers, 2, in_step, barrier, *arguments)

    assert sums == [SUM] * 2
    assert time.monotonic() - began < 30
    assert sorted(starts.recorded(log)) == ["read_archive"] * 2 + ["write_cache"] * 2
    assert find_cache(Path(data.root) / ARCHIVE_NAME) is not None
    assert list(folder.rglob("*.partial")) == []


def run(_rank: int, function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


@pytest.mark.parametrize("is_cached", [False, True])
@pytest.mark.parametrize("how", [starts.load_as_nobody, starts.load_from_read_only_mount])
def test_a_read_only_folder_works(
    workers: Any, data: Data, folder: Path, how: Callable[..., Any], is_cached: bool
) -> None:
    """For a user without rights, and for root, whom only the mount keeps from writing."""
    if os.getuid():
        pytest.skip("becoming another user and mounting are root's")
    if is_cached:
        load_dataset(data, torch.device("cpu"))
    log, scratch = folder / "log", folder / "scratch"
    log.touch()
    log.chmod(0o666)
    before = {path: path.stat().st_mtime_ns for path in Path(data.root).iterdir()}

    [found] = in_processes(workers, 1, run, how, data, scratch, log)

    if found is None:
        pytest.skip("no mount namespaces here")
    assert found == SUM
    assert starts.recorded(log) == ([] if is_cached else ["read_archive", "write_cache"])
    assert len(list(scratch.rglob("*.safetensors"))) == (not is_cached)
    assert before == {path: path.stat().st_mtime_ns for path in Path(data.root).iterdir()}
