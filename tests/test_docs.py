"""What docs/ says is what the code does."""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from configs import load_recipe
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


def test_the_script_for_an_own_archive_writes_one_that_the_command_below_it_reads(
    tmp_path: Path,
) -> None:
    from PIL import Image

    from train.archive import read_archive

    page = (PROJECT / "docs" / "data.md").read_text()
    [script] = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    levels = {"bird": 10, "cat": 20, "dog": 30}
    for split in ("train", "test"):
        for name, level in levels.items():
            picture = tmp_path / "pictures" / split / name / "1.png"
            picture.parent.mkdir(parents=True)
            Image.new("RGB", (40, 48), (level, 0, 0)).save(picture)
    (tmp_path / "data").mkdir()
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, check=True)

    content = read_archive(tmp_path / "data" / "pictures.tar.gz", "none")
    assert content.classes == list(levels)
    assert content.train.pixels[:, 0, 0].tolist() == [[10, 0, 0], [20, 0, 0], [30, 0, 0]]
    assert content.test.labels.tolist() == [0, 1, 2]


def test_the_commands_of_the_data_page_are_understood() -> None:
    page = (PROJECT / "docs" / "data.md").read_text()
    commands = "".join(re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL))
    recipes = []
    for command in commands.replace("\\\n", " ").splitlines():
        options = make_parser().parse_args(shlex.split(command)[2:])
        recipes.append(load_recipe(options.config, options.set).recipe)

    assert [recipe.model.num_classes for recipe in recipes] == [100, 3]


def test_the_script_for_a_trace_prints_what_took_longest(tmp_path: Path) -> None:
    page = (PROJECT / "docs" / "profiling.md").read_text()
    [script] = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    taken = {"convolution": [1500, 500], "norm": [700], "sum": [800]}
    events = [
        {"cat": "kernel", "name": name, "dur": microseconds}
        for name, durations in taken.items()
        for microseconds in durations
    ]
    trace = tmp_path / "trace.json.gz"
    events += [{"cat": "cpu_op", "name": "aten::conv2d", "dur": 10**6}, {"name": "no duration"}]
    trace.write_bytes(gzip.compress(json.dumps({"traceEvents": events}).encode()))
    command = [sys.executable, "-c", script, str(trace)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert [line.split() for line in printed.splitlines()] == [
        ["2.0", "ms", "convolution"],
        ["0.8", "ms", "sum"],
        ["0.7", "ms", "norm"],
    ]


@pytest.mark.parametrize("page", ["commands.md", "offline.md", "profiling.md"])
def test_every_command_is_understood(page: str) -> None:
    text = (PROJECT / "docs" / page).read_text().replace("\\\n", " ")
    blocks = "".join(re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL))
    commands = re.findall(r"python launch\.py ((?:[\w.=/,\[\]-]+ *)+)", blocks)

    assert commands
    for command in commands:
        options = make_parser().parse_args(shlex.split(command))
        if recipe := options.config or getattr(options, "recipe", None):
            load_recipe(recipe, [*options.set, *getattr(options, "overrides", [])])


def test_commands_that_take_a_model_out_are_understood() -> None:
    text = (PROJECT / "docs" / "export.md").read_text().replace("\\\n", " ")
    found = re.findall(r"^python (launch\.py|-m train\.predict) (.*)$", text, flags=re.MULTILINE)

    assert len(found) >= 7
    for program, arguments in found:
        parser = make_parser() if program == "launch.py" else predict.make_parser()
        parser.parse_args(shlex.split(arguments))
