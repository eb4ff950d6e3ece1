"""The one run of a GPU: each part leaves its file, and what comes late is left out and said."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import gpu
from tests.conftest import PROJECT


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--small", "--output", str(folder), *arguments],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )


def is_running(process: int) -> bool:
    """A zombie is not: it only waits to be waited for."""
    try:
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_parts_leave_their_files_and_a_summary_and_a_run_s_times_add_up(tmp_path: Path) -> None:
    done = run(tmp_path, "--parts", "mmcls", "finetune", "--seeds", "5")

    assert done.returncode == 0, [path.read_text() for path in tmp_path.glob("*.log")]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [part["ended"] for part in summary["parts"].values()] == [0, 0]
    mmcls = json.loads((tmp_path / "mmcls.json").read_text())["figures"]
    seconds = mmcls["epochs"] * (6250 * mmcls["step_ms"] + 1250 * mmcls["test_step_ms"]) / 1e3
    assert abs(mmcls["extrapolated_s"] / seconds - 1) < 1e-3
    assert summary["found"]["MMClassification's way, extrapolated"] == mmcls
    assert summary["found"]["finetune.yaml"]["finished"] == 1

    recipe = json.loads((tmp_path / "finetune.json").read_text())["recipes"]["finetune.yaml"]
    [timed] = recipe["runs"]
    assert (timed["exit_code"], timed["seed"], timed["steps"], timed["of_steps"]) == (0, 5, 4, 4)
    assert 0 < timed["start_up_s"] < timed["to_target_s"] < timed["process_s"]
    late = timed["to_target_s"] - timed["to_target_without_start_up_s"]
    assert late == pytest.approx(timed["start_up_s"], abs=0.02)
    assert timed["training_s"] == timed["training_s_of_all_steps"]
    assert recipe["summary"]["accuracy_top-1"] == {
        "mean": timed["accuracy_top-1"],
        "deviation": None,
    }
    assert f"{timed['training_s']:.2f}" in (tmp_path / "finetune.log").read_text()


def test_what_would_come_late_is_not_begun(tmp_path: Path) -> None:
    done = run(tmp_path, "--seconds", "30")

    assert done.returncode == 1
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert {part["ended"] for part in summary["parts"].values()} == {
        "not begun, for the time was up"
    }
    assert len(summary["parts"]) == 6


def test_what_a_part_leaves_running_ends_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next part has the GPU for itself."""
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "waits.py").write_text(
        "import subprocess, sys\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        "print(child.pid, flush=True)\n"
        "child.wait() if sys.argv[1] == 'late' else None\n"
    )
    monkeypatch.setattr(gpu, "PROJECT", tmp_path)
    monkeypatch.setattr(gpu, "SECONDS_TO_END", 0.0)

    for name, ended, limit in (("late", "cut off", 2.0), ("early", 0, 60.0)):
        done = gpu.run_part(name, ["waits", name], tmp_path, limit)

        assert done["ended"] == ended
        child = int((tmp_path / f"{name}.log").read_text())
        deadline = time.monotonic() + 30
        while is_running(child) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not is_running(child)
