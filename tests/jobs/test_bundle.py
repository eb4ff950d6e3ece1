"""A bundle is made where nothing of a person's is lost, and of the project's own files."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path

import pytest

from jobs import bundle, manifest
from jobs.errors import RequestError, WorkError
from tests.jobs.workplace import Workplace


def test_a_project_with_wheels_and_files_of_its_own_is_no_bundle(tmp_path: Path) -> None:
    for name in ("wheels/mine.whl", "files/notes"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    (tmp_path / "manifest.json").write_text('{"name": "an extension of a browser", "files": {}}')

    with pytest.raises(RequestError, match="holds other things"), bundle.opened(tmp_path):
        pass

    names = {"wheels/mine.whl", "files/notes", "manifest.json"}
    assert manifest.names_in(tmp_path) == names


@pytest.mark.parametrize("what", ["nothing", "lock", "manifest"])
def test_a_new_folder_and_a_bundle_are_taken(tmp_path: Path, what: str) -> None:
    if what == "lock":
        (tmp_path / manifest.LOCK).touch()
    if what == "manifest":  # carried without hidden files
        (tmp_path / "README.txt").touch()
        facts = manifest.measure(tmp_path / "README.txt")
        manifest.write(tmp_path, {"README.txt": facts}, {})

    with bundle.opened(tmp_path):
        assert bundle.is_bundle(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_bundle_can_be_made_where_there_are_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)

    for _ in range(2):
        with bundle.opened(tmp_path / "bundle"):
            (tmp_path / "bundle" / "made").touch()

    assert (tmp_path / "bundle" / "made").exists()


def test_a_folder_that_cannot_be_locked_for_another_reason_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", refuse)

    with pytest.raises(OSError, match="Input/output error"), bundle.opened(tmp_path):
        pass


@pytest.fixture
def project(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that git knows nothing of, as one that was installed from a bundle."""
    monkeypatch.setattr(bundle, "PROJECT", workplace.project)
    return workplace.project


def write(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def carried(folder: Path) -> set[str]:
    return {path.as_posix() for path in bundle.project_files(folder)}


def test_where_git_cannot_say_data_weights_and_logs_stay_here(project: Path) -> None:
    write(project / ".hidden", project / "logs" / "run" / "log", project / "weights" / "mine.pth")
    write(project / "mine" / "wheels" / "a.whl", project / "docs" / "data" / "page.md")

    found = carried(project / "mine")

    assert {"launch.py", "configs/finetune.yaml", "jobs/cli.py", "docs/data/page.md"} <= found
    assert not [name for name in found if name.startswith(("data", ".", "logs", "mine", "weights"))]


def test_where_git_cannot_say_settings_environments_and_bundles_stay_here(project: Path) -> None:
    write(project / "configs" / "site.yaml", project / "tests" / "configs" / "site.yaml")
    write(project / "venv" / "pyvenv.cfg", project / "venv" / "lib" / "a.py")
    write(project / "earlier" / ".stage.lock", project / "earlier" / "wheels" / "a.whl")

    found = carried(project / "bundle")

    assert "tests/configs/site.yaml" in found
    assert "configs/site.yaml" not in found
    assert not [name for name in found if name.startswith(("venv", "earlier"))]


def test_a_copy_that_is_not_the_file_never_gets_its_name(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"weights")
    facts = manifest.measure(source)
    source.write_bytes(b"we")

    with pytest.raises(WorkError, match="source changed while it was copied"):
        bundle.copy_whole(source, tmp_path / "target", facts)
    assert manifest.names_in(tmp_path) == {"source"}

    source.write_bytes(b"weights")
    bundle.copy_whole(source, tmp_path / "target", facts)
    assert (tmp_path / "target").read_bytes() == b"weights"
