"""Where a run comes from: code, versions, inputs and command, for provenance.json."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import pwd
import shlex
import socket
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from configs.schema import Recipe
from jobs import repository
from jobs.rundir import timestamp
from jobs.snapshot import PARTS

PACKAGES = ("torch", "torchvision", "submitit", "numpy", "tensorboard", "pydantic", "PyYAML")


def collect(recipe: Recipe, code_sha256: str, command: Sequence[str]) -> dict[str, Any]:
    """Everything needed to say later what produced a result; nothing of the environment."""
    return {
        "created": timestamp(),
        "command": shlex.join(command),
        "commit": repository.commit(),
        # Of what the job runs: uncommitted changes to files that git tracks, and files that it
        # does not. None and nothing without a repository.
        "diff_sha256": repository.diff_sha256(*PARTS),
        "new_files": repository.new_files(*PARTS),
        "code_sha256": code_sha256,
        "archive_sha256": file_sha256(Path(recipe.data.root) / recipe.data.archive),
        "weights_sha256": file_sha256(Path(recipe.model.weights)) if recipe.model.weights else None,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: _version(name) for name in PACKAGES},
        "host": socket.gethostname(),
        "user": user_name(),
    }


def user_name() -> str:
    """Who does this; a container may have no name for its user."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


@functools.cache  # the runs of a sweep read the same files
def file_sha256(path: Path) -> str | None:
    """The SHA-256 of a file, or None where there is none (yet)."""
    if not path.is_file():  # opening a FIFO would wait for ever
        return None
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
