"""`python -m configs`, and what importing `configs` brings along."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import configs
from configs import dump_recipe, explain, load_recipe, read_resolved

PROJECT = Path(__file__).parents[2]


def python(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, check=False)


def test_a_recipe_is_printed_as_a_runs_config(tmp_path: Path) -> None:
    overrides = ["optimizer.lr=1e-3", "run.notes=é"]

    done = python("-m", "configs", "finetune", "--set", overrides[0], "--set", overrides[1])

    expected = load_recipe("finetune", overrides).recipe
    path = tmp_path / "config.yaml"
    path.write_bytes(done.stdout)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == dump_recipe(expected)
    assert read_resolved(path) == expected


def test_problems_go_to_stderr_with_exit_code_2() -> None:
    done = python("-m", "configs", "finetune", "--set", "lr=1", "--set", "schedule.epochs=0")

    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode().splitlines() == [
        "--set lr: unknown section; did you mean 'optimizer.lr'?",
        "--set schedule.epochs: expected a whole number of at least 1, got 0 "
        "(passes over the training images)",
    ]


def test_neither_a_recipe_nor_describe_is_a_wrong_request() -> None:
    done = python("-m", "configs")

    assert done.returncode == 2
    assert done.stderr.decode().endswith("error: give a recipe, or --describe\n")


def test_describe_prints_a_row_of_four_columns_for_every_key() -> None:
    done = python("-m", "configs", "--describe")

    header, rule, *rows = done.stdout.decode().splitlines()
    assert done.returncode == 0
    assert (header, rule) == ("| key | takes | default | meaning |", "|---|---|---|---|")
    assert [row.split("`")[1] for row in rows] == [".".join(key) for key in explain.KEYS]
    assert {row.count("|") for row in rows} == {5}
    assert "| `optimizer.lr` | a number above 0 | `0.0025` | learning rate at its highest |" in rows


def test_configs_brings_neither_torch_nor_submitit_nor_our_programs() -> None:
    """A login node loads a recipe in a fraction of a second, and a worker needs no launcher."""
    code = "import sys, configs, configs.__main__; print(*sorted(sys.modules))"

    loaded = python("-c", code).stdout.decode().split()

    assert "configs" in loaded
    assert {"torch", "submitit", "jobs", "train", "launch", "rich"}.isdisjoint(loaded)


def test_the_public_names_are_sorted_and_there() -> None:
    assert configs.__all__ == sorted(configs.__all__)
    assert all(hasattr(configs, name) for name in configs.__all__)
