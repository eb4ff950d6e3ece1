"""Every rank works with the code of its run, where the run has some, and says so where not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from configs import Recipe, dump_recipe
from jobs.controller import clean_environment
from tests.conftest import PROJECT

ASK = (
    "import sys; from pathlib import Path; import jobs, train; from configs import origin\n"
    "print(origin.objection(Path(sys.argv[1])))"
)


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory with a copy of the code."""
    run = tmp_path / "name" / "stamp"
    for part in ("jobs", "train", "configs"):
        shutil.copytree(PROJECT / part, run / "code" / part)
    (run / "submitit").mkdir()
    (run / "config.yaml").write_text(dump_recipe(Recipe()))
    return run


def test_code_from_the_run_itself_is_right_by_whatever_name_the_run_is_called(
    run: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(run)

    for code in (run / "code", tmp_path / "link" / "code"):
        assert python(run / "code", "-c", ASK, str(code)).stdout == "None\n"


def test_a_run_without_code_may_be_worked_on_from_anywhere(run: Path) -> None:
    shutil.rmtree(run / "code")

    assert python(PROJECT, "-c", ASK, str(run / "code")).stdout == "None\n"


@pytest.mark.parametrize("package", ["jobs", "train", "configs"])
def test_one_package_from_elsewhere_is_named_with_both_places(run: Path, package: str) -> None:
    shutil.move(run / "code" / package, run / package)

    ask = f"import sys; sys.path.append({str(run)!r})\n{ASK}"
    words = python(run / "code", "-c", ask, str(run / "code")).stdout

    own = run / "code" / package
    assert words == (
        f"{package} was imported from {run / package}, not from the run's own code in {own}; "
        f"start it in {run / 'code'}\n"
    )


def test_a_worker_and_a_task_started_elsewhere_refuse(run: Path) -> None:
    worker = python(PROJECT, "-m", "train", "--run", str(run))
    task = python(PROJECT, "-m", "jobs.task", str(run), "0", "1", "key")

    assert (worker.returncode, task.returncode) == (2, 2)
    told = f"configs was imported from {PROJECT / 'configs'}, not from the run's own code in {run}"
    assert worker.stderr.startswith(f"error: {told}")
    assert f"error: {told}" in (run / "launcher.log").read_text()
