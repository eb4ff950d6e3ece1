"""TensorBoard as `launch.py tensorboard` serves it: the wanted runs, on this machine only."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.jobs.workplace import Workplace, eventually, is_running


@pytest.fixture
def three_runs(workplace: Workplace) -> Workplace:
    """Runs a/1, a/2 and b/3 of which each has one curve."""
    script = (
        "import sys\n"
        "from torch.utils.tensorboard import SummaryWriter\n"
        "for folder in sys.argv[1:]:\n"
        "    with SummaryWriter(folder) as writer:\n"
        "        writer.add_scalar('train/loss', 0.5, 1)\n"
    )
    runs = [workplace.logs / name for name in ("a/1", "a/2", "b/3")]
    folders = [str(run / "tensorboard") for run in runs]
    subprocess.run([sys.executable, "-c", script, *folders], check=True)
    for run in runs:
        (run / "config.yaml").touch()
    return workplace


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["a/1/tensorboard", "a/2/tensorboard", "b/3/tensorboard"]),
        (["a/2", "b"], ["a/2", "b/3"]),
    ],
)
def test_the_wanted_runs_are_served_on_loopback_and_nothing_is_left(
    three_runs: Workplace, arguments: list[str], expected: list[str]
) -> None:
    with subprocess.Popen(
        [sys.executable, "launch.py", "tensorboard", *arguments],
        cwd=three_runs.project,
        env=dict(three_runs.environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout
        assert select.select([process.stdout], [], [], 30)[0]
        lines = [process.stdout.readline() for _ in range(3)]
        url = next(word for word in lines[0].split() if word.startswith("http://127.0.0.1:"))
        port = url.rstrip("/").rpartition(":")[2]
        assert f"ssh -N -L {port}:127.0.0.1:{port} " in lines[2]

        def served() -> list[str] | None:
            connection = HTTPConnection("127.0.0.1", int(port), timeout=5)
            try:
                connection.request("GET", "/data/runs")
                found: list[str] = json.load(connection.getresponse())
            except OSError:
                return None
            finally:
                connection.close()
            return found

        assert sorted(eventually("runs are served", served, 60)) == expected
        board = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(timeout=30) == 0
        assert not is_running(board)


def test_a_port_that_is_taken_is_a_wrong_request(three_runs: Workplace) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])

        done = three_runs.launch("tensorboard", "--port", port)

    assert done.returncode == 2
    assert f"port {port}" in done.stderr
