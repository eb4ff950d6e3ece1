"""The `stage` command as it is started: what it imports, and its exit codes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from jobs.manifest import measure
from tests.conftest import PROJECT
from tests.jobs.workplace import Workplace


def test_a_connected_machine_needs_five_packages() -> None:
    """So that nobody needs 5 GB of torch there: they are named in docs/offline.md."""
    code = (
        "import sys; from jobs import cli, manifest, stage, wheelhouse\n"
        "from configs import load_recipe; load_recipe('finetune.yaml')\n"
        "print(*{name.partition('.')[0] for name, module in sys.modules.items()\n"
        "        if 'site-packages' in (getattr(module, '__file__', '') or '')})"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )

    brought_along = {"typing_extensions", "annotated_types", "pydantic_core", "typing_inspection"}
    packages = {"pydantic", "yaml", "rich", "filelock", "packaging"}
    assert {name for name in done.stdout.split() if name[0] != "_"} - brought_along == packages


def run(workplace: Workplace, *arguments: str) -> subprocess.CompletedProcess[str]:
    return workplace.launch("stage", *arguments)


def test_the_commands_exit_codes(workplace: Workplace, tmp_path: Path) -> None:
    """0 done, 1 the work failed, 2 the request was wrong."""
    shutil.copy(PROJECT / "pyproject.toml", workplace.project)

    assert run(workplace).returncode == 2
    assert run(workplace, "--to", "x", "--python", "2.7").returncode == 2
    assert run(workplace, "--to", "x", "--config", "no-such.yaml").returncode == 2
    assert run(workplace, "--verify", str(tmp_path / "none")).returncode == 2
    (tmp_path / "manifest.json").write_text("{")
    damaged = run(workplace, "--verify", str(tmp_path))
    assert damaged.returncode == 1
    assert damaged.stderr.count("\n") == 1
    assert measure(tmp_path / "manifest.json").size == 1
