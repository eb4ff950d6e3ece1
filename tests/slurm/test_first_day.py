"""A new user's first day with the real worker: the commands of the README in turn."""

from __future__ import annotations

import csv
import io
import json
import re
import statistics
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from jobs.rundir import RunDirectory
from tests.jobs.workplace import Workplace, eventually, ledger_lines
from tests.slurm.cluster import await_ledger_end, await_status, take_real_worker

pytestmark = pytest.mark.slurm

RECIPE = """\
cluster: {engine: slurm, gpus_per_node: 1, cpus_per_gpu: 1, time_limit: "00:20:00"}
data: {root: %s, md5: none, resolution: 32, train_images: 16, test_images: 16}
optimizer: {lr: 0.02}
schedule: {epochs: 2}
train: {batch_size: 16, device: cpu}
evaluate: {every_epochs: 1}
logging: {every_steps: 1}
"""
RATES = ("0.01", "0.04")
SWEEP = ("--sweep", f"optimizer.lr={','.join(RATES)}", "--sweep", "run.seed=1,2")
END_SECONDS = 300
# How far a pixel's channels are apart, of 255, and how many such pixels a line has at least.
COLOURED, LINE_PIXELS = 20, 50
TAGS = {"train/loss", "train/lr", "val/accuracy_top-1"}


@pytest.fixture
def first_day(workplace: Workplace, digits_root: Path) -> Workplace:
    """The project with the real worker and a recipe that takes seconds."""
    take_real_worker(workplace)
    recipe = workplace.project / "configs" / "mine.yaml"
    recipe.write_text(RECIPE % digits_root)
    return workplace


def done(workplace: Workplace, *arguments: str) -> str:
    """What a command prints that must succeed."""
    answer = workplace.launch(*arguments)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


def test_doctor_sweep_watch_cancel_resume_report_and_tensorboard(
    first_day: Workplace, browser: Chrome
) -> None:
    here = first_day
    done(here, "doctor", "--config", "mine.yaml")

    said = done(here, "--config", "mine.yaml", *SWEEP, "--set", "cluster.array_parallelism=2")
    match = re.search(r"sweep directory: logs/(\S+)", said)
    assert match, said
    sweep = match.group(1)
    runs = here.runs
    assert [run.path.name for run in runs] == [
        f"{2 * i + j}-lr={lr},seed={seed}"
        for i, lr in enumerate(RATES)
        for j, seed in enumerate((1, 2))
    ]

    for run in runs[:2]:
        eventually(f"a step of {run.label}", run.metrics.exists, END_SECONDS)
    states = [line.split()[1] for line in done(here, "status", sweep).splitlines() if "lr=" in line]
    assert sorted(set(states)) == ["queued", "running"]
    last = runs[-1]
    done(here, "cancel", last.label)
    await_status(here, last, "cancelled")
    done(here, "watch", runs[0].label)
    assert ledger_lines(runs[0])[-1]["reason"] == "finished"
    done(here, "resume", last.label)

    deadline = time.monotonic() + END_SECONDS
    for run in runs:
        while not run.results.exists():
            assert time.monotonic() < deadline, f"{run.label} does not end"
            time.sleep(0.5)
        assert await_ledger_end(run, len(ledger_lines(run)))["reason"] == "finished"
    check_report(here, sweep, runs)
    check_board(here, sweep, runs, browser)


def check_report(here: Workplace, sweep: str, runs: list[RunDirectory]) -> None:
    """The means over seeds are those of results.json, and the page has them, too."""
    table = done(here, "report", sweep)
    scores = {run.path.name: json.loads(run.results.read_text())["accuracy_top-1"] for run in runs}
    for lr in RATES:
        pair = [score for name, score in scores.items() if f"lr={lr}," in name]
        mean, deviation = statistics.mean(pair), statistics.stdev(pair)
        assert re.search(rf"{mean:.2f} (±|\+-) {deviation:.2f}", table), table
    rows = list(csv.DictReader(io.StringIO(done(here, "report", sweep, "--format", "csv"))))
    assert len(rows) == len(runs)


def check_board(here: Workplace, sweep: str, runs: list[RunDirectory], browser: Chrome) -> None:
    """TensorBoard shows the curves of all runs of the sweep, each under what differs."""
    try:
        match = re.search(r"http://127\.0\.0\.1:\d+/", done(here, "tensorboard", sweep))
        assert match
        browser.set_window_size(1600, 9000)  # it draws only the charts that are in view
        browser.get(f"{match.group()}#timeseries")
        eventually("the curves are drawn", lambda: drawn_curves(browser) >= TAGS, 60)
        text = browser.find_element(By.TAG_NAME, "body").text
        assert [run.path.name for run in runs if run.path.name not in text] == []
    finally:
        done(here, "tensorboard", "--stop")


def drawn_curves(browser: Chrome) -> set[str]:
    """Those of TAGS whose charts have something in colour; axes and grid are grey."""
    drawn = set()
    try:
        for card in browser.find_elements(By.TAG_NAME, "scalar-card"):
            title = card.find_element(By.TAG_NAME, "tb-truncated-path").get_attribute("title")
            if title not in TAGS:
                continue
            picture = card.find_element(By.TAG_NAME, "canvas").screenshot_as_png
            pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"), np.int16)
            if (np.ptp(pixels, axis=2) > COLOURED).sum() > LINE_PIXELS:
                drawn.add(title)
    except (NoSuchElementException, StaleElementReferenceException):
        pass  # it is being built
    return drawn
