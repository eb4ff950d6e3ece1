"""The launcher's own times, down to sbatch's answer."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any


def test_every_command_is_timed_and_a_submission_until_its_answer(
    measure: Callable[..., Any],
) -> None:
    printed, found = measure("launcher", "--runs", "1")

    seconds = found["seconds"]
    assert list(seconds)[:5] == [
        "python -c pass",
        "launch.py --help",
        "launch.py --dry-run, Slurm",
        "launch.py --dry-run, local",
        "import torch",
    ]
    least = seconds["python -c pass"]["least"]
    assert least < seconds["launch.py, until sbatch has answered"]["median"]
    assert all(row["least"] == row["median"] == row["most"] for row in seconds.values())
    if not find_spec("hydra"):
        assert found["versions"]["hydra-core"] == "not installed"
        assert "not compared with: hydra-core, hydra-submitit-launcher" in printed
