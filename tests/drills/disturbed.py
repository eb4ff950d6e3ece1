"""A run of the real worker on the cluster, what happens to it, and how its end is judged."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.rundir import RunDirectory, seconds_of
from tests.conftest import PROJECT
from tests.drills.crash_points import timeless
from tests.jobs.workplace import Workplace, eventually, ledger_lines, make_workplace
from tests.train.runs import board, results, rows, shown_by_data_server, without_timings

# Two nodes of two tasks; each attempt has one thread a worker, or the last bits would differ.
RECIPE = """\
cluster: {engine: slurm, nodes: 2, gpus_per_node: 2, cpus_per_gpu: 1, time_limit: "00:20:00"}
data: {root: %s, md5: none, resolution: 32, train_images: 64, test_images: 32}
optimizer: {lr: 0.02}
schedule: {epochs: 1000, kind: cosine}
train: {batch_size: 16, device: cpu, label_smoothing: 0.1, max_steps: %d}
evaluate: {every_epochs: 2}
checkpoint: {every_epochs: 2}
logging: {every_steps: 3}
"""
STEPS = 48
BATCH_SIZE = 16
END_SECONDS = 600


@dataclass
class Drill:
    """One run, the moments at which it was disturbed, and the line about it in the table."""

    name: str
    workplace: Workplace
    run: RunDirectory
    job: str
    moments: list[float] = field(default_factory=list)
    verdict: str = "FAILED"

    def disturb(self, how: Callable[[], Any]) -> None:
        """Do something to the run, and remember when."""
        self.moments.append(time.time())
        how()

    def slurm(self, *command: str) -> str:
        """What one of Slurm's programs prints."""
        return slurm(self.workplace, *command)

    def await_step(self, attempt: int, step: int) -> None:
        """Wait until an attempt has written down that it has taken a step."""

        def is_taken() -> bool:
            self._refuse_last_word()
            lines = rows(self.run.path) if self.run.metrics.exists() else []
            return any(row["attempt"] == attempt and row["step"] >= step for row in lines)

        eventually(f"step {step} in attempt {attempt}", is_taken, END_SECONDS)

    def await_attempt(self, number: int, *, ended: bool = False) -> dict[str, Any]:
        """Wait until an attempt has started, or ended; its line in the ledger."""

        def line() -> dict[str, Any] | None:
            lines = ledger_lines(self.run)
            found = lines[number - 1] if len(lines) >= number else None
            return found if found and (found["end"] or not ended) else None

        found: dict[str, Any] = eventually(f"attempt {number} of {self.name}", line, END_SECONDS)
        return found

    def await_end(self, seconds: float = END_SECONDS) -> list[dict[str, Any]]:
        """Wait until the run has finished; its ledger."""

        def is_finished() -> bool:
            self._refuse_last_word()
            lines = ledger_lines(self.run)
            return bool(lines) and lines[-1]["reason"] == "finished"

        eventually(f"the end of {self.name}", is_finished, seconds)
        return ledger_lines(self.run)

    def differences(self, calm: Path) -> list[str]:
        """In what the finished run differs from the one that was left alone."""
        looks: dict[str, Callable[[Path], Any]] = {
            "weights": lambda path: results(path)["weights_sha256"],
            "scores": lambda path: {k: v for k, v in results(path).items() if "accuracy" in k},
            "metrics.jsonl": without_timings,
            "TensorBoard": lambda path: timeless(board(path)),
            "TensorBoard's data server": lambda path: timeless(shown_by_data_server(path)),
        }
        return [name for name, look in looks.items() if look(self.run.path) != look(calm)]

    def must_equal(self, calm: Drill) -> None:
        """Judge the finished run, bit for bit."""
        different = self.differences(calm.run.path)
        assert different == [], f"{self.name}: differs in {', '.join(different)}"
        self.verdict = "bit-identical"

    def row(self) -> tuple[str, ...]:
        """The run's line in the table."""
        lines = ledger_lines(self.run)
        reasons = ", ".join(line["reason"] or "running" for line in lines)
        again = sum(steps_lost(line) for line in lines)
        return self.name, reasons, str(again), self._waits(lines), self.verdict

    def _waits(self, lines: list[dict[str, Any]]) -> str:
        starts = [seconds_of(line["start"]) for line in lines]
        ends = [seconds_of(line["end"] or line["start"]) for line in lines]
        if not self.moments:
            between = [f"{start - end:.0f}" for end, start in zip(ends, starts[1:], strict=False)]
            return f"{', '.join(between)} between attempts" if between else "-"
        waits = []
        for moment in self.moments:
            later = [start for start in starts if start > moment]
            to = f"{later[0] - moment:.0f} to the next attempt, " if later else ""
            waits.append(f"{to}{ends[-1] - moment:.0f} to the end")
        return "; ".join(waits)

    def clean_up(self) -> None:
        """End whatever the run still has in the queue, and delete its checkpoints."""
        queue = self.slurm("squeue", "--noheader", "--format=%i|%Z").splitlines()
        jobs = [
            job for job, _, folder in (each.partition("|") for each in queue) if self._is(folder)
        ]
        if jobs:
            self.slurm("scancel", *jobs)
        shutil.rmtree(self.run.checkpoints, ignore_errors=True)

    def _is(self, folder: str) -> bool:
        """Whether a job that works in `folder` is one of the run's."""
        return Path(folder).resolve() == self.run.code.resolve()

    def _refuse_last_word(self) -> None:
        _, _, story = self.run.launcher_log.read_text().rpartition("resumed by hand")
        assert "is not started again" not in story, story


def steps_lost(line: dict[str, Any]) -> int:
    """How many steps that an attempt had written down the next one had to take again."""
    if line["reason"] == "finished":
        return 0
    return max(0, (line["last_step"] or 0) - (line["saved_step"] or 0))


def make_place(folder: Path, digits: Path, environment: Mapping[str, str]) -> Workplace:
    """A copy of the project with its own worker."""
    workplace = make_workplace(folder / "my project", environment)
    shutil.rmtree(workplace.project / "train")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PROJECT / "train", workplace.project / "train", ignore=ignored)
    (folder / "storage").mkdir()
    workplace.logs.rmdir()
    workplace.logs.symlink_to(folder / "storage")
    write_recipe(workplace, "drill", digits, STEPS)
    return workplace


def write_recipe(workplace: Workplace, name: str, digits: Path, steps: int) -> None:
    """A recipe of so many steps, for `--config NAME.yaml`."""
    (workplace.project / "configs" / f"{name}.yaml").write_text(RECIPE % (digits, steps))


def start(name: str, workplace: Workplace, *settings: str, recipe: str = "drill") -> Drill:
    """Queue a run."""
    before = set(workplace.runs)
    options = [word for text in settings for word in ("--set", text)]
    done = workplace.launch("--config", f"{recipe}.yaml", *options)
    assert done.returncode == 0, done.stderr
    [run] = set(workplace.runs) - before
    return Drill(name, workplace, run, submitted_job(done.stdout))


def submitted_job(answer: str) -> str:
    """The job id in what `launch.py` prints when it has queued a job."""
    match = re.search(r"submitted job (\d+)", answer)
    assert match, answer
    return match.group(1)


def slurm(workplace: Workplace, *command: str) -> str:
    """What one of Slurm's programs prints."""
    environment = dict(workplace.environment)
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout
