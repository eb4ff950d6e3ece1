"""A copy of the project whose worker is the stub, and a way to use it as a person would."""

from __future__ import annotations

import compileall
import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.controller import clean_environment
from jobs.rundir import RunDirectory, all_runs
from tests import warm
from tests.conftest import PROJECT

STUB = Path(__file__).with_name("stub_worker.py")


@dataclass(frozen=True)
class Workplace:
    """A project folder, what is in the environment, and the commands."""

    project: Path
    environment: Mapping[str, str] = field(default_factory=clean_environment)

    @property
    def logs(self) -> Path:
        return self.project / "logs"

    @property
    def runs(self) -> list[RunDirectory]:
        return all_runs(self.logs)

    def launch(
        self, *arguments: str, umask: int = 0o022, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """`python launch.py ARGUMENTS` to its end."""
        started = warm.Started(
            "launch.py",
            *arguments,
            env={**self.environment, **variables},
            cwd=self.project,
            first=functools.partial(os.umask, umask),
        )
        return started.wait(timeout=120)

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """`python launch.py ARGUMENTS`, going on in a session of its own."""
        return subprocess.Popen(
            self._command(arguments),
            cwd=self.project,
            env={**self.environment, **variables},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "launch.py", *arguments]


@functools.cache
def compiled() -> tempfile.TemporaryDirectory[str]:
    """The launcher's packages with their bytecode, which a process needs half a second to make."""
    folder = tempfile.TemporaryDirectory()
    ignored = shutil.ignore_patterns("__pycache__", "site.yaml")
    for part in ("jobs", "configs"):
        shutil.copytree(PROJECT / part, Path(folder.name, part), ignore=ignored)
    compileall.compile_dir(folder.name, quiet=1)
    return folder


def make_workplace(folder: Path, environment: Mapping[str, str]) -> Workplace:
    """A project in `folder` with the stub as its worker and a recipe for one of it."""
    shutil.copytree(compiled().name, folder)  # with the times of the files, or it would not be used
    shutil.copy(PROJECT / "launch.py", folder)
    (folder / "train").mkdir()
    shutil.copy(STUB, folder / "train" / "__main__.py")
    (folder / "train" / "__init__.py").touch()
    (folder / "logs").mkdir()
    (folder / "data").mkdir()
    (folder / "data" / "cifar-10-python.tar.gz").write_bytes(b"an archive")
    (folder / "configs" / "stub.yaml").write_text(
        "cluster: {engine: local, gpus_per_node: all, cpu_workers: 1, cpus_per_gpu: 1}\n"
        "data: {root: data, md5: none}\n"
        "train: {batch_size: 32, device: cpu}\n",
        encoding="utf-8",
    )
    return Workplace(folder, environment)


def eventually(what: str, condition: Callable[[], Any], seconds: float = 30) -> Any:
    """Wait until `condition` gives something true, and return that."""
    deadline = time.monotonic() + seconds
    pause = 0.1
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(pause)
        pause = min(1.2 * pause, 0.5)  # many conditions start a program
    return value


def ledger_lines(run: RunDirectory) -> list[dict[str, Any]]:
    """The attempt ledger as it lies in the file."""
    if not run.attempts.exists():
        return []
    return [json.loads(line) for line in run.attempts.read_text().splitlines()]


def worker_reports(run: RunDirectory, attempt: int = 1) -> list[dict[str, Any]]:
    """What each rank's stub saw of its environment, by rank."""
    logs = sorted(run.attempt(attempt).glob("rank-*.log"))
    return [json.loads(text.splitlines()[0]) for log in logs if (text := log.read_text())]


def writable_by_others(folder: Path) -> list[str]:
    """What below a folder somebody else than its owner may write."""
    paths = [path for path in folder.rglob("*") if not path.is_symlink()]
    return [str(path) for path in paths if path.stat().st_mode & 0o022]


@contextlib.contextmanager
def as_another_user(folder: Path) -> Iterator[None]:
    """In `folder`, as somebody who is not root and may enter it; what is above it is closed."""
    user, before = os.geteuid(), Path.cwd()
    folder.chmod(0o755)
    os.chdir(folder)
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        os.chdir(before)


def saved_steps(run: RunDirectory) -> list[int]:
    """The steps of the checkpoints that a run has, oldest first."""
    found = (run.path / "checkpoints").glob("step-*.json")
    return sorted(int(path.stem[5:]) for path in found)


def is_running(pid: int) -> bool:
    """Whether a process exists and is more than an entry that nobody has waited for."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def end(process: subprocess.Popen[str], number: signal.Signals) -> int:
    """Send a signal and wait for the end."""
    process.send_signal(number)
    return process.wait(timeout=60)
