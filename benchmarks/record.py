"""How a benchmark writes its figures down: with what, where and when they were measured."""

from __future__ import annotations

import datetime
import json
import os
import platform
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path


def save(path: Path, module: str, packages: Iterable[str], **figures: object) -> None:
    """Write a JSON file that names the command, date, machine and versions behind `figures`.

    Args:
        path: the file, replaced.
        module: the benchmark, as `python -m` takes it.
        packages: the distributions whose versions matter to it.
        figures: its settings and what it measured, with the unit in the key.
    """
    report = {
        "command": " ".join([f"python -m {module}", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "python": platform.python_version(),
        "versions": {package: version(package) for package in packages},
    }
    path.write_text(json.dumps(report | figures, indent=2) + "\n")
