"""Processes that load one data folder, what each of them does there, and how they end early."""

from __future__ import annotations

import errno
import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from configs.schema import Data

CPU = torch.device("cpu")


def recorded(log: Path) -> list[str]:
    """What all processes have noted in `log`, in the order of time."""
    return log.read_text().splitlines() if log.exists() else []


def load(data: Data, scratch: Path, log: Path) -> int:
    """Load the data set; each reading of the archive and each writing of a cache is noted.

    Returns:
        The sum of the training images.
    """
    from train import dataset

    def noted(name: str) -> None:
        function = getattr(dataset, name)

        def call(*arguments: Any) -> Any:
            # One write to a file that is appended to: lines of several processes do not mix.
            with log.open("ab", buffering=0) as file:
                file.write(f"{name}\n".encode())
            return function(*arguments)

        setattr(dataset, name, call)

    tempfile.tempdir = str(scratch)
    for name in ("read_archive", "write_cache", "copy_cache"):
        noted(name)
    # NumPy adds up block by block, where torch would make a copy of 1.2 GB of all as int64.
    return int(dataset.load_dataset(data, CPU).train.images.numpy().sum(dtype="int64"))


def killed_before_reading(data: Data, die: Callable[..., None]) -> None:
    """The lock is held and the archive not yet read."""
    from train import dataset

    dataset.read_archive = die
    dataset.load_dataset(data, CPU)


def killed_when_read(data: Data, die: Callable[..., None]) -> None:
    """The archive is read and nothing is written."""
    from train import dataset

    dataset.write_cache = die
    dataset.load_dataset(data, CPU)


def killed_half_written(data: Data, die: Callable[..., None]) -> None:
    """Half of the cache is in an unfinished file."""
    from train import cache, dataset

    save = cache.save
    cache.save = lambda *arguments: save(*arguments)[: 2**12]
    os.fsync = die
    dataset.load_dataset(data, CPU)


def killed_when_written(data: Data, die: Callable[..., None]) -> None:
    """The whole cache is in an unfinished file."""
    from train import dataset

    os.fsync = die
    dataset.load_dataset(data, CPU)


def killed_when_renamed(data: Data, die: Callable[..., None]) -> None:
    """The cache is in its place and the lock is held."""
    from train import dataset

    dataset.read_cache = die
    dataset.load_dataset(data, CPU)


MOMENTS = (
    *(killed_before_reading, killed_when_read),
    *(killed_half_written, killed_when_written, killed_when_renamed),
)


def be_killed(moment: Callable[..., None], data: Data, reached: Any, go_on: Any) -> None:
    """Come to a moment of the making of a cache, tell so, wait, and be killed."""

    def die(*_: Any) -> None:
        reached.set()
        go_on.wait(60)
        os.kill(os.getpid(), signal.SIGKILL)

    moment(data, die)


def load_without_locks(data: Data, scratch: Path, log: Path, number: int, together: Any) -> int:
    """As `load`, on a file system that answers `number` to a lock; write when `together`."""
    import fcntl

    from train import dataset

    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    write_cache = dataset.write_cache

    def wait_and_write(*arguments: Any) -> None:
        together.wait(60)
        write_cache(*arguments)

    fcntl.flock = refuse
    dataset.write_cache = wait_and_write
    return load(data, scratch, log)


NO_LOCKS = (errno.ENOLCK, errno.ENOSYS)


def load_as_nobody(data: Data, scratch: Path, log: Path) -> int:
    """As `load`, as a user who owns nothing."""
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    return load(data, scratch, log)


def load_from_read_only_mount(data: Data, scratch: Path, log: Path) -> int | None:
    """As `load`, from a folder that is mounted read-only; None where that is not allowed."""
    import ctypes
    import subprocess

    namespace_of_mounts = 0x20000
    if ctypes.CDLL(None).unshare(namespace_of_mounts):
        return None
    for command in (
        ["mount", "--make-rprivate", "/"],
        ["mount", "--bind", data.root, data.root],
        ["mount", "-o", "remount,bind,ro", data.root],
    ):
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return None
    return load(data, scratch, log)
