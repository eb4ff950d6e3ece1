"""`python -m MODULE` in a process of its own, forked from one that has imported torch already.

The imports take a core several seconds, more than most of what is tested with them. Some tests
start a new interpreter nevertheless, as a user does.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from configs.origin import PACKAGES
from tests.conftest import PROJECT


@functools.cache
def context() -> Any:
    """What forks the processes; all that they need is imported once, in their parent."""
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["tests.preloaded"])
    return forks


class Started:
    """A running `python -m PROGRAM ARGUMENTS`, or `python PROGRAM` where that is a file.

    Its output lies in files until it has ended. In the process `first` is called before it.
    """

    def __init__(
        self,
        program: str | Path,
        *arguments: object,
        env: Mapping[str, str] | None = None,
        cwd: Path = PROJECT,
        first: Callable[[], None] | None = None,
    ) -> None:
        self.command = [str(program), *map(str, arguments)]
        self.folder = tempfile.TemporaryDirectory()
        self.outputs = [Path(self.folder.name, name) for name in ("out", "err")]
        variables = dict(os.environ if env is None else env)
        self.process = context().Process(
            target=_run, args=(self.command, variables, cwd, self.outputs, first)
        )
        self.process.start()

    def wait(self, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Wait until it has ended; what it printed, and its exit code."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            raise subprocess.TimeoutExpired(self.command, timeout)
        with self.folder:
            out, err = (path.read_text() for path in self.outputs)
        return subprocess.CompletedProcess(self.command, self.process.exitcode, out, err)


def run(
    program: str | Path, *arguments: object, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run what `Started` starts to its end."""
    return Started(program, *arguments, **options).wait()


def _run(
    command: list[str],
    variables: dict[str, str],
    cwd: Path,
    outputs: list[Path],
    first: Callable[[], None] | None,
) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(variables)
    for number, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    # A child of a fork server would start all processes of its own with another one.
    multiprocessing.set_start_method(None, force=True)
    program, *sys.argv[1:] = command
    if cwd != PROJECT:  # a project of its own, with its own code
        sys.path.insert(0, str(cwd))
        for name in [each for each in sys.modules if each.partition(".")[0] in PACKAGES]:
            del sys.modules[name]
    if first:
        first()
    if program.endswith(".py"):
        runpy.run_path(program, run_name="__main__")
    else:
        sys.modules.pop(program, None)  # it is run, and not what has been imported of it
        runpy.run_module(program, run_name="__main__", alter_sys=True)
