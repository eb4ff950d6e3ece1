"""Debian's packages that some tests need, installed where that may be done."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from filelock import FileLock


def need_programs(packages: dict[str, str]) -> None:
    """Have programs, each by its name and Debian's package; the test is skipped where it cannot.

    In CI, where a skip would go unnoticed, it fails.
    """

    def missing() -> list[str]:
        return [program for program in packages if not shutil.which(program)]

    with FileLock(Path(tempfile.gettempdir()) / "tests-apt-get.lock"):
        if missing() and os.geteuid() == 0 and shutil.which("apt-get"):
            names = [packages[program] for program in missing()]
            environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            install = ["apt-get", "install", "-q", "-y", "--no-install-recommends", *names]
            for command in (["apt-get", "update", "-q"], install):
                subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=False)
    if missing():
        reason = f"needs {', '.join(missing())} (Debian's {', '.join(packages.values())})"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        # Not everybody who runs the tests may install something, or has a Debian.
        pytest.skip(reason)
