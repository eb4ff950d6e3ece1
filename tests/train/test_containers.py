"""Checkpoint files that are damaged, foreign or made to do harm: refused, in bounded memory."""

from __future__ import annotations

import argparse
import datetime
import os
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.train.conftest import in_processes
from tests.train.crafted import (
    ONE_ENTRY,
    ONES,
    SOUND,
    attacks,
    foreign,
    legacy,
    mapping,
    safetensors_file,
    saved,
    storage,
    tensor,
    zipped,
)
from train.containers import LARGEST_FILE, Checkpoint, read_checkpoint
from train.errors import RequestError

MB = 2**20


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], Checkpoint]:
    def call(content: bytes) -> Checkpoint:
        path = tmp_path / "weights.pth"
        path.write_bytes(content)
        return read_checkpoint(path)

    return call


def test_crafted_files_are_sound_but_for_what_each_changes(
    read: Callable[[bytes], Checkpoint],
) -> None:
    old = mapping(weight=tensor(storage(4, b"N"), (2, 2), (2, 1)))
    header = str(ONE_ENTRY | {"__metadata__": {"step": "3"}}).replace("'", '"').encode()

    assert torch.equal(read(zipped(SOUND, ONES)).content["weight"], torch.ones(2, 2))
    assert torch.equal(read(legacy(old, 4, ONES)).content["weight"], torch.ones(2, 2))
    checkpoint = read(safetensors_file(header, ONES))
    assert torch.equal(checkpoint.content["weight"], torch.ones(4))
    assert (checkpoint.metadata, checkpoint.container) == ({"step": "3"}, "safetensors")


@pytest.mark.parametrize("name", [*attacks(""), *foreign()])
def test_file_is_refused_by_what_is_wrong_with_it(
    read: Callable[[bytes], Checkpoint], tmp_path: Path, name: str
) -> None:
    mark = tmp_path / "was-here"
    content, reason = (attacks(str(mark)) | foreign())[name]

    with pytest.raises(RequestError, match=reason) as refusal:
        read(content)
    assert str(refusal.value).startswith(str(tmp_path / "weights.pth"))
    assert not mark.exists()


def test_bytes_and_sizes_that_are_written_out_are_read(
    read: Callable[[bytes], Checkpoint],
) -> None:
    """Those of one byte refer to one text each, as Python's pickler writes them."""
    content = {
        "all": bytes(range(256)) * 9,
        "short": [bytes([number % 256]) for number in range(2_000)],
        "sizes": [torch.Size((number, number)) for number in range(500)] + [torch.Size(())] * 9,
    }

    assert read(saved(content)).content == content


@pytest.mark.parametrize(
    "value",
    [
        {1, 2}, frozenset({1}), 1j, b"", datetime.date(2026, 1, 2), torch.torch_version.__version__,
        Path("/x"), argparse.Namespace(lr=0.1),
    ],
    ids=repr,
)  # fmt: skip
def test_what_programs_save_beside_the_weights_is_passed_over(
    read: Callable[[bytes], Checkpoint], value: object
) -> None:
    found = read(saved({"weight": torch.ones(2), "beside": value}))

    assert torch.equal(found.content["weight"], torch.ones(2))


def test_a_path_of_python_3_13_is_passed_over(
    read: Callable[[bytes], Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("pathlib._local")
    path = type("PosixPath", (), {"__module__": "pathlib._local"})
    module.PosixPath = path  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pathlib._local", module)

    content = saved({"weight": torch.ones(2), "beside": path()})

    assert b"pathlib._local" in content
    assert torch.equal(read(content).content["weight"], torch.ones(2))


def _memory_mb() -> tuple[int, int]:
    """Address space in use, and the most memory that was, of this process."""
    status = Path("/proc/self/status").read_text()
    used = re.search(r"VmSize:\s+(\d+) kB", status)
    assert used
    return int(used.group(1)) // 1024, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _attack(_rank: int, folder: Path) -> tuple[list[str], int, float]:
    """What was not refused, megabytes that the refusals took, and the seconds of the slowest."""
    read_checkpoint(folder / "sound")
    files = [path for path in folder.iterdir() if path.name != "sound"]
    used, most = _memory_mb()
    resource.setrlimit(resource.RLIMIT_AS, ((used + 512) * MB,) * 2)
    slowest, accepted = 0.0, []
    for path in files:
        began = time.process_time()
        try:
            read_checkpoint(path)
            accepted.append(path.name)
        except RequestError:
            slowest = max(slowest, time.process_time() - began)
    return accepted, _memory_mb()[1] - most, slowest


def test_attacks_are_refused_in_bounded_memory_and_time(tmp_path: Path, workers: Any) -> None:
    """With 512 MB of addresses left, so that what a file claims cannot even be asked for."""
    (tmp_path / "sound").write_bytes(zipped(SOUND, ONES))
    for number, (content, _) in enumerate(attacks(str(tmp_path / "was-here")).values()):
        (tmp_path / f"attack-{number}").write_bytes(content)
    [(accepted, megabytes, seconds)] = in_processes(workers, 1, _attack, tmp_path)

    assert accepted == []
    assert megabytes < 300
    assert seconds < 10


@pytest.fixture
def special(tmp_path: Path) -> Iterator[dict[str, Path]]:
    """Things with a name that are no file to read."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(100 * 2**30)
    names = ("pipe", "link", "dangling", "loop", "huge")
    yield {name: tmp_path / name for name in names} | {"folder": tmp_path, "zero\0": Path("a\0b")}
    (tmp_path / "huge").unlink()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("pipe", "pipe is no regular file"),
        ("link", "link is no regular file"),
        ("folder", "is no regular file"),
        ("dangling", "there is no file .*dangling"),
        ("loop", "loop cannot be read"),
        ("huge", f"huge has 107,374,182,400 bytes, .* more than {LARGEST_FILE:,}"),
        ("zero\0", "cannot be read .embedded null byte"),
    ],
)
def test_what_is_no_file_of_believable_size_is_refused_at_once(
    special: dict[str, Path], name: str, reason: str
) -> None:
    with pytest.raises(RequestError, match=reason):
        read_checkpoint(special[name])
