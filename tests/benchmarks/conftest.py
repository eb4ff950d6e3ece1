"""Benchmarks as a person starts them, at sizes that take seconds."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import warm

Measured = tuple[str, dict[str, Any]]


@pytest.fixture
def measure(tmp_path: Path) -> Callable[..., Measured]:
    """Run `python -m benchmarks.NAME ARGUMENTS --output FILE`: what it printed, and the file."""

    def call(name: str, *arguments: str) -> Measured:
        output = tmp_path / "figures.json"
        # A table of rich is as wide as the terminal; without one, as this says.
        environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        done = warm.run(f"benchmarks.{name}", *arguments, "--output", output, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout, json.loads(output.read_text())

    return call
