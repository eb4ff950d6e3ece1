"""The quickstart, shortened to some steps; .ci/run takes it whole and asks for 90 %."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PROJECT


@pytest.mark.slow
def test_quickstart_trains_on_digits_and_says_what_comes_next(tmp_path: Path) -> None:
    command = [sys.executable, "launch.py", "--config", "quickstart.yaml"]
    command += ["--set", f"run.root={tmp_path / 'logs'}", "--set", f"data.root={tmp_path / 'data'}"]
    command += ["--set", "train.max_steps=2", "--set", "data.test_images=100"]
    done = subprocess.run(
        command, cwd=PROJECT, capture_output=True, text=True, timeout=600, check=False
    )

    assert done.returncode == 0, done.stderr
    [run] = (tmp_path / "logs" / "quickstart").iterdir()
    results = json.loads((run / "results.json").read_text())
    assert results["steps"] == 2
    assert results["world_size"] >= 1
    assert f"top-1 {results['accuracy_top-1']:.2f} %" in done.stdout
    assert str(run) in done.stdout
    assert "launch.py tensorboard" in done.stdout

    page = tmp_path / "report.html"
    report = [sys.executable, "launch.py", "report", str(run), "--output", str(page)]
    subprocess.run(report, cwd=PROJECT, check=True)
    mistakes = json.loads((run / "mistakes.json").read_text())["mistakes"]
    assert f'value="{results["accuracy_top-1"]!r}"' in page.read_text()
    assert [each["png"] for each in mistakes if each["png"] not in page.read_text()] == []
