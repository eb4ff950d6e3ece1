"""The copy of the code that a run's job works from, so that later edits do not reach it."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
PARTS = ("launch.py", "jobs", "train", "configs")


def copy_code(target: Path) -> str:
    """Copy what the job needs into `target`; returns the SHA-256 over all paths and contents.

    The files are made read-only. The folders are not, so that `rm -r` of a run needs no chmod.
    """
    digest = hashlib.sha256()
    for path in code_files():
        copy = target / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(PROJECT / path, copy)
        executable = (PROJECT / path).stat().st_mode & 0o111
        copy.chmod(0o444 | executable)
        content = copy.read_bytes()
        digest.update(f"{path.as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def code_files() -> list[Path]:
    """The files of the snapshot, relative to the project, sorted.

    Tracked files with their uncommitted edits and new ones that git does not ignore; without git,
    Python files and recipes.
    """
    listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *PARTS)
    if listed is None:
        found = [path for part in PARTS for path in (PROJECT / part).rglob("*")]
        names = [path.relative_to(PROJECT) for path in [PROJECT / PARTS[0], *found]]
        names = [name for name in names if name.suffix in (".py", ".yaml")]
    else:
        names = [Path(name) for name in listed.split("\0") if name]
    # Git also lists files that were deleted but not yet from its index.
    return sorted({name for name in names if (PROJECT / name).is_file()})


def git(*arguments: str) -> str | None:
    """What git prints about the project; None where there is no git or no repository of its own."""
    if not (PROJECT / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "-C", str(PROJECT), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout
