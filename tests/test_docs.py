"""What docs/ says is what the code does."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

from jobs.options import make_parser
from tests.conftest import PROJECT
from train import predict


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


def test_commands_that_take_a_model_out_are_understood() -> None:
    text = (PROJECT / "docs" / "export.md").read_text().replace("\\\n", " ")
    found = re.findall(r"^python (launch\.py|-m train\.predict) (.*)$", text, flags=re.MULTILINE)

    assert len(found) >= 7
    for program, arguments in found:
        parser = make_parser() if program == "launch.py" else predict.make_parser()
        parser.parse_args(shlex.split(arguments))
