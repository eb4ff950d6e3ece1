"""What an archive may not do to whoever reads it: run code, crash, hang, or fill the memory."""

from __future__ import annotations

import os
import resource
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configs.archives import ARCHIVE_NAME, LARGEST_ARCHIVE_BYTES
from tests.drills import fuzz_archives
from tests.train import archives
from tests.train.archives import END, bomb, gzipped, members
from tests.train.conftest import in_processes
from tests.train.hostile import PICKLES, TARS, TEST, array_of, p
from train.archive import CIFAR10, read_archive
from train.errors import RequestError

FOLDER = CIFAR10.folder
MEMORY = 2**30  # beyond what the process has when it begins
SECONDS = 20  # of a loaded core; measured alone, the slowest takes 5


def refusals(_rank: int, paths: dict[str, Path]) -> dict[str, tuple[str, float]]:
    """Why each archive is refused, in little memory, and the seconds of CPU time that it takes."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return {name: refusal(path) for name, path in paths.items()}


def refusal(path: Path) -> tuple[str, float]:
    began = time.process_time()
    try:
        read_archive(path, "none")
    except RequestError as error:
        return str(error), time.process_time() - began
    return "", time.process_time() - began


@pytest.fixture
def refused(workers: Any, tmp_path: Path) -> Callable[[Path | bytes], str]:
    """The refusal of a file, or of the file of these bytes, in a process of its own."""

    def call(content: Path | bytes) -> str:
        path = content if isinstance(content, Path) else tmp_path / ARCHIVE_NAME
        if isinstance(content, bytes):
            path.write_bytes(content)
        [outcomes] = in_processes(workers, 1, refusals, {"": path})
        return checked(*outcomes[""])

    return call


def checked(text: str, seconds: float) -> str:
    assert seconds < SECONDS
    assert len(text) < 1_000
    return text


@pytest.fixture(scope="session")
def told(workers: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, float]]:
    """The refusals of all archives of the tables, in one process."""
    folder = tmp_path_factory.mktemp("hostile")
    tars = {name: members(test_batch=content) + END for name, (content, _) in PICKLES.items()}
    paths = {}
    for number, (name, tar) in enumerate(
        (tars | {name: tar for name, (tar, _) in TARS.items()}).items()
    ):
        paths[name] = folder / str(number) / ARCHIVE_NAME
        paths[name].parent.mkdir()
        paths[name].write_bytes(gzipped(tar))
    [outcomes] = in_processes(workers, 1, refusals, paths)
    return outcomes


@pytest.mark.parametrize("name", PICKLES)
def test_a_hostile_pickle_is_refused_naming_its_member(
    told: dict[str, tuple[str, float]], name: str
) -> None:
    text = checked(*told[name])

    assert f"member {TEST} is refused: " in text
    assert PICKLES[name][1] in text


def test_class_names_that_repeat_one_long_text_are_refused(
    refused: Callable[[bytes], str],
) -> None:
    """Each would be a text of its own: forty gigabytes."""
    names = ["x" * (4 * 2**20)] * 10_000

    text = refused(gzipped(members(**{"batches.meta": {"label_names": names}}) + END))

    assert "batches.meta has no list of class names" in text


def test_deep_nesting_does_not_crash_whoever_throws_it_away(
    refused: Callable[[bytes], str],
) -> None:
    """As many lists as the size of the batch admits, below a key that nobody asks for."""
    filler = b"U\x06filler" + b"B" + struct.pack("<I", 16 * 2**20) + bytes(16 * 2**20)
    nest = b"U\x04nest" + b"]" * 80_000 + b"a" * 79_999
    array = array_of(b"u1", b"K\x01M\x00\x0c\x86", bytes(3072))
    batch = p(b"}(U\x04data" + array + b"U\x06labels](K\x00e" + filler + nest + b"u")

    assert refused(gzipped(members(test_batch=batch) + END)) == ""


@pytest.mark.parametrize("name", TARS)
def test_a_hostile_tar_is_refused_naming_its_member(
    told: dict[str, tuple[str, float]], name: str
) -> None:
    assert TARS[name][1] in checked(*told[name])


def test_a_gzip_bomb_is_refused_before_it_has_unpacked(refused: Callable[[bytes], str]) -> None:
    packed = bomb(10 * 2**30)

    assert len(packed) < 11 * 2**20
    assert f"unpacks to more than the {LARGEST_ARCHIVE_BYTES:,} bytes" in refused(packed)


@pytest.mark.parametrize("after", [gzipped(END), b"\x00" * 512 + b"x"])
def test_what_follows_the_end_of_the_gzip_stream_is_refused(
    refused: Callable[[bytes], str], after: bytes
) -> None:
    assert "something follows its end" in refused(gzipped(members() + END) + after)


def test_a_wrong_check_sum_is_refused(refused: Callable[[bytes], str]) -> None:
    packed = gzipped(members() + END)

    assert "truncated or damaged" in refused(packed[:-8] + bytes(8))


def test_zeros_after_the_end_and_a_long_name_in_the_gzip_header_are_read(
    refused: Callable[[bytes], str],
) -> None:
    packed = gzipped(members() + END) + bytes(512)
    named = packed[:3] + b"\x08" + packed[4:10] + b"n" * 2**24 + b"\x00" + packed[10:]

    assert refused(packed) == ""
    assert refused(named) == ""


def fifo(path: Path) -> None:
    os.mkfifo(path)


def loop(path: Path) -> None:
    path.symlink_to(path)


def larger_than_any(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(LARGEST_ARCHIVE_BYTES + 1)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (fifo, "is no regular file"),
        (Path.mkdir, "is no regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "is no regular file"),
        (loop, "cannot be read: Too many levels of symbolic links"),
        (larger_than_any, "are the most that an archive may have"),
    ],
)
def test_what_is_no_file_of_a_believable_size_is_refused_without_being_opened(
    refused: Callable[[Path], str], tmp_path: Path, make: Callable[[Path], None], reason: str
) -> None:
    path = tmp_path / ARCHIVE_NAME
    make(path)

    assert reason in refused(path)


def test_nothing_is_parsed_unless_the_md5_is_the_one_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = archives.write(tmp_path / ARCHIVE_NAME, test_batch=PICKLES["a command"][0])
    monkeypatch.delattr(sys.modules["train.archive"], "parse")

    with pytest.raises(RequestError, match=r"data\.md5 asks for"):
        read_archive(path, "official")


def test_archives_damaged_at_random_are_read_or_refused(tmp_path: Path) -> None:
    """A few cases of the drill, which makes many."""
    outcomes = []
    for number in range(400):
        _, content = fuzz_archives.case(number, seed=1)
        (tmp_path / ARCHIVE_NAME).write_bytes(content)
        outcomes.append(fuzz_archives.read(tmp_path / ARCHIVE_NAME))

    assert [outcome for outcome in outcomes if outcome.startswith("FAILURE")] == []
    assert len(set(outcomes)) > 10
    assert "read" in outcomes
