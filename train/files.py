"""Files that appear whole or not at all, whatever becomes of the writer or its node."""

from __future__ import annotations

import contextlib
import glob
import os
import platform
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

UNFINISHED = "partial"
STALE_AFTER_S = 3600


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which becomes `path` when the block ends without an exception.

    It has reached the disk by then. Otherwise nothing of it is left and `path` is as it was.

    Raises:
        OSError: it cannot be written.
    """
    # Not the number of the process alone: two nodes may have equal ones.
    name = f"{path.name}.{platform.node()}.{secrets.token_hex(4)}.{UNFINISHED}"
    unfinished = path.with_name(name)
    try:
        with unfinished.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):  # some network file systems cannot flush a folder
        flush(path.parent)


def flush(path: Path) -> None:
    """Wait until what a file holds, or the names in a folder, would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_unfinished(path: Path) -> None:
    """Remove what killed writers of `path` have left; for whoever holds the lock on `path`.

    A lock may not reach other nodes, so what is theirs is left alone until it is an hour old.
    """
    for found in path.parent.glob(f"{glob.escape(path.name)}.*.{UNFINISHED}"):
        with contextlib.suppress(OSError):
            is_of_this_node = found.name.rsplit(".", 2)[0] == f"{path.name}.{platform.node()}"
            if is_of_this_node or time.time() - found.stat().st_mtime > STALE_AFTER_S:
                found.unlink()
