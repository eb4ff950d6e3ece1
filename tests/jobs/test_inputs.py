"""What the login node finds out about the archive, without ever waiting for it."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.archives import ARCHIVE_NAME, LARGEST_ARCHIVE_BYTES, PUBLISHED
from configs.schema import Data, Model, Recipe, Schedule
from jobs import inputs, provenance
from jobs.finding import Finding
from tests.train.archives import bomb

CIFAR100_NAME = "cifar-100-python.tar.gz"


def found(data: Data) -> list[tuple[str, str, str]]:
    findings = inputs.check_archive(data) + inputs.check_archive_content(data)
    return [(each.level, each.text, each.remedy) for each in findings if each.level != "pass"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_archive_is_known_by_its_size(tmp_path: Path, name: str) -> None:
    data = Data(root=str(tmp_path), archive=name)
    (tmp_path / name).write_bytes(b"x")

    [(level, text, remedy)] = found(data)

    assert level == "fail"
    assert text.endswith(f"has 1 bytes and the official archive {PUBLISHED[name].num_bytes:,}")
    assert remedy.startswith(f"bring it again from {PUBLISHED[name].url}, or,")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        (ARCHIVE_NAME, "download https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"),
        (CIFAR100_NAME, "download https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"),
        ("own.tar.gz", "put it there or name another"),
    ],
)
def test_a_missing_archive_has_the_remedy_of_its_name(
    tmp_path: Path, name: str, remedy: str
) -> None:
    [finding] = found(Data(root=str(tmp_path), archive=name, md5="none"))

    assert finding[1] == f"{tmp_path / name} is missing"
    assert finding[2].startswith(remedy)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (os.mkfifo, "is no regular file"),
        (Path.mkdir, "is no regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "is no regular file"),
        (lambda path: path.symlink_to(path), "is missing"),
    ],
)
@pytest.mark.parametrize("md5", ["official", "none"])
def test_what_is_no_file_is_refused_without_being_opened(
    tmp_path: Path, make: Callable[[Path], None], text: str, md5: str
) -> None:
    make(tmp_path / ARCHIVE_NAME)

    [(level, told, _)] = found(Data(root=str(tmp_path), md5=md5))

    assert (level, told) == ("fail", f"{tmp_path / ARCHIVE_NAME} {text}")
    assert provenance.file_sha256(tmp_path / ARCHIVE_NAME) is None


def test_an_archive_larger_than_any_may_be_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / ARCHIVE_NAME).open("wb") as file:
        file.truncate(LARGEST_ARCHIVE_BYTES + 1)

    [(level, text, _)] = found(Data(root=str(tmp_path), md5="none"))

    assert level == "fail"
    assert "has 2,147,483,649 bytes, and 2,147,483,648 are the most it may have" in text


@pytest.mark.parametrize(
    ("content", "level"),
    [
        (gzip.compress(os.urandom(9 * 2**20)), ""),
        (gzip.compress(bytes(9 * 2**20)), ""),
        (gzip.compress(bytes(9 * 2**20))[:-4], "fail"),
        (b"", "fail"),
        (b"no gzip", "fail"),
    ],
)
def test_an_unchecked_archive_has_at_least_to_be_whole(
    tmp_path: Path, content: bytes, level: str
) -> None:
    (tmp_path / ARCHIVE_NAME).write_bytes(content)

    told = found(Data(root=str(tmp_path), md5="none"))

    assert [each[0] for each in told] == ([level] if level else [])
    assert all("is truncated or damaged" in text for _, text, _ in told)


def test_a_gzip_bomb_is_given_up_in_time(tmp_path: Path) -> None:
    """Either its size or the time that a check has comes to an end first."""
    (tmp_path / ARCHIVE_NAME).write_bytes(bomb(10 * 2**30))

    [(_, text, _)] = found(Data(root=str(tmp_path), md5="none"))

    assert "it does not end after 2,147,483,648 bytes" in text or "could not be read" in text


@pytest.mark.parametrize(
    ("archive", "num_classes", "level"),
    [(ARCHIVE_NAME, 10, "pass"), (CIFAR100_NAME, 100, "pass"), (CIFAR100_NAME, 10, "fail")],
)
def test_the_classes_of_a_published_archive_are_compared_before_the_queue(
    archive: str, num_classes: int, level: str
) -> None:
    recipe = Recipe(data=Data(archive=archive), model=Model(num_classes=num_classes))

    [finding] = inputs.check_classes(recipe)

    assert finding.level == level
    if level == "fail":
        assert finding.text == "cifar-100-python.tar.gz has 100 classes and the model 10"
        assert finding.remedy == "set it to 100, or data.archive to another archive"
        assert finding.key == "model.num_classes"


def test_the_classes_of_other_archives_are_left_to_the_run() -> None:
    assert inputs.check_classes(Recipe(data=Data(archive="own.tar.gz", md5="none"))) == []


@pytest.mark.parametrize(("key", "there"), [("train_images", 50_000), ("test_images", 10_000)])
def test_more_images_than_a_published_archive_has_are_refused(key: str, there: int) -> None:
    def look(images: int, **data: str) -> list[Finding]:
        return inputs.check_settings(Recipe(data=Data.model_validate({key: images, **data})))

    [finding] = look(there + 1)
    assert (finding.level, finding.key) == ("fail", f"data.{key}")
    assert finding.text == f"asks for {there + 1:,} images, and {ARCHIVE_NAME} has {there:,}"
    assert look(there)[0].level == "pass"
    # How many an archive of one's own has is known to the run alone.
    assert [each for each in look(there + 1, md5="none") if each.level == "fail"] == []


def test_what_a_run_never_comes_to_is_told_where_its_images_are_known() -> None:
    schedule = Schedule(epochs=2, milestones=[1, 15])

    [finding] = inputs.check_settings(Recipe(schedule=schedule))
    assert (finding.level, finding.remedy) == (
        "warn",
        "raise schedule.epochs or lower the milestones",
    )
    assert finding.text.startswith("schedule.milestones has [15], but the run ends after 3,126 ")
    own = Data(archive="own.tar.gz", md5="none")
    assert inputs.check_settings(Recipe(data=own, schedule=schedule)) == []
    counted = own.model_copy(update={"train_images": 320})
    assert len(inputs.check_settings(Recipe(data=counted, schedule=schedule))) == 1


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "is empty"),
        (b"# README\n", "is neither PyTorch's nor safetensors"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is neither PyTorch's nor safetensors"),
        (b"PK\x03\x04zip", None),
        (b"\x80\x02\x8a\nl\xfc", None),
        ((2).to_bytes(8, "little") + b"{}", None),
    ],
)
def test_weights_are_known_by_their_first_bytes(
    tmp_path: Path, content: bytes, text: str | None
) -> None:
    weights = tmp_path / "weights.pth"
    weights.write_bytes(content)

    [finding] = inputs.check_weights(str(weights))

    if text is None:
        assert (finding.level, finding.text) == ("pass", f"{weights}, {len(content)} bytes")
    else:
        assert (finding.level, finding.text) == ("fail", f"{weights} {text}")
        assert f"python -m train.weights {weights}" in finding.remedy


def test_a_folder_in_place_of_a_file_and_the_other_way_round_are_called_so(tmp_path: Path) -> None:
    archive = tmp_path / ARCHIVE_NAME
    archive.write_bytes(b"x")

    [weights] = inputs.check_weights(str(tmp_path))
    [(level, text, remedy)] = found(Data(root=str(archive), md5="none"))

    assert (weights.level, weights.text) == ("fail", f"{tmp_path} is no regular file")
    assert (level, text) == ("fail", f"{archive} is a file")
    assert remedy == "name the folder that holds it"


def test_digits_are_not_promised_where_an_archive_is(tmp_path: Path) -> None:
    data = Data(root=str(tmp_path), source="digits", md5="none")
    [before] = inputs.check_archive(data)
    (tmp_path / ARCHIVE_NAME).write_bytes(b"x")
    [after] = inputs.check_archive(data)

    assert (before.level, after.level) == ("pass", "pass")
    assert "digits" in before.text
    assert after.text == f"{tmp_path / ARCHIVE_NAME}, which is there, and is not written anew"
