"""install.sh makes do with the place it is given: its locks, its room, what lies there."""

from __future__ import annotations

import os
from pathlib import Path

from tests.jobs.test_install import bundle, install, place

__all__ = ["bundle", "place"]


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
