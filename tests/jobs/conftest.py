"""A fresh project with a stub worker for each test, away from any Slurm."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs import Recipe, dump_recipe
from jobs import ledger
from jobs.controller import clean_environment
from jobs.rundir import RunDirectory
from tests.jobs.slurm_stand_in import PLACE, Cluster
from tests.jobs.workplace import Workplace, make_workplace


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    return make_workplace(tmp_path / "project", clean_environment())


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return Cluster(folder)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run whose first attempt is open."""
    run = RunDirectory(tmp_path / "run")
    run.engine_files.mkdir(parents=True)
    run.config.write_text(dump_recipe(Recipe()))
    ledger.open_attempt(run, PLACE)
    run.attempt(1).mkdir()
    return run
