"""What has come into a bundle is known to later calls, though none has come to its end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs import manifest, wheelhouse
from jobs.errors import WorkError
from jobs.manifest import measure
from jobs.notes import Notes
from jobs.target import Target
from jobs.wheelhouse import Requirement, Wheelhouse, fill
from tests.jobs.test_stage import RECIPE, brought, lock, stage
from tests.jobs.wheels import make_wheel

__all__ = ["brought", "lock"]

CPU = Target("3.12", 28, "x86_64", "cpu")
WHEEL = "torch-2.15.0+cpu-cp312-cp312-manylinux_2_28_x86_64.whl"


def fill_cpu(folder: Path) -> Wheelhouse:
    """The wheelhouse of a bundle for a lock that has no hash of torch's build without CUDA."""
    lines = folder / "lock"
    lines.write_text(f"torch==2.15.0 --hash=sha256:{'a' * 64}\none==1.0 --hash=sha256:{'b' * 64}\n")
    return fill(folder / "wheels", CPU, Notes(folder), lines)


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What pip was asked for; it has torch, and nothing else."""
    asked = []

    def download(folder: Path, _: Target, requirement: Requirement) -> object:
        asked.append(requirement.pin)
        if requirement.name != "torch":
            return None
        make_wheel(folder, WHEEL)
        return WHEEL, measure(folder / WHEEL)

    monkeypatch.setattr(wheelhouse, "_download", download)
    return asked


def test_a_fetched_wheel_without_a_hash_outlives_an_incomplete_call(
    tmp_path: Path, pip: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    first = fill_cpu(tmp_path)
    assert pip == ["torch==2.15.0+cpu", "one==1.0"]

    again = fill_cpu(tmp_path)

    assert pip == ["torch==2.15.0+cpu", "one==1.0", "one==1.0"]
    assert again.requirements == first.requirements != ""
    assert "nobody has told" not in capsys.readouterr().err


def test_a_wheel_without_a_hash_that_came_by_hand_is_taken_told_and_noted(
    tmp_path: Path, pip: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wheels").mkdir()
    sha256 = make_wheel(tmp_path / "wheels", WHEEL)

    for told in (1, 0):
        house = fill_cpu(tmp_path)
        assert house.requirements == f"torch==2.15.0+cpu --hash=sha256:{sha256}\n"
        message = f"nobody has told its SHA-256; taken as it is, {sha256}"
        assert capsys.readouterr().err.count(message) == told

    assert pip == ["one==1.0", "one==1.0"]
    assert json.loads((tmp_path / manifest.NOTES).read_text())["files"].keys() == {
        f"wheels/{WHEEL}"
    }


def test_nothing_is_left_of_a_call_that_was_killed_while_pip_fetched(
    tmp_path: Path, pip: list[str]
) -> None:
    (tmp_path / "wheels" / ".inbox").mkdir(parents=True)
    (tmp_path / "wheels" / ".inbox" / "half").touch()

    fill_cpu(tmp_path)

    assert manifest.names_in(tmp_path / "wheels") == {WHEEL}


def test_half_a_wheel_without_a_hash_is_not_taken(
    tmp_path: Path, pip: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wheels").mkdir()
    make_wheel(tmp_path / "wheels", WHEEL)
    whole = (tmp_path / "wheels" / WHEEL).read_bytes()
    (tmp_path / "wheels" / WHEEL).write_bytes(whole[: len(whole) // 2])

    fill_cpu(tmp_path)

    assert pip == ["torch==2.15.0+cpu", "one==1.0"]
    assert f"{WHEEL}: is damaged" in capsys.readouterr().err


def test_a_file_of_an_incomplete_call_is_kept_when_another_recipe_is_staged(
    tmp_path: Path,
    brought: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(WorkError, match="1 wheel"):
        stage(folder, brought, *RECIPE)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    second = tmp_path / "second.pth"
    second.write_bytes(b"others")

    stage(folder, [second], RECIPE[0], "model.weights=weights/second.pth")

    assert {"files/weights/mine.pth", "files/weights/second.pth"} <= set(
        manifest.read_files(folder) or {}
    )
    assert "is not of this bundle" not in capfd.readouterr().err
    assert manifest.verify(folder) == 0
    assert not (folder / manifest.NOTES).exists()


def test_a_file_of_unknown_content_is_taken_anew_by_its_own_path(
    tmp_path: Path, brought: list[Path]
) -> None:
    folder = tmp_path / "bundle"
    stage(folder, brought, *RECIPE)
    place = folder / "files" / "weights" / "mine.pth"
    place.write_bytes(b"trained for longer")
    with pytest.raises(WorkError, match=f"or take this one by --from {place}"):
        stage(folder, [], *RECIPE)

    stage(folder, [place], *RECIPE)

    assert place.read_bytes() == b"trained for longer"
    assert manifest.verify(folder) == 0


def test_damaged_notes_are_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / manifest.NOTES).write_text('{"files": {"file": {}}}')

    notes = Notes(tmp_path)

    assert not notes.have(tmp_path / "file")
    notes.add(tmp_path / "file", measure(tmp_path / "file"))
    assert Notes(tmp_path).fit(tmp_path / "file", measure(tmp_path / "file"))
