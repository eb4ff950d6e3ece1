"""Projects in git and out of it, and what their runs have copied, for the tests of code/."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from jobs import snapshot
from jobs.rundir import RunDirectory
from tests.jobs.workplace import Workplace

IGNORED = "*.secret\n__pycache__/\n/logs/\n"


def git(folder: Path, *arguments: str) -> str:
    """What git prints, with an identity and without this machine's settings."""
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    command = ["git", *identity, "-c", "protocol.file.allow=always", *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


def commit_all(folder: Path) -> None:
    (folder / ".gitignore").write_text(IGNORED)
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "first")


def run_once(workplace: Workplace, *arguments: str, **variables: str) -> RunDirectory:
    """A run to its end, on this machine."""
    before = set(workplace.runs)
    done = workplace.launch("--config", "stub.yaml", *arguments, STUB_STEPS="1", **variables)
    assert done.returncode == 0, done.stderr
    [run] = set(workplace.runs) - before
    return run


def names(run: RunDirectory) -> set[str]:
    """What was copied; the job has left Python's own files beside it."""
    files = {str(path.relative_to(run.code)) for path in run.code.rglob("*") if path.is_file()}
    return {name for name in files if "__pycache__" not in name}


def provenance(run: RunDirectory) -> dict[str, Any]:
    return json.loads(run.provenance.read_text())


def stored(workplace: Workplace) -> list[Path]:
    return sorted((workplace.logs / ".code").iterdir())


def copied(folder: Path, store: Path) -> dict[str, bytes]:
    """A snapshot of this project: each file's content."""
    snapshot.copy_code(folder, store)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files_of(folder)}


def files_of(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
