"""The benchmarks that are quick enough run here in small, so that they never rot."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from jobs.controller import clean_environment
from tests import warm
from tests.conftest import PROJECT


def test_status_asks_slurm_once_and_opens_few_files(tmp_path: Path) -> None:
    output = tmp_path / "status.json"
    sizes = ["--finished", "30", "--live", "4", "--runs", "1", "--output", str(output)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.status", *sizes],
        cwd=PROJECT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
    )

    assert "30 finished and 4 live runs" in done.stdout
    figures = json.loads(output.read_text())["seconds"]
    assert [found["queries"] for found in figures.values()] == [{"squeue": 1}, {"squeue": 1}]
    # Of each finished run one file, of a live one at most four, of each whether it is local.
    assert figures["launch.py status"]["opened"] == {
        "launcher.json": 30,
        "results.json": 20,
        "config.yaml": 4,
        "attempts.jsonl": 4,
        "metrics.jsonl": 4,
    }
    assert figures["launch.py status --all"]["opened"] == {
        "results.json": 30,
        "config.yaml": 4,
        "attempts.jsonl": 4,
        "metrics.jsonl": 4,
    }


def test_parity_says_how_to_install_what_it_compares_with(tmp_path: Path) -> None:
    (tmp_path / "mmpretrain.py").write_text("raise ImportError('not here')")
    script = tmp_path / "start.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from benchmarks.mmpretrain_parity import main; sys.exit(main())"
    )
    done = warm.run(script)

    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install --no-deps mmpretrain==1.2.0 mmengine==0.10.7" in done.stderr
    assert done.stderr.endswith("(not here)\n")
