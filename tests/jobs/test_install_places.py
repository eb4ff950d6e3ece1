"""install.sh makes do with the place it is given: its room, and what lies there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.jobs.test_install import (
    bundle,
    describe,
    install,
    place,
    pytestmark,
    quick_python,
)

__all__ = ["bundle", "place", "pytestmark", "quick_python"]


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


def test_what_an_installation_that_broke_off_holds_counts_as_room(
    bundle: Path, place: Path, tmp_path: Path
) -> None:
    """Of 9 MB that are needed 3 are unpacked, 4 are free, and 4 more without half a .venv."""
    (place / ".venv").mkdir(parents=True)
    (place / ".installing").touch()
    (place / "data").mkdir()
    (place / "data" / "archive").write_bytes(os.urandom(3_000_000))
    tools = tmp_path / "tools"
    tools.mkdir()
    script = f"#!/bin/sh\n[ -e '{place}/.venv' ] && echo 4000000 || echo 8000000\n"
    (tools / "df").write_text(script)
    (tools / "df").chmod(0o755)
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"

    describe(bundle, room="9000000")
    code, _, err = install(bundle, PATH=path)
    assert code == 0, err

    describe(bundle, room="99000000")
    code, _, err = install(bundle, "--to", "other", PATH=path)
    assert (code, "has room for 4 MB, and 99 MB are needed\n" in err) == (1, True)
