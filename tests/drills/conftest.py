"""What the drills on the cluster share: their own cluster, the runs to compare with, the table."""

from __future__ import annotations

import contextlib
import math
import signal
import statistics
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import pytest

from tests.drills import harm
from tests.drills.disturbed import BATCH_SIZE, Drill, make_place, start, write_recipe
from tests.jobs.workplace import Workplace
from tests.slurm.conftest import running_cluster
from tests.train.runs import board, rows

DRILL_SECONDS = 1800
HEAD = ("drill", "attempts", "steps taken again", "seconds from the disturbance", "verdict")
# Longer than two attempts of two minutes can train, also where the machine gets half as fast again
# meanwhile: Slurm lets them know 17 s before their time.
LONG_TRAINING_SECONDS = 330
TABLE = pytest.StashKey[list[tuple[str, ...]]]()
RELEASE = pytest.StashKey[str]()


@pytest.fixture(scope="session")
def cluster_environment(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    with running_cluster(str(harm.STATE)) as environment:
        version = ["sinfo", "--version"]
        said = subprocess.run(version, env=environment, capture_output=True, text=True, check=True)
        request.config.stash[RELEASE] = said.stdout.strip()
        yield environment


@pytest.fixture(scope="session")
def place(
    tmp_path_factory: pytest.TempPathFactory,
    digits_root: Path,
    cluster_environment: dict[str, str],
) -> Workplace:
    return make_place(tmp_path_factory.mktemp("drills"), digits_root, cluster_environment)


@pytest.fixture(autouse=True)
def time_limit() -> Iterator[None]:
    """No drill goes on for ever, whatever it waits for."""

    def give_up(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"the drill has not ended within {DRILL_SECONDS} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(DRILL_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def drill(request: pytest.FixtureRequest, place: Workplace) -> Iterator[Callable[..., Drill]]:
    """Start a run that is going to be disturbed; it is in the table, and ends with the test."""
    drills: list[Drill] = []

    def begin(name: str, *settings: str, workplace: Workplace = place, **options: str) -> Drill:
        drills.append(start(name, workplace, *settings, **options))
        return drills[-1]

    yield begin
    for each in drills:
        request.config.stash.setdefault(TABLE, []).append(each.row())
        each.clean_up()


@contextlib.contextmanager
def left_alone(config: pytest.Config, name: str, place: Workplace, recipe: str) -> Iterator[Drill]:
    """A run that nothing disturbs, seen to its end."""
    drill = start(name, place, recipe=recipe)
    try:
        lines = drill.await_end(DRILL_SECONDS)
        assert [line["reason"] for line in lines] == ["finished"]
        for tag, points in board(drill.run.path).items():
            steps = [step for step, _ in points]
            assert steps == sorted(set(steps)), tag
        drill.verdict = "what the others are compared with"
        config.stash.setdefault(TABLE, []).append(drill.row())
        yield drill
    finally:
        drill.clean_up()


@pytest.fixture(scope="session")
def calm(request: pytest.FixtureRequest, place: Workplace) -> Iterator[Drill]:
    """The run that is left alone."""
    with left_alone(request.config, "nothing", place, "drill") as drill:
        yield drill


@pytest.fixture(scope="session")
def long_calm(
    request: pytest.FixtureRequest,
    place: Workplace,
    digits_root: Path,
    calm: Drill,  # so that there is a run whose speed is known
) -> Iterator[Drill]:
    """One that takes so long on this machine that two limits of two minutes are too short."""
    lines = [line for run in place.runs for line in rows(run.path) if line["mode"] == "train"]
    # Others may have slowed the machine down for a while, or left it alone for a moment.
    images_per_second = statistics.median(line["images_per_second"] for line in lines)
    steps = math.ceil(LONG_TRAINING_SECONDS * images_per_second / BATCH_SIZE)
    write_recipe(place, "long", digits_root, steps)
    with left_alone(request.config, f"nothing, for {steps} steps", place, "long") as drill:
        yield drill


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print what happened as the table of docs/nothing-is-lost.md."""
    table = config.stash.get(TABLE, [])
    if not table:
        return
    release = config.stash.get(RELEASE, "Slurm")
    terminalreporter.section(f"drills on {release}, {datetime.now(UTC):%Y-%m-%d}")
    for row in (HEAD, ("---",) * len(HEAD), *table):
        terminalreporter.write_line(f"| {' | '.join(row)} |")
