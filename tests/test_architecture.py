"""Who may import whom: the launcher starts without torch, the worker knows no launcher."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jobs.controller import clean_environment
from tests import warm
from tests.conftest import PROJECT

LAUNCHER = sorted(
    ".".join(path.relative_to(PROJECT).with_suffix("").parts)
    for folder in ("jobs", "configs")
    for path in (PROJECT / folder).glob("*.py")
    if path.stem not in ("__init__", "__main__")
)
WORKER = sorted(
    f"train.{path.stem}" for path in (PROJECT / "train").glob("*.py") if path.stem != "__init__"
)
HEAVY = {"torch", "torchvision", "numpy", "tensorboard", "matplotlib"}


def imported_by(statement: str, folder: Path = PROJECT) -> set[str]:
    """The top-level modules that a fresh interpreter has after a statement."""
    # Imports make no garbage to look for, which would take a quarter of their time.
    code = f"import gc, sys\ngc.disable()\n{statement}\n"
    code += "print(*sys.modules, sep='\\n', file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    modules = done.stderr.splitlines()
    return {module.partition(".")[0] for module in modules} | set(modules)


def test_the_launcher_imports_nothing_heavy() -> None:
    statement = "\n".join(f"import {module}" for module in [*LAUNCHER, "launch"])

    assert set() == HEAVY & imported_by(statement)


def test_the_worker_imports_no_launcher(tmp_path: Path) -> None:
    """In a folder of its own all modules of the project are imported anew; torch is not."""
    for package in ("train", "configs"):
        (tmp_path / package).symlink_to(PROJECT / package)
    script = tmp_path / "imports.py"
    script.write_text(
        "import sys\n"
        + "".join(f"import {module}\n" for module in WORKER)
        + "print(*sys.modules, sep='\\n')\n"
    )

    done = warm.run(script, cwd=tmp_path)

    imported = set(done.stdout.splitlines())
    assert set(WORKER) <= imported, done.stderr
    assert set() == {"jobs", "submitit", "launch"} & imported


@pytest.mark.parametrize(
    "arguments",
    [
        "--help",
        "--config quickstart.yaml --engine local --dry-run",
        "--config quickstart.yaml --engine slurm --set cluster.gpus_per_node=1 --dry-run",
    ],
)
def test_help_and_a_dry_run_import_nothing_heavy(arguments: str) -> None:
    statement = (
        "from jobs.cli import main\n"
        "try:\n"
        f"    main({arguments.split()!r})\n"
        "except SystemExit:\n"
        "    pass\n"
        "print('modules:', file=sys.stderr)"
    )

    assert set() == HEAVY & imported_by(statement)


def test_help_imports_none_of_the_packages_at_all() -> None:
    statement = "from jobs.options import make_parser\nmake_parser().format_help()"

    assert set() == {"submitit", "pydantic", "rich", "yaml"} & imported_by(statement)
