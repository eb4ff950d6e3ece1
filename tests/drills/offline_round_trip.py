"""The whole way of a bundle with all wheels, real data and real weights, to a scored training.

    TEST_CIFAR10_ROOT=... TEST_WEIGHTS=... python -m pytest tests/drills/offline_round_trip.py

Not among the tests that a plain `pytest` collects: it takes 14 GB of the temporary folder's disk,
ten minutes, and fetches 3 GB of wheels from pip's index.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.archives import ARCHIVE_NAME
from tests.conftest import PROJECT
from tests.offline import Cluster, cluster, settings, stage, train
from tests.train.runs import board, shown_by_data_server

GIGABYTE = 10**9
NEEDED_BYTES = 14 * GIGABYTE


@pytest.fixture
def away() -> Iterator[Cluster]:
    with cluster() as place:
        yield place


def test_a_bundle_with_all_wheels_trains_on_real_data_without_a_network(
    tmp_path: Path, real_cifar10: Path, real_weights: Path, away: Cluster
) -> None:
    assert shutil.disk_usage(tmp_path).free > NEEDED_BYTES
    bundle = tmp_path / "bundle"
    recipe = settings("data.md5=none", f"model.weights=weights/{real_weights.name}")
    brought = ["--from", str(real_cifar10 / ARCHIVE_NAME), "--from", str(real_weights)]
    seconds = {}

    for turn in ("stage", "stage again"):
        began = time.monotonic()
        done = stage(PROJECT, bundle, *recipe, *brought)
        seconds[turn] = time.monotonic() - began
        assert done.returncode == 0, done.stderr
    assert "wheel 1 of" not in done.stderr
    size = sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())
    away.carry(bundle)
    shutil.rmtree(bundle)

    began = time.monotonic()
    installed = away.install()
    seconds["install and doctor"] = time.monotonic() - began
    assert installed.returncode == 0, installed.stdout + installed.stderr
    assert " 0 failed" in installed.stdout

    began = time.monotonic()
    run, results = train(away, "--config", "finetune.yaml", *recipe)
    seconds["train"] = time.monotonic() - began
    assert (results["steps"], results["world_size"]) == (2, 2)
    assert "train/loss" in board(run)
    assert board(run) == shown_by_data_server(run)
    report = away.launch("report", "--format", "json")
    assert report.returncode == 0, report.stderr
    assert f'"accuracy_top-1": {results["accuracy_top-1"]}' in report.stdout

    print(installed.stdout)
    print(f"bundle of {size / GIGABYTE:.1f} GB:")
    print("".join(f"  {what}: {taken:.0f} s\n" for what, taken in seconds.items()))
