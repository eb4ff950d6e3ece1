"""TensorBoard as `launch.py tensorboard` serves it: the wanted runs, on this machine only."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from jobs import board, boardserver
from tests import warm
from tests.jobs.workplace import Workplace, eventually, is_running

RUNS = (
    "a/20260101-000000-aaaa",
    "a/20260102-000000-aaaa",
    "b/20260103-000000-bbbb/0-lr=0.1,seed=1",
    "b/20260103-000000-bbbb/1-lr=0.2,seed=1",
)
ELEMENTS = ["0-lr=0.1,seed=1", "1-lr=0.2,seed=1"]
LISTENING = "0A"  # a socket's state in /proc/net/tcp


def write_curves(workplace: Workplace, *names: str) -> None:
    """A run directory with one curve each."""
    runs = [workplace.logs / name for name in names]
    script = workplace.project / "write_curves.py"
    script.write_text(
        "import sys\n"
        "from torch.utils.tensorboard import SummaryWriter\n"
        "for folder in sys.argv[1:]:\n"
        "    with SummaryWriter(folder) as writer:\n"
        "        writer.add_scalar('train/loss', 0.5, 1)\n"
    )
    assert warm.run(script, *(run / "tensorboard" for run in runs)).returncode == 0
    for run in runs:
        (run / "config.yaml").touch()


@pytest.fixture
def four_runs(workplace: Workplace, tmp_path: Path) -> Iterator[Workplace]:
    """Two runs called a and a sweep b of two; whatever serves them is ended with the test."""
    environment = {**workplace.environment, "XDG_STATE_HOME": str(tmp_path / "state")}
    workplace = replace(workplace, environment=environment)
    write_curves(workplace, *RUNS)
    (workplace.logs / "b" / "20260103-000000-bbbb" / "sweep.json").write_text("{}")
    yield workplace
    if servers(workplace):
        workplace.launch("tensorboard", "--stop")


def servers(workplace: Workplace) -> list[boardserver.Server]:
    folder = Path(workplace.environment["XDG_STATE_HOME"]) / "slurm-finetune" / "tensorboard"
    return [server for each in folder.glob("*/") if (server := boardserver.read(each))]


def get(port: int, path: str) -> Any:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return json.load(connection.getresponse())
    finally:
        connection.close()


def shown(port: int, count: int) -> dict[str, list[str]]:
    """Runs and tags, once there are so many."""

    def loaded() -> dict[str, list[str]] | None:
        tags = get(port, "/data/plugin/scalars/tags")
        return {run: list(found) for run, found in tags.items()} if len(tags) >= count else None

    found: dict[str, list[str]] = eventually("the runs are shown", loaded, 60)
    return found


def port_of(printed: str) -> int:
    match = re.search(r"http://127\.0\.0\.1:(\d+)/", printed)
    assert match, printed
    return int(match.group(1))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], list(RUNS)),
        (["a/20260102", "a"], list(RUNS[:2])),
        (["a/20260102", "b"], list(RUNS[1:])),
        (["b"], ELEMENTS),
        (["b/20260103-000000-bbbb/1-"], ELEMENTS[1:]),
    ],
)
def test_the_wanted_runs_are_served_once_each_until_stop(
    four_runs: Workplace, arguments: list[str], expected: list[str]
) -> None:
    done = four_runs.launch("tensorboard", *arguments)

    assert (done.returncode, done.stderr) == (0, "")
    port = port_of(done.stdout)
    assert f"ssh -N -L {port}:127.0.0.1:{port} " in done.stdout
    assert shown(port, len(expected)) == {run: ["train/loss"] for run in expected}
    [server] = servers(four_runs)

    stopped = four_runs.launch("tensorboard", "--stop", *arguments)

    assert (stopped.returncode, stopped.stdout) == (0, f"stopped TensorBoard on port {port}\n")
    assert not is_running(server.pid)
    assert servers(four_runs) == []
    again = four_runs.launch("tensorboard", "--stop")
    assert (again.returncode, "no TensorBoard of yours" in again.stderr) == (2, True)


def test_it_listens_to_this_machine_alone(four_runs: Workplace) -> None:
    port = port_of(four_runs.launch("tensorboard").stdout)

    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    ]
    addresses = [row[1] for row in rows if row[3] == LISTENING and row[1].endswith(f":{port:04X}")]
    assert addresses == [f"0100007F:{port:04X}"]  # 127.0.0.1


def test_one_that_serves_the_same_runs_is_used_again(four_runs: Workplace) -> None:
    names = [("b",), ("b/20260103-000000-bbbb", "b")]
    with ThreadPoolExecutor(2) as pool:  # at the same time
        both = pool.map(lambda words: four_runs.launch("tensorboard", *words), names)
        first, same = sorted(both, key=lambda done: "already" in done.stdout)
    other = four_runs.launch("tensorboard")
    moved = four_runs.launch("tensorboard", "b", "--port", "6006")

    assert "serves these runs already" in same.stdout
    assert port_of(same.stdout) == port_of(first.stdout) != port_of(other.stdout)
    assert moved.returncode == 2
    assert f"on port {port_of(first.stdout)} already; to move it: " in moved.stderr
    assert len(servers(four_runs)) == 2


@pytest.mark.parametrize("harm", ["killed", "another program"])
def test_one_that_was_killed_is_replaced(four_runs: Workplace, harm: str) -> None:
    four_runs.launch("tensorboard")
    [server] = servers(four_runs)
    os.kill(server.pid, signal.SIGKILL)
    eventually("it is gone", lambda: not is_running(server.pid))
    if harm == "another program":  # has its process id now
        [record] = Path(four_runs.environment["XDG_STATE_HOME"]).rglob("server.json")
        record.write_text(json.dumps({**json.loads(record.read_text()), "pid": os.getpid()}))

    second = four_runs.launch("tensorboard")

    assert (second.returncode, "already" in second.stdout) == (0, False), second.stderr
    assert len(shown(port_of(second.stdout), 4)) == 4


def test_runs_that_begin_while_all_are_served_appear(
    four_runs: Workplace,
) -> None:
    path = four_runs.project / "jobs" / "boardserver.py"
    text = path.read_text().replace("RELOAD_SECONDS = 30", "RELOAD_SECONDS = 1")
    path.write_text(text)
    port = port_of(four_runs.launch("tensorboard").stdout)
    assert len(shown(port, 4)) == 4

    write_curves(four_runs, "a/20260105-000000-cccc")

    assert "a/20260105-000000-cccc" in shown(port, 5)


def test_a_run_keeps_its_name_when_others_come(four_runs: Workplace, tmp_path: Path) -> None:
    links = tmp_path / "links"
    sweep = [run for run in four_runs.runs if run.sweep]

    boardserver.link_runs(links, sweep, short=False)
    boardserver.link_runs(links, four_runs.runs, short=False)

    assert {str(link.relative_to(links)) for link in links.rglob("*") if link.is_symlink()} == {
        *RUNS
    }


def test_a_port_that_is_taken_is_a_wrong_request(four_runs: Workplace) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])

        done = four_runs.launch("tensorboard", "--port", port)

    assert done.returncode == 2
    assert f"port {port}" in done.stderr
    assert servers(four_runs) == []


def test_the_slow_loader_is_told_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import tensorboard_data_server

    assert board.why_slow() is None
    broken = tmp_path / "server"
    broken.write_text("#!/bin/sh\necho \"version 'GLIBC_2.31' not found\" >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(tensorboard_data_server, "server_binary", lambda: str(broken))
    assert board.why_slow() == f"{broken} does not start: version 'GLIBC_2.31' not found"
    monkeypatch.setattr(tensorboard_data_server, "server_binary", lambda: None)
    assert "no program for this kind of machine" in (board.why_slow() or "")


@pytest.mark.parametrize(
    ("name", "came_by", "expected"),
    [
        ("login1.cluster.example.org", "", "login1.cluster.example.org"),
        ("login1.cluster.example.org", "10.0.0.9 5 192.0.2.7 22", "login1.cluster.example.org"),
        ("login1", "10.0.0.9 50000 192.0.2.7 22", "192.0.2.7"),
        ("localhost.localdomain", "10.0.0.9 50000 192.0.2.7 2222", "192.0.2.7"),
        ("login1", "", socket.gethostname()),
    ],
)
def test_the_host_is_one_that_a_laptop_knows(
    monkeypatch: pytest.MonkeyPatch, name: str, came_by: str, expected: str
) -> None:
    monkeypatch.setattr(socket, "getfqdn", lambda: name)
    monkeypatch.setenv("SSH_CONNECTION", came_by)

    words = board.ssh_words(6006)

    assert words.endswith(f"@{expected}")
    assert ("-p 2222 " in words) == came_by.endswith(" 2222")
