"""Requests that are wrong: every problem at once, exit code 2, nothing left behind."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.jobs.workplace import Workplace


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if "__pycache__" not in path.parts}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--config nowhere.yaml", "nowhere.yaml"),
        ("--config stub.yaml --set train.batch_siz=8", "did you mean 'train.batch_size'"),
        (
            "--config stub.yaml --set cluster.cpu_workers=2 --set train.batch_size=33",
            "the nearest that can: 32 and 34",
        ),
        (
            "--config stub.yaml --set cluster.cpu_workers=2 --set train.micro_batch_size=32",
            "the nearest that can: 16",
        ),
        ("--config stub.yaml --set train.batch_size=1", "two images"),
        ("--config stub.yaml --set cluster.nodes=2", "--set cluster.nodes: 2 nodes need Slurm"),
        ("--config stub.yaml --set data.root=elsewhere", "cs.toronto.edu/~kriz/cifar-10-python"),
        ("--config stub.yaml --set model.weights=no.pth", "--set model.weights:"),
        ("--config stub.yaml --set run.root=launch.py/logs", "launch.py is not a folder"),
        ("--config stub.yaml --set run.root=a%jb", "--set run.root:"),
        ("--config stub.yaml --set train.device=cuda", "--set train.device:"),
        ("--config stub.yaml --engine slurm", "error: --engine: sbatch is not on PATH"),
        ("--config stub.yaml --name a/b", "error: --name: "),
        ("--config stub.yaml --name a/b --sweep run.seed=1,2", "error: --name: "),
        ("status", "there are no runs"),
        ("logs nonsense", "'nonsense'"),
    ],
)
def test_a_wrong_request_is_told_clearly_and_leaves_nothing(
    workplace: Workplace, tmp_path: Path, arguments: str, expected: str
) -> None:
    before = files(workplace.project)

    # An empty PATH: no Slurm, whatever this machine has.
    done = workplace.launch(*arguments.split(), PATH=str(tmp_path), CUDA_VISIBLE_DEVICES="")

    assert (done.returncode, done.stdout) == (2, "")
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert before == files(workplace.project)


def test_all_problems_are_told_at_once_each_with_its_place(workplace: Workplace) -> None:
    (workplace.project / "configs" / "bad.yaml").write_text(
        "_base_: stub.yaml\n"
        "data:\n"
        "  root: elsewhere\n"
        "model:\n"
        "  weights: no.pth\n"
        "train: {batch_size: 9}\n"
        "cluster: {cpu_workers: 2}\n"
    )

    done = workplace.launch("--config", "bad.yaml")

    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert [error.removeprefix("error: ").rpartition(": /")[0] for error in errors[:2]] == [
        "configs/bad.yaml:3: data.root",
        "configs/bad.yaml:5: model.weights",
    ]
    assert errors[2].startswith("error: configs/bad.yaml:6: train.batch_size: 9 images")


def test_digits_need_scikit_learn_and_no_archive(workplace: Workplace, tmp_path: Path) -> None:
    shutil.rmtree(workplace.project / "data")
    arguments = ("--config", "stub.yaml", "--set", "data.source=digits")

    assert workplace.launch(*arguments).returncode == 0


def test_a_dry_run_prints_the_resolved_recipe_and_makes_nothing(workplace: Workplace) -> None:
    before = files(workplace.project)

    done = workplace.launch("--config", "stub.yaml", "--dry-run", "--set", "run.seed=7")

    assert done.returncode == 0
    assert "  seed: 7\n" in done.stdout
    assert f"  root: {workplace.project}/data\n" in done.stdout
    assert before == files(workplace.project)


def test_a_dry_run_shows_the_slurm_script_where_there_is_no_slurm(
    workplace: Workplace, tmp_path: Path
) -> None:
    slurm = ("--engine", "slurm", "--set", "cluster.gpus_per_node=2")

    done = workplace.launch("--config", "stub.yaml", "--dry-run", *slurm, PATH=str(tmp_path))

    assert done.returncode == 0
    assert "#SBATCH --gpus-per-node=2\n" in done.stdout
    assert "not checked with Slurm: sbatch is not on PATH" in done.stderr


def test_auto_takes_this_machine_where_no_controller_answers_and_says_why(
    workplace: Workplace, tmp_path: Path
) -> None:
    done = workplace.launch(
        "--config", "stub.yaml", "--engine", "auto", "--dry-run", PATH=str(tmp_path)
    )

    assert "engine: local (sbatch is not on PATH)" in done.stderr


def test_every_command_shows_an_example(workplace: Workplace) -> None:
    listed = workplace.launch("--help").stdout
    commands = re.findall(r"^    (\w+) ", listed, flags=re.MULTILINE)
    assert {"status", "logs", "cancel", "resume", "tensorboard", "completion"} <= set(commands)
    for command in commands:
        done = workplace.launch(command, "--help")
        assert f"example:\n  python launch.py {command} " in done.stdout


def test_output_that_cannot_be_written_is_an_error_and_not_lost_in_silence(
    workplace: Workplace,
) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "launch.py", "completion", "bash"],
            cwd=workplace.project,
            env={**workplace.environment, "PYTHONUNBUFFERED": ""},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    expected = "error: the output cannot be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, expected)
