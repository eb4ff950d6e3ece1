"""Small files that many processes write and read: whole or absent, and damaged means absent."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_whole(path: Path, text: str) -> None:
    """Replace a file so that no reader and no crash, of this machine or the disk's, meets half."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with draft.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Write a small JSON file as `write_whole` does."""
    write_whole(path, json.dumps(value, indent=2) + "\n")


def exists(path: Path) -> bool:
    """Whether something is there.

    Raises:
        OSError: nobody can say, as behind a folder that may not be entered, where Python's own
            says no from 3.14 on.
    """
    try:
        path.stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return False
        raise
    return True


def is_stream(path: Path) -> bool:
    """Whether what has this name is no file that another one could take the place of.

    A pipe or a device, or what `/dev/stdout` and its like stand for, which may be a file to append
    to.
    """
    return exists(path) and (not path.is_file() or path.absolute().is_relative_to("/dev"))


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None if there is none that can be read."""
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def read_lines(path: Path) -> list[str]:
    """The lines of a file that may hold anything; none if there is no file."""
    try:
        # Not splitlines, for which other bytes than a newline end a line too.
        return path.read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return []


def read_end(path: Path, size: int) -> tuple[str, bool, float]:
    """The last `size` bytes of a file, whether that is all of it, and when it was written.

    Opened once, for each look at a file takes its time on network storage. Empty if there is none.
    """
    try:
        with path.open("rb") as file:
            state = os.fstat(file.fileno())
            start = max(0, state.st_size - size)
            file.seek(start)
            return file.read().decode(errors="replace"), start == 0, state.st_mtime
    except FileNotFoundError:
        return "", True, 0.0


def parse(text: str) -> dict[str, Any] | None:
    """The JSON object that a text is; None if it is damaged."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
