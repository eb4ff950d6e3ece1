"""The one run of a GPU: each part leaves its file, and what comes late is left out and said."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import PROJECT


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--small", "--output", str(folder), *arguments],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_parts_leave_their_files_and_a_summary(tmp_path: Path) -> None:
    done = run(tmp_path, "--parts", "mmcls", "finetune", "--seeds", "5")

    assert done.returncode == 0, [path.read_text() for path in tmp_path.glob("*.log")]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [part["ended"] for part in summary["parts"].values()] == [0, 0]
    mmcls = json.loads((tmp_path / "mmcls.json").read_text())["figures"]
    seconds = mmcls["epochs"] * (6250 * mmcls["step_ms"] + 1250 * mmcls["test_step_ms"]) / 1e3
    assert abs(mmcls["extrapolated_s"] / seconds - 1) < 1e-3
    assert summary["found"]["MMClassification's way, extrapolated"] == mmcls
    assert summary["found"]["finetune.yaml"]["finished"] == 1


def test_what_would_come_late_is_not_begun(tmp_path: Path) -> None:
    done = run(tmp_path, "--seconds", "30")

    assert done.returncode == 1
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert {part["ended"] for part in summary["parts"].values()} == {
        "not begun, for the time was up"
    }
    assert len(summary["parts"]) == 5
