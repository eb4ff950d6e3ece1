"""slurm/*.sbatch: the real worker on the real cluster without launch.py, only the top edited."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.rundir import RunDirectory
from tests.conftest import PROJECT
from tests.jobs.workplace import Workplace, eventually, saved_steps, writable_by_others
from tests.slurm.cluster import (
    PATIENCE_SECONDS,
    await_end,
    await_restart,
    await_step,
    slurm,
    take_real_worker,
)

pytestmark = pytest.mark.slurm

SETTINGS = ["train.max_steps=2", "data.train_images=64", "data.test_images=16", "run.seed=3"]
EDITS = {
    r"#SBATCH --cpus-per-task=\S+": "#SBATCH --cpus-per-task=2",
    r"#SBATCH --time=\S+": "#SBATCH --time=00:10:00",
    r"RECIPE=\S+": "RECIPE=quickstart.yaml",
    r"PYTHON=\S+": f"PYTHON={sys.executable}",
}


def edit(template: Path, overrides: list[str], run: Path, *, workers: int) -> str:
    """The template as a user would leave it: its head changed, the rest as it is.

    With `workers` on each of its two nodes.
    """
    head, mark, rest = template.read_text().partition("# ---- end of settings ----")
    assert mark
    settings = {
        r"#SBATCH --gpus-per-node=\S+": f"#SBATCH --gpus-per-node={workers}",
        # One task starts all workers of a node in the other template.
        r"#SBATCH --ntasks-per-node=4": f"#SBATCH --ntasks-per-node={workers}",
        r"OVERRIDES=\(\)": f"OVERRIDES=({' '.join(overrides)})",
        r"RUN=\S+": f"RUN={run}",
    }
    for pattern, line in (EDITS | settings).items():
        head = re.sub(rf"^{pattern}", line, head, flags=re.MULTILINE)
    return head + mark + rest


Sbatch = Callable[..., str]


@pytest.fixture
def sbatch(workplace: Workplace) -> Iterator[Sbatch]:
    """A function that queues a script and returns the job id; the jobs end with the test."""
    jobs = []

    def queue(text: str, log: Path, folder: Path, **variables: str) -> str:
        # From a shell with the remains of another training session.
        leaks = {"RANK": "9", "MASTER_ADDR": "elsewhere", "LOCAL_RANK": "9"}
        answer = subprocess.run(
            ["sbatch", "--parsable", f"--output={log}"],
            input=text,
            cwd=folder,
            env=dict(workplace.environment) | leaks | variables,
            umask=0,
            capture_output=True,
            text=True,
            check=True,
        )
        jobs.append(answer.stdout.strip())
        return jobs[-1]

    yield queue
    if jobs:
        slurm(workplace, "scancel", *jobs)


@pytest.mark.parametrize("name", ["finetune", "torchrun"])
def test_a_template_trains_on_two_nodes_with_only_its_head_edited(
    workplace: Workplace, sbatch: Sbatch, digits_root: Path, tmp_path: Path, name: str
) -> None:
    take_real_worker(workplace)
    run = tmp_path / "run"
    overrides = [*SETTINGS, "data.source=archive", f"data.root={digits_root}"]
    text = edit(PROJECT / "slurm" / f"{name}.sbatch", overrides, run, workers=1)

    job = sbatch(text, tmp_path / "log", workplace.project)

    assert await_end(workplace, job) == "COMPLETED", (tmp_path / "log").read_text()
    results = json.loads((run / "results.json").read_text())
    assert (results["world_size"], results["steps"]) == (2, 2)
    assert "seed: 3\n" in (run / "config.yaml").read_text()
    assert writable_by_others(run) == []


@pytest.mark.parametrize(
    ("name", "warn"),
    [
        ("finetune", ["scancel", "--signal=USR2"]),
        ("torchrun", ["scancel", "--signal=USR2", "--batch"]),
    ],
)
def test_a_template_warned_of_its_limit_saves_and_goes_on_with_its_configuration(
    workplace: Workplace, sbatch: Sbatch, tmp_path: Path, name: str, warn: list[str]
) -> None:
    run = RunDirectory(tmp_path / "run")
    text = edit(PROJECT / "slurm" / f"{name}.sbatch", ["run.seed=3"], run.path, workers=2)
    text = text.replace("RECIPE=quickstart.yaml", "RECIPE=stub.yaml")
    log = tmp_path / "log"
    job = sbatch(text, log, workplace.project, STUB_STEPS="3000")
    await_step(run, 1)
    config = run.config.read_text()
    (workplace.project / "configs" / "stub.yaml").write_text("run: {seed: 4}\n")

    slurm(workplace, *warn, job)

    eventually("the state is saved", lambda: saved_steps(run), PATIENCE_SECONDS)
    [last_step] = saved_steps(run)
    await_restart(workplace, job)
    eventually("it goes on", lambda: f'"step": {last_step + 1},' in run.metrics.read_text(), 60)
    assert run.config.read_text() == config
    slurm(workplace, "scancel", job)
    assert await_end(workplace, job).startswith("CANCELLED"), log.read_text()
    place = r'"RANK": "(\d)", "LOCAL_RANK": "(\d)", "WORLD_SIZE": "(\d)"'
    assert set(re.findall(place, log.read_text())) == {
        ("0", "0", "4"),
        ("1", "1", "4"),
        ("2", "0", "4"),
        ("3", "1", "4"),
    }
