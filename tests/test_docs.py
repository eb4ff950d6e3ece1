"""What docs/ says is what the code does."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.conftest import PROJECT


def test_table_of_keys_is_the_schemas() -> None:
    command = [sys.executable, "-m", "configs", "--describe"]
    table = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout

    assert (PROJECT / "docs" / "recipes.md").read_text().endswith("\n\n" + table), (
        "docs/recipes.md ends with the output of: python -m configs --describe"
    )


def test_every_result_that_is_named_exists() -> None:
    text = (PROJECT / "docs" / "performance.md").read_text()
    named = re.findall(r"benchmarks/results/[\w.-]+\.json", text)

    assert named
    assert [name for name in named if not (PROJECT / name).is_file()] == []
