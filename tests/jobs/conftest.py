"""A fresh project with a stub worker for each test, away from any Slurm."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.controller import clean_environment
from tests.jobs.workplace import Workplace, make_workplace


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    return make_workplace(tmp_path / "project", clean_environment())
