"""install.sh makes do with the place it is given: its locks, its room, what lies there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.jobs.test_install import bundle, describe, install, place, pytestmark

__all__ = ["bundle", "place", "pytestmark"]


def stand_in(tmp_path: Path, name: str, script: str) -> str:
    """A PATH on which a tool is another one."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / name).write_text(f"#!/bin/sh\n{script}\n")
    (tools / name).chmod(0o755)
    return f"{tools}{os.pathsep}{os.environ['PATH']}"


def test_a_file_system_without_locks_is_no_reason_to_stop(bundle: Path, tmp_path: Path) -> None:
    path = stand_in(tmp_path, "flock", "echo 'flock: 9: No locks available' >&2; exit 71")

    code, _, err = install(bundle, PATH=path)

    assert code == 0, err
    assert "flock" not in err


@pytest.mark.parametrize(
    "name", ["files/launch.py", "files/data/.archive.partial", "files/a b/[c]", "wheels/one.whl"]
)
def test_a_file_that_no_list_names_is_refused_by_its_name(
    bundle: Path, place: Path, name: str
) -> None:
    (bundle / name).parent.mkdir(exist_ok=True)
    (bundle / name).write_text("import os")

    code, _, err = install(bundle)

    assert code == 1
    assert err.splitlines()[1:] == [
        f"  {bundle / name}",
        "error: the files named above are in no list of the bundle: remove them",
    ]
    assert not place.exists()


def test_a_folder_that_is_a_link_is_in_no_list(bundle: Path, tmp_path: Path, place: Path) -> None:
    (bundle / "files" / "data").rename(tmp_path / "data")
    (bundle / "files" / "data").symlink_to(tmp_path / "data")

    code, _, err = install(bundle)

    assert (code, f"  {bundle / 'files' / 'data'}\n" in err) == (1, True)
    assert not place.exists()


def test_listed_files_of_any_name_are_installed(bundle: Path, place: Path) -> None:
    names = ("files/data/a ' \" b", "files/data/[*]?", "files/.hidden")
    for name in names:
        (bundle / name).write_text(name)
    describe(bundle)

    code, _, err = install(bundle)

    assert code == 0, err
    assert all((place / name.removeprefix("files/")).read_text() == name for name in names)


def test_what_an_installation_that_broke_off_holds_counts_as_room(
    bundle: Path, place: Path, tmp_path: Path
) -> None:
    """Of 9 MB that are needed 3 are unpacked, 4 are free, and 4 more without half a .venv."""
    (place / ".venv").mkdir(parents=True)
    (place / ".installing").touch()
    (place / "data").mkdir()
    (place / "data" / "archive").write_bytes(os.urandom(3_000_000))
    script = f"[ -e '{place}/.venv' ] && echo 4000000 || echo 8000000"
    path = stand_in(tmp_path, "df", script)

    describe(bundle, room="9000000")
    code, _, err = install(bundle, PATH=path)
    assert code == 0, err

    describe(bundle, room="99000000")
    code, _, err = install(bundle, "--to", "other", PATH=path)
    assert (code, "has room for 4 MB, and 99 MB are needed\n" in err) == (1, True)
