"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import platform
import time
from pathlib import Path

import pytest

from train.files import STALE_AFTER_S, remove_unfinished, whole_file

NODE = platform.node()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_failed_writer_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    with pytest.raises(TypeError), whole_file(path) as file:
        file.writelines([b"new", 3])

    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_writers_at_one_time_do_not_share_a_file(tmp_path: Path) -> None:
    """Not even when their process numbers are equal, as on two nodes."""
    path = tmp_path / "file"
    with whole_file(path) as first, whole_file(path) as second:
        first.write(b"1" * 10)
        second.write(b"2" * 20)

    assert path.read_bytes() == b"1" * 10  # the last to finish
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("has_links", [True, False])
def test_writer_that_replaces_nothing_fails_where_another_was_quicker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    """Also on a file system without hard links, which answers to each as this."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    if not has_links:
        monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "file"

    def write(content: bytes, quicker: bytes = b"") -> None:
        with whole_file(path, replace=False) as file:
            file.write(content)
            if quicker:
                write(quicker)

    with pytest.raises(FileExistsError):
        write(b"second", quicker=b"first")

    assert path.read_bytes() == b"first"
    assert names(tmp_path) == ["file"]


def test_bytes_are_on_the_disk_before_the_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, flushed = tmp_path / "file", []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        is_folder = os.path.samestat(os.fstat(descriptor), tmp_path.stat())
        flushed.append(("folder" if is_folder else "file", path.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    with whole_file(path) as file:
        file.write(b"content")

    assert flushed == [("file", False), ("folder", True)]


def test_unfinished_files_of_this_node_and_old_ones_are_removed(tmp_path: Path) -> None:
    """A lock may not reach another node, whose writer may then still be at work."""
    kept = ["cache", "cache.lock", "cache.other-node.0a.partial", f"else.{NODE}.0a.partial"]
    old = "cache.other-node.0b.partial"
    for name in [*kept, old, f"cache.{NODE}.0a.partial"]:
        (tmp_path / name).touch()
    long_ago = time.time() - STALE_AFTER_S - 60
    os.utime(tmp_path / old, (long_ago, long_ago))

    remove_unfinished(tmp_path / "cache")

    assert names(tmp_path) == sorted(kept)
