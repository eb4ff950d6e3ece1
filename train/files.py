"""Files that appear whole or not at all, whatever becomes of the writer or its node."""

from __future__ import annotations

import contextlib
import errno
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
def whole_file(path: Path, *, replace: bool = True) -> Iterator[BinaryIO]:
    """A file to write to, which becomes `path` when the block ends without an exception.

    It has reached the disk by then. Otherwise nothing of it is left and `path` is as it was.

    Args:
        path: its final name.
        replace: take the place of what has that name when the block ends.

    Raises:
        OSError: it cannot be written, or (FileExistsError) is not to replace what is there.
    """
    # Not the number of the process alone: two nodes may have equal ones.
    name = f"{path.name}.{platform.node()}.{secrets.token_hex(4)}.{UNFINISHED}"
    unfinished = path.with_name(name)
    try:
        with unfinished.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if replace:
            unfinished.replace(path)
        else:
            give_free_name(unfinished, path)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):  # some network file systems cannot flush a folder
        flush(path.parent)


def give_free_name(unfinished: Path, path: Path) -> None:
    """Rename a file to `path`, unless something has that name.

    On a file system without hard links, what appears there in the last instant is replaced.

    Raises:
        FileExistsError: something has it.
        OSError: the file cannot be renamed.
    """
    try:
        os.link(unfinished, path)
    except FileExistsError:
        raise
    except OSError:
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        unfinished.replace(path)
    else:
        unfinished.unlink()


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
