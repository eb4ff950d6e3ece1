"""What docs/ says is what the code does."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pytest

from configs import load_recipe
from jobs.options import make_parser
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


@pytest.mark.parametrize("page", ["commands.md", "offline.md"])
def test_every_command_is_understood(page: str) -> None:
    text = (PROJECT / "docs" / page).read_text().replace("\\\n", " ")
    blocks = "".join(re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL))
    commands = re.findall(r"python launch\.py ((?:[\w.=/,\[\]-]+ *)+)", blocks)

    assert commands
    for command in commands:
        options = make_parser().parse_args(shlex.split(command))
        if options.config:
            load_recipe(options.config, options.set)
