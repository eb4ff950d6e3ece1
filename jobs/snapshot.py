"""The copy of the code that a run's job works from, so that later edits do not reach it.

Equal files of many runs are one file on the disk: each run has a hard link to it, and so has the
store beside the runs. Deleting a run takes no more than that; a stored file that no run has any
more goes with a later launch.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from jobs.errors import WorkError
from jobs.repository import PROJECT, list_files

PARTS = ("launch.py", "jobs", "train", "configs")
STORE = ".code"
SUMS = "SHA256SUMS"


def copy_code(target: Path, store: Path) -> str:
    """Copy what the job needs into `target`, sharing equal files through `store`.

    The files are made read-only. The folders are not, so that `rm -r` of a run needs no chmod.

    Returns:
        the SHA-256 of the list of all files and their own, which lies with them as SHA256SUMS.

    Raises:
        WorkError: a file cannot be read or written.
    """
    try:
        return _copy_code(target, store)
    except OSError as error:
        raise WorkError(f"the code cannot be copied into the run: {error}") from None


def _copy_code(target: Path, store: Path) -> str:
    with contextlib.suppress(OSError):
        # Nobody else needs it: the runs have files of their own, by hard links.
        store.mkdir(mode=0o700, parents=True, exist_ok=True)
    sums = []
    for path in code_files():
        content = (PROJECT / path).read_bytes()
        mode = 0o444 | (PROJECT / path).stat().st_mode & 0o111
        sha256 = hashlib.sha256(content).hexdigest()
        copy = target / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not _link(store / f"{sha256}.{mode:o}", copy, content, mode):
            _write(copy, content, mode)
            with contextlib.suppress(OSError):
                os.link(copy, store / f"{sha256}.{mode:o}")
        sums.append(sha256.encode() + b"  " + os.fsencode(path) + b"\n")
    _write(target / SUMS, b"".join(sums), 0o444)
    _remove_unused(store)
    return hashlib.sha256(b"".join(sums)).hexdigest()


def changed_files(code: Path) -> list[str]:
    """The files of a snapshot that are not what was copied; none where it has no SHA256SUMS.

    Raises:
        OSError: they cannot be read at the moment.
    """
    try:
        sums = (code / SUMS).read_bytes()
    except FileNotFoundError:
        return []
    pairs = [line.partition(b"  ") for line in sums.split(b"\n") if line]
    changed = [name for sha256, _, name in pairs if _sha256(code / os.fsdecode(name)) != sha256]
    return [name.decode(errors="replace") or SUMS for name in changed]


def code_files() -> list[Path]:
    """The files of the snapshot, relative to the project, sorted.

    Tracked files with their uncommitted edits and new ones that git does not ignore; where git
    cannot say, all that are neither hidden nor Python's own. Folders behind links, which may hold
    anything, are left out.
    """
    listed = list_files(PROJECT, *PARTS)
    found = [Path(part) for part in PARTS] if listed is None else listed
    return sorted({file for path in found for file in _files(path)})


def _files(path: Path) -> Iterator[Path]:
    """`path` itself or, of a folder, the files below; nothing if git still lists what is gone."""
    if (PROJECT / path).is_file():
        yield path
    elif (PROJECT / path).is_dir() and not (PROJECT / path).is_symlink():
        inside = list_files(PROJECT / path)
        if inside is None:
            names = [each.name for each in (PROJECT / path).iterdir()]
            inside = [Path(name) for name in names if name[0] != "." and name != "__pycache__"]
        for each in inside:
            yield from _files(path / each)


def _link(stored: Path, copy: Path, content: bytes, mode: int) -> bool:
    """Make `copy` a link to a stored file, unless there is none, it is not right, or none may be.

    It may be another user's, have too many links already, or the file system has no links.
    """
    try:
        os.link(stored, copy)
    except OSError:
        return False
    if copy.read_bytes() == content and stat.S_IMODE(copy.stat().st_mode) == mode:
        return True
    copy.unlink()
    with contextlib.suppress(OSError):
        stored.unlink()
    return False


def _write(path: Path, content: bytes, mode: int) -> None:
    path.write_bytes(content)
    path.chmod(mode)


def _remove_unused(store: Path) -> None:
    with contextlib.suppress(OSError):
        for stored in store.iterdir():
            with contextlib.suppress(OSError):
                if stored.stat().st_nlink == 1:
                    stored.unlink()


def _sha256(path: Path) -> bytes | None:
    # Not for any error: a file system that does not answer at the moment says nothing of the file.
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):
        return hashlib.sha256(path.read_bytes()).hexdigest().encode()
    return None
