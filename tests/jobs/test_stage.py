"""`stage` takes what is right, tells what is not, and goes on where it ended."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from pathlib import Path

import pytest
from filelock import FileLock

from configs import load_recipe
from configs.archives import ARCHIVE_NAME
from jobs import bundle, sources, wheelhouse
from jobs import stage as command
from jobs.errors import RequestError, WorkError
from jobs.manifest import verify
from jobs.sources import SOURCES, Source
from jobs.target import Target
from tests.conftest import PROJECT
from tests.jobs.unsteady_server import Behaviour, serving
from tests.jobs.wheels import make_wheel

TARGET = Target("3.11", 28, "x86_64", "cuda")
ARCHIVE, WEIGHTS = b"an archive", b"some weights"
MD5 = hashlib.md5(ARCHIVE, usedforsecurity=False).hexdigest()
RECIPE = (f"data.md5={MD5}", "model.weights=weights/mine.pth")
PLACES = {
    f"files/data/cifar10/{ARCHIVE_NAME}": ARCHIVE,
    "files/weights/mine.pth": WEIGHTS,
}


@pytest.fixture(autouse=True)
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock of one wheel, which a folder that pip looks into has."""
    index = tmp_path / "index"
    index.mkdir()
    sha256 = make_wheel(index, "one-1.0-py3-none-any.whl")
    (tmp_path / "lock").write_text(f"one==1.0 --hash=sha256:{sha256}\n")
    monkeypatch.setattr(wheelhouse.fill, "__defaults__", (tmp_path / "lock",))
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_NO_INDEX", "1")


@pytest.fixture
def brought(tmp_path: Path) -> list[Path]:
    """What a person has on a disk."""
    folder = tmp_path / "stick"
    folder.mkdir()
    (folder / ARCHIVE_NAME).write_bytes(ARCHIVE)
    (folder / "mine.pth").write_bytes(WEIGHTS)
    return [folder / ARCHIVE_NAME, folder / "mine.pth"]


def stage(folder: Path, brought: list[Path], *overrides: str, config: str = "finetune.yaml") -> int:
    if not folder.exists():
        shutil.copytree(folder.parent / "index", folder / "wheels")
        (folder / ".stage.lock").touch()
    loaded = load_recipe(config, overrides)
    return command.stage(folder, loaded, overrides, TARGET, brought)


def test_a_bundle_has_all_parts_and_can_be_verified(
    tmp_path: Path, brought: list[Path], capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "bundle"

    assert stage(folder, brought, *RECIPE) == 0

    assert {name: (folder / name).read_bytes() for name in PLACES} == PLACES
    told = capfd.readouterr().out
    assert f"SHA-256 {hashlib.sha256(WEIGHTS).hexdigest()}" in told
    assert verify(folder) == 0
    listed = json.loads((folder / "manifest.json").read_text())
    assert listed["arguments"] == [
        "--config",
        "finetune.yaml",
        "--set",
        RECIPE[0],
        "--set",
        RECIPE[1],
    ]
    assert set(listed["files"]) == {
        *PLACES, "wheels/one-1.0-py3-none-any.whl", "README.txt", "bundle.conf", "install.sh",
        "project.tar.gz", "requirements.txt",
    }  # fmt: skip
    assert "python=3.11\n" in (folder / "bundle.conf").read_text()
    with tarfile.open(folder / "project.tar.gz") as project:
        names = project.getnames()
        assert project.getmember("slurm/devcluster.sh").mode == 0o755
    assert {"launch.py", "configs/finetune.yaml", "requirements.lock", ".gitignore"} <= set(names)
    assert not [name for name in names if name.startswith((".venv", ".git/", "data", "weights"))]


def test_the_same_command_again_changes_nothing(
    tmp_path: Path, brought: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bundle"
    stage(folder, brought, *RECIPE)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.[pwt][thag][hlr]*")}
    monkeypatch.setenv("PIP_FIND_LINKS", "")

    stage(folder, [], *RECIPE)

    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    kept = [path for path in times if path.name != "project.tar.gz"]
    assert [path.stat().st_mtime_ns for path in kept] == [times[path] for path in kept]


def test_a_file_of_another_name_is_told_by_its_content(tmp_path: Path, brought: list[Path]) -> None:
    other = brought[0].rename(brought[0].with_name("cifar.tgz"))

    stage(tmp_path / "bundle", [other, brought[1]], *RECIPE)

    assert (tmp_path / "bundle" / next(iter(PLACES))).read_bytes() == ARCHIVE


def test_a_file_that_nobody_asked_for_is_refused_before_anything_is_made(
    tmp_path: Path, brought: list[Path]
) -> None:
    other = tmp_path / "other.pth"
    other.write_bytes(b"other")

    with pytest.raises(RequestError, match=r"--from .*other.pth: neither its name nor its content"):
        stage(tmp_path / "bundle", [*brought, other, tmp_path / "gone"], *RECIPE)

    made = {path.name for path in (tmp_path / "bundle").iterdir()}
    assert made == {".stage.lock", "wheels"}


def test_a_wrong_file_is_not_taken(tmp_path: Path, brought: list[Path]) -> None:
    brought[0].write_bytes(b"half an arch")

    with pytest.raises(WorkError, match=rf"--from .*{ARCHIVE_NAME}: it has MD5 .*, not {MD5}"):
        stage(tmp_path / "bundle", brought, *RECIPE)

    assert (tmp_path / "bundle" / "files" / "weights" / "mine.pth").read_bytes() == WEIGHTS
    assert not (tmp_path / "bundle" / next(iter(PLACES))).exists()
    assert not (tmp_path / "bundle" / "manifest.json").exists()


def test_without_a_network_it_says_all_that_is_missing_and_keeps_the_rest(
    tmp_path: Path, brought: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    away = {name: "http://no-such-host.invalid/" + name for name in SOURCES}
    monkeypatch.setattr(
        sources,
        "SOURCES",
        {name: Source(name, away[name], each.size, each.sha256) for name, each in SOURCES.items()},
    )
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    (tmp_path / "bundle").mkdir()

    with pytest.raises(WorkError) as caught:
        stage(tmp_path / "bundle", [])

    told = str(caught.value)
    assert f"{ARCHIVE_NAME} is missing, and there is no way to the network" in told
    assert f"fetch {away[ARCHIVE_NAME]} where there is one, and give it to " in told
    assert f"--from {ARCHIVE_NAME}" in told
    assert "resnet50_8xb32_in1k_20210831-ea4938fc.pth is missing" in told
    assert "1 wheel for Python 3.11 on manylinux_2_28_x86_64 missing: one==1.0" in told
    assert told.endswith("the same command again keeps what is there")

    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    stage(tmp_path / "bundle", brought, *RECIPE)


def test_what_only_a_person_has_is_asked_for_before_anything_is_fetched(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()

    with pytest.raises(WorkError) as caught:
        stage(tmp_path / "bundle", [], *RECIPE)

    assert str(caught.value).splitlines() == [
        f"{ARCHIVE_NAME} is missing and its address is not known, for data.md5 is not that of the "
        f"published archive; give it to this command by --from {ARCHIVE_NAME}",
        "error: mine.pth is missing and its address is not known; "
        "give it to this command by --from mine.pth",
    ]
    assert [path.name for path in (tmp_path / "bundle").iterdir()] == [".stage.lock"]


def test_what_is_published_is_fetched_and_what_was_damaged_fetched_again(
    tmp_path: Path,
    brought: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "bundle"
    place = folder / "files" / "weights" / "known.pth"
    sha256 = hashlib.sha256(WEIGHTS).hexdigest()
    overrides = (RECIPE[0], "model.weights=weights/known.pth")
    with serving(Behaviour(WEIGHTS)) as address:
        monkeypatch.setitem(
            sources.SOURCES, "known.pth", Source("known.pth", address, None, sha256)
        )
        stage(folder, brought[:1], *overrides)
        assert place.read_bytes() == WEIGHTS
        place.write_bytes(b"rot")
        capfd.readouterr()
        stage(folder, [], *overrides)

    assert place.read_bytes() == WEIGHTS
    assert f"{place} has SHA-256" in capfd.readouterr().err


def test_a_file_of_unknown_content_must_stay_the_one_that_was_packed(
    tmp_path: Path, brought: list[Path]
) -> None:
    folder = tmp_path / "bundle"
    stage(folder, brought, *RECIPE)
    (folder / "files" / "weights" / "mine.pth").write_bytes(b"rot")

    with pytest.raises(WorkError, match=r"mine.pth is not the file that was packed before"):
        stage(folder, [], *RECIPE)
    stage(folder, brought[1:], *RECIPE)

    assert verify(folder) == 0


def test_a_bundle_gathers_the_weights_of_several_recipes(
    tmp_path: Path, brought: list[Path], capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "bundle"
    stage(folder, brought, *RECIPE)
    second = tmp_path / "second.pth"
    second.write_bytes(b"others")
    (folder / "files" / "junk").touch()

    stage(folder, [second], RECIPE[0], "model.weights=weights/second.pth")

    listed = json.loads((folder / "manifest.json").read_text())["files"]
    assert {"files/weights/mine.pth", "files/weights/second.pth"} <= set(listed)
    assert "files/junk is not of this bundle; remove it" in capfd.readouterr().err
    with pytest.raises(WorkError):
        verify(folder)


def test_a_file_that_came_by_hand_leaves_nothing_of_its_download(
    tmp_path: Path, brought: list[Path]
) -> None:
    half = tmp_path / "bundle" / "files" / "weights" / "mine.pth.partial"
    half.parent.mkdir(parents=True)
    half.write_bytes(WEIGHTS[:3])
    (tmp_path / "bundle" / ".stage.lock").touch()

    stage(tmp_path / "bundle", brought, *RECIPE)

    assert not half.exists()


def test_digits_need_no_archive(tmp_path: Path) -> None:
    stage(tmp_path / "bundle", [], config="quickstart.yaml")

    assert not (tmp_path / "bundle" / "files").exists()


def test_two_at_once_do_not_meet(tmp_path: Path, brought: list[Path]) -> None:
    folder = tmp_path / "bundle"
    stage(folder, brought, *RECIPE)

    with (
        FileLock(folder / ".stage.lock"),
        pytest.raises(RequestError, match="another stage is at work there"),
    ):
        stage(folder, brought, *RECIPE)


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path, brought: list[Path]) -> None:
    with pytest.raises(RequestError, match="holds other things; name a new folder"):
        stage(brought[0].parent, [], *RECIPE)
    with pytest.raises(RequestError, match="is a file, and a bundle is a folder"):
        stage(brought[0], [], *RECIPE)

    assert sorted(brought[0].parent.iterdir()) == sorted(brought)


def test_what_lies_outside_of_the_project_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"data.root is .*, outside of the project"):
        stage(tmp_path / "bundle", [], f"data.root={tmp_path}")
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("_base_: " + str(PROJECT / "configs" / "finetune.yaml"))
    with pytest.raises(RequestError, match=r"mine.yaml is not among the project's files"):
        stage(tmp_path / "bundle", [], config=str(recipe))


def test_a_full_disk_or_a_folder_that_cannot_be_written_is_one_clear_error(
    tmp_path: Path, brought: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle, "copy_whole", full)

    with pytest.raises(WorkError, match="No space left on device; what has come is kept"):
        stage(tmp_path / "bundle", brought, *RECIPE)
