"""A bundle is made where nothing of a person's is lost, and of the project's own files."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path

import pytest

from jobs import bundle, manifest
from jobs.errors import RequestError


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
