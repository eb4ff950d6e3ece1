"""What git knows of the project, where there is git and it answers."""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
# Set inside a hook or `git rebase --exec`, they would make git look at another repository.
ELSEWHERE = {
    "GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
}  # fmt: skip


@functools.cache
def refusal() -> str | None:
    """Why git tells nothing of a project that has a repository; None where it does, or has none.

    Git refuses the folder of another user, for one.
    """
    if not _has_repository(PROJECT):
        return None
    try:
        answer = _run(PROJECT, "rev-parse", "--git-dir")
    except OSError as error:
        return f"git: {error.strerror}"
    return None if answer.returncode == 0 else os.fsdecode(answer.stderr).strip()


def commit() -> str | None:
    """The commit that is checked out; None without one."""
    answer = _ask(PROJECT, "rev-parse", "--verify", "--quiet", "HEAD")
    return answer.decode().strip() if answer else None


def diff_sha256(*parts: str) -> str | None:
    """The SHA-256 of what `git diff HEAD` prints about some paths; None if that is nothing."""
    # A person's settings for looking at differences must not change the hash.
    plain = ("--no-color", "--no-ext-diff", "--no-textconv", "--binary", "--full-index")
    diff = _ask(PROJECT, "diff", *plain, "HEAD", "--", *parts)
    return hashlib.sha256(diff).hexdigest() if diff else None


def new_files(*parts: str) -> list[str]:
    """The files below some paths that git neither tracks nor ignores."""
    found = _list(PROJECT, "--others", "--exclude-standard", "--", *parts)
    return [path.as_posix() for path in found or []]


def list_files(folder: Path, *parts: str) -> list[Path] | None:
    """What below a folder git tracks or does not ignore; None where git cannot say.

    The folders of submodules and of repositories inside it are listed as such.
    """
    return _list(folder, "--cached", "--others", "--exclude-standard", "--", *parts)


def _list(folder: Path, *arguments: str) -> list[Path] | None:
    answer = _ask(folder, "ls-files", "-z", *arguments)
    if answer is None:
        return None
    return [Path(os.fsdecode(name)) for name in answer.split(b"\0") if name]


@functools.cache  # one launch is one moment, for all runs of a sweep
def _ask(folder: Path, *arguments: str) -> bytes | None:
    """What git prints about a folder; None where that is no repository or git refuses."""
    if not _has_repository(folder):
        return None
    try:
        answer = _run(folder, *arguments)
    except OSError:
        return None
    return answer.stdout if answer.returncode == 0 else None


def _has_repository(folder: Path) -> bool:
    # Its own, not one that the project merely lies in. In a worktree or a submodule it is a file.
    return (folder / ".git").exists()


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    environment = {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
    return subprocess.run(
        ["git", "-C", str(folder), *arguments],
        # Looking must not hold the lock that somebody's `git commit` needs.
        env=environment | {"GIT_OPTIONAL_LOCKS": "0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
