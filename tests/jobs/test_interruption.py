"""Ctrl-C at any moment leaves a run that is told of, or none; never half a run, never an orphan."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import snapshot
from jobs.interruption import Interrupt, uninterrupted
from jobs.rundir import RunDirectory
from tests.jobs.workplace import Workplace, eventually, is_running, ledger_lines, worker_reports

# From Python's start to some time after the workers' start.
MOMENTS = [each / 20 for each in range(1, 60, 4)]


def press_ctrl_c(process: subprocess.Popen[str]) -> None:
    """To the whole foreground of a terminal, as the terminal does."""
    os.killpg(process.pid, signal.SIGINT)


def start(workplace: Workplace, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "launch.py", *arguments],
        cwd=workplace.project,
        env={**workplace.environment, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def interrupted_inside(reached: list[str]) -> None:
    with uninterrupted():
        # To this thread, for that of a library which another test has loaded would drop it.
        signal.raise_signal(signal.SIGINT)
        # Nor does it end a program that is started now.
        done = subprocess.run(
            ["sh", "-c", "kill -INT $$; echo on"], check=True, capture_output=True
        )
        reached.append(done.stdout.decode())
    reached.append("behind")


def test_what_comes_meanwhile_is_met_at_the_end() -> None:
    reached: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted_inside(reached)
    assert reached == ["on\n"]
    with Interrupt().watch() as interrupt:
        interrupted_inside(reached)
        assert interrupt.count == 1
    assert reached == ["on\n", "on\n", "behind"]


def test_a_ctrl_c_that_an_import_drops_is_met_before_a_run_is_made(workplace: Workplace) -> None:
    with (workplace.project / "configs" / "__init__.py").open("a") as module:
        module.write(
            "import contextlib, os, signal\n"
            "with contextlib.suppress(KeyboardInterrupt):\n"
            "    os.kill(os.getpid(), signal.SIGINT)\n"
            "    raise AssertionError('it did not come')\n"
        )

    done = workplace.launch("--config", "stub.yaml", STUB_STEPS="1")

    assert done.returncode == 130, done.stderr
    assert [path.name for path in workplace.logs.iterdir()] == [snapshot.STORE]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_local_run_that_is_interrupted_ends_as_a_run_or_was_never_there(
    workplace: Workplace, moment: float
) -> None:
    process = start(workplace, "--config", "stub.yaml", STUB_STEPS="600")
    try:
        _, errors = process.communicate(timeout=moment)
    except subprocess.TimeoutExpired:
        press_ctrl_c(process)
        _, errors = process.communicate(timeout=60)

    assert process.returncode in (130, -signal.SIGINT, 1)
    left = [path.name for path in workplace.logs.glob("**/*") if path.is_dir()]
    if workplace.runs:
        [run] = workplace.runs
        assert f"logs/{run.label}" in errors
        assert [line["reason"] for line in ledger_lines(run)] in ([], ["stopped"])
        assert not any(is_running(report["pid"]) for report in worker_reports(run))
        assert not [name for name in left if name.endswith(".partial")]
    else:
        assert left in ([], [snapshot.STORE])  # the code alone, for the next launch
        assert "Traceback" not in errors or "KeyboardInterrupt" in errors


class SlowSlurm:
    """Slurm's programs as scripts; sbatch says that it was called and waits until it may answer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.asked, self.answer, self.queued = (folder / x for x in ("asked", "go", "queued"))
        self.write("scontrol", "echo 'Slurmctld(primary) at here is UP'")
        self.write("srun", "")
        self.write("squeue", "")
        self.write(
            "sbatch",
            'case "$*" in *--test-only*) exit 0;; esac\n'
            f"touch {self.asked}\n"
            f"while [ ! -e {self.answer} ]; do sleep 0.05; done\n"
            "for script; do :; done\n"
            'folder=$(sed -n "s/#SBATCH --chdir=//p" "$script")\n'
            f'echo "$folder" > {self.queued}\n'
            "echo 8",
        )

    def write(self, name: str, lines: str) -> None:
        (self.folder / name).write_text(f"#!/bin/sh\n{lines}\n")
        (self.folder / name).chmod(0o755)

    @property
    def path(self) -> str:
        return f"{self.folder}{os.pathsep}/usr/bin{os.pathsep}/bin"


SLURM = ("--config", "stub.yaml", "--engine", "slurm", "--set", "cluster.gpus_per_node=2")


@pytest.mark.parametrize("more", [(), ("--sweep", "run.seed=1,2")])
def test_ctrl_c_while_sbatch_talks_to_slurm_waits_for_its_word(
    workplace: Workplace, tmp_path: Path, more: tuple[str, ...]
) -> None:
    slurm = SlowSlurm(tmp_path / "bin")
    process = start(workplace, *SLURM, *more, PATH=slurm.path)
    eventually("sbatch is called", slurm.asked.exists)
    for _ in range(3):
        press_ctrl_c(process)
    slurm.answer.touch()
    output, errors = process.communicate(timeout=60)

    assert process.returncode == 130
    assert output.startswith("submitted job 8: "), errors
    assert len(workplace.runs) == (2 if more else 1)
    assert str(workplace.logs) in slurm.queued.read_text()


def test_ctrl_c_before_sbatch_leaves_nothing(workplace: Workplace, tmp_path: Path) -> None:
    slurm = SlowSlurm(tmp_path / "bin")
    reached = tmp_path / "reached"
    # The question before the run directory is made.
    slurm.write("sbatch", f"touch {reached}; sleep 60")
    process = start(workplace, *SLURM, PATH=slurm.path)
    eventually("sbatch --test-only", reached.exists)
    press_ctrl_c(process)
    output, errors = process.communicate(timeout=60)

    assert (process.returncode, output) == (130, "")
    assert "Traceback" not in errors
    assert list(workplace.logs.iterdir()) == []


def finished_run(workplace: Workplace, tmp_path: Path) -> tuple[SlowSlurm, RunDirectory]:
    """A run that was queued and has finished; the next sbatch waits."""
    slurm = SlowSlurm(tmp_path / "bin")
    slurm.answer.touch()
    assert workplace.launch(*SLURM, PATH=slurm.path).returncode == 0
    [run] = workplace.runs
    for path in (slurm.answer, slurm.asked, slurm.queued):
        path.unlink()
    run.results.write_text('{"steps": 3}')
    return slurm, run


def test_resume_that_is_interrupted_has_queued_its_job_and_says_so(
    workplace: Workplace, tmp_path: Path
) -> None:
    slurm, run = finished_run(workplace, tmp_path)

    process = start(workplace, "resume", "--set", "schedule.epochs=40", PATH=slurm.path)
    eventually("sbatch is called", slurm.asked.exists)
    press_ctrl_c(process)
    slurm.answer.touch()
    output, _ = process.communicate(timeout=60)

    assert output.startswith("submitted job 8: ")
    assert "epochs: 40" in run.config.read_text()
    assert (run.path / "results-step-3.json").exists()
    assert slurm.queued.exists()


def test_resume_that_slurm_refuses_leaves_the_run_as_it_was(
    workplace: Workplace, tmp_path: Path
) -> None:
    slurm, run = finished_run(workplace, tmp_path)
    before = run.config.read_text(), run.script.read_text()
    slurm.write("sbatch", "echo 'invalid account' >&2; exit 1")

    changes = ("--set", "schedule.epochs=40", "--set", "cluster.account=x")
    done = workplace.launch("resume", *changes, PATH=slurm.path)

    assert (done.returncode, "invalid account" in done.stderr) == (1, True)
    assert (run.config.read_text(), run.script.read_text()) == before
    assert run.results.exists()
    assert not (run.path / "results-step-3.json").exists()
