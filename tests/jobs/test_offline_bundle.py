"""A bundle made here is installed and used where there is no network, by an ordinary user.

The way is the real one, but for the wheels: one that leads to this environment's own packages.
`make drill` goes it with all wheels, real data and real weights (tests/drills/).
"""

from __future__ import annotations

import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.archives import ARCHIVE_NAME
from tests.conftest import PROJECT
from tests.jobs.wheels import make_wheel
from tests.offline import Cluster, cluster, settings, stage, train
from tests.train.runs import board

WHEEL = "packages-1.0-py3-none-any.whl"
RECIPE = ("data.md5=none", "model.weights=weights/mine.pth")


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory, digits_root: Path) -> Path:
    """A bundle of this project, with digits, random weights and one wheel."""
    import torch
    from torchvision.models import resnet50

    folder = tmp_path_factory.mktemp("stage")
    weights = folder / "mine.pth"
    torch.save(resnet50().state_dict(), weights)
    bundle = folder / "bundle"
    (bundle / "wheels").mkdir(parents=True)
    (bundle / ".stage.lock").touch()
    here = sysconfig.get_paths()["purelib"]
    sha256 = make_wheel(bundle / "wheels", WHEEL, packages__pth=f"{here}\n")
    project = folder / "project"
    ignored = shutil.ignore_patterns("__pycache__", "site.yaml", ".venv", "data", "weights")
    for part in ("jobs", "train", "configs", "slurm"):
        shutil.copytree(PROJECT / part, project / part, ignore=ignored)
    for part in ("launch.py", "pyproject.toml"):
        shutil.copy(PROJECT / part, project)
    (project / "requirements.lock").write_text(f"packages==1.0 --hash=sha256:{sha256}\n")
    (project / "data").mkdir()
    (project / "data" / "left behind").touch()

    brought = ["--from", str(digits_root / ARCHIVE_NAME), "--from", str(weights)]
    done = stage(project, bundle, *settings(*RECIPE), *brought)

    assert done.returncode == 0, done.stderr
    return bundle


@pytest.fixture
def away(bundle: Path) -> Iterator[Cluster]:
    """A machine without a network that the bundle was carried to."""
    with cluster() as place:
        place.carry(bundle)
        yield place


def test_stage_carry_install_doctor_train_and_report_without_a_network(away: Cluster) -> None:
    outside = away.run(
        away.python, "-c", "import socket; socket.create_connection(('192.0.2.1', 80), 5)"
    )
    assert "Network is unreachable" in outside.stderr

    installed = away.install()

    assert installed.returncode == 0, installed.stdout + installed.stderr
    assert "archive " in installed.stdout
    assert " 0 failed" in installed.stdout
    assert not (away.project / ".installing").exists()
    assert not (away.project / "data" / "left behind").exists()
    run, results = train(away, "--config", "finetune.yaml", *settings(*RECIPE))
    assert (results["steps"], results["world_size"]) == (2, 2)
    assert "train/loss" in board(run)
    report = away.launch("report", "--format", "json")
    assert report.returncode == 0, report.stderr
    assert f'"accuracy_top-1": {results["accuracy_top-1"]}' in report.stdout
