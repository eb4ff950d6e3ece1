"""How a benchmark writes its figures down: with what, where and when they were measured."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import shlex
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# Of the environment, what a figure of torch on a CPU depends on.
VARIABLES = ("OMP_NUM_THREADS", "GLIBC_TUNABLES")


def save(path: Path, module: str, packages: Iterable[str], **figures: object) -> None:
    """Write a JSON file that names the command, date, machine and versions behind `figures`.

    It is replaced whole: who ends a benchmark in the middle of it finds the figures before these.

    Args:
        path: the file, replaced.
        module: the benchmark, as `python -m` takes it.
        packages: the distributions whose versions matter to it.
        figures: its settings and what it measured, with the unit in the key.
    """
    report = {
        "command": shlex.join(["python", "-m", module, *sys.argv[1:]]),
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "python": platform.python_version(),
        "versions": {package: version_of(package) for package in packages},
    }
    half = path.with_name(f"{path.name}.part")
    half.write_text(json.dumps(report | figures, indent=2) + "\n")
    half.replace(path)


def file_of(path: Path | None) -> dict[str, str] | None:
    """What tells a file from others of its name, in another place."""
    if path is None:
        return None
    with path.open("rb") as content:
        return {"name": path.name, "sha256": hashlib.file_digest(content, "sha256").hexdigest()}


def version_of(package: str) -> str:
    """The installed version of a distribution."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def on(device: torch.device) -> dict[str, Any]:
    """What figures of torch are measured with: the device by name, and torch's threads."""
    import torch

    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        return {"device": name, "threads": torch.get_num_threads(), "cuda": torch.version.cuda}
    return {"device": processor(), "threads": torch.get_num_threads()}


def processor() -> str:
    """The CPU by name, where the system tells it, and its widest vectors."""
    import torch

    name = platform.processor() or platform.machine()
    facts = Path("/proc/cpuinfo")
    if facts.is_file():
        lines = (line.partition(":") for line in facts.read_text().splitlines())
        found = (value.strip() for key, _, value in lines if key.strip() == "model name")
        name = next(found, name)
    return f"CPU ({name}, {torch.backends.cpu.get_cpu_capability()})"
