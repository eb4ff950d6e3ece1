"""TensorBoard for runs, on the login node and for its user alone.

It goes on in the background, so that the terminal and the laptop behind it can be closed, until
`tensorboard --stop`. Each one has a folder in the user's home, which says where it serves.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from jobs import attachment, boardserver, failure, rundir
from jobs.boardserver import Server
from jobs.errors import RequestError, WorkError
from jobs.locking import HeldError, hold
from jobs.provenance import user_name
from jobs.rundir import RunDirectory
from jobs.text import command_line, count

PROJECT = Path(__file__).resolve().parents[1]
START_SECONDS = 60.0
ANSWER_SECONDS = 5.0
STOP_SECONDS = 10.0
POLL_SECONDS = 0.1


def serve(texts: list[str], root: Path, port: int | None) -> int:
    """Serve the named runs, or all below `root` and those to come, in the background.

    Raises:
        RequestError: a name fits no run, the port is taken or another than before.
        WorkError: TensorBoard is missing or does not start.
    """
    runs = rundir.find_many(texts, root)
    chosen = runs if texts else []
    folder = _folder(chosen, root)
    with _alone():
        server = _answering(folder)
        if is_new := server is None:
            server = _start(folder, chosen, root, _checked(port))
    if is_new:
        print(f"TensorBoard for {count(len(runs), 'run')}: http://127.0.0.1:{server.port}/")
    elif port in (None, server.port):
        print(f"TensorBoard serves these runs already: http://127.0.0.1:{server.port}/")
    else:
        raise RequestError(
            f"--port {port}: TensorBoard serves these runs on port {server.port} already; "
            f"to move it: {command_line('tensorboard --stop')}"
        )
    print("on your own machine:")
    print(f"  {ssh_words(server.port)}")
    print(f"it goes on until: {command_line('tensorboard --stop')}")
    return 0


def stop(texts: list[str], root: Path) -> int:
    """End the TensorBoard of the named runs, or each that this user has on this machine.

    Raises:
        RequestError: there is none.
        WorkError: one does not end.
    """
    one = _folder(rundir.find_many(texts, root), root) if texts else None
    with _alone():
        return _stop(texts, one)


def _stop(texts: list[str], one: Path | None) -> int:
    """Stop the one that serves from a folder, or each for None."""
    served = {folder: boardserver.read(folder) for folder in sorted(_state().glob("*/"))}
    here, elsewhere = [], set()
    for folder, server in served.items():
        if server and server.host != socket.gethostname():
            elsewhere.add(server.host)
        elif server and one in (None, folder) and _is_alive(server):
            here.append((folder, server))
    for folder, server in here:
        _end(server)
        shutil.rmtree(folder, ignore_errors=True)
        _log_of(folder).unlink(missing_ok=True)
        print(f"stopped TensorBoard on port {server.port}")
    if not here:
        there = f"; those on {', '.join(sorted(elsewhere))} are stopped there" if elsewhere else ""
        what = f"of {' '.join(texts)} " if texts else ""
        raise RequestError(f"no TensorBoard {what}of yours runs on this machine{there}")
    return 0


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One start or stop at a time: of two starts at once, one would be recorded nowhere.

    Raises:
        WorkError: the folder cannot be written, or another one takes too long.
    """
    folder = _state()
    with contextlib.ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            held.enter_context(hold(folder / "lock", START_SECONDS + STOP_SECONDS))
        except HeldError:
            raise WorkError(f"another TensorBoard is being started or stopped: {folder}") from None
        except OSError as error:
            raise WorkError(
                f"cannot write {folder}: {error.strerror}; set XDG_STATE_HOME to a folder of yours"
            ) from None
        yield


def _state() -> Path:
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "slurm-finetune" / "tensorboard"


def _folder(runs: list[RunDirectory], root: Path) -> Path:
    """The folder of the TensorBoard that serves these runs on this machine, or all if none."""
    what = "\n".join(sorted(str(run.path.resolve()) for run in runs)) or str(root.resolve())
    kind = "runs" if runs else "all"
    key = hashlib.sha256(what.encode()).hexdigest()[:12]
    return _state() / f"{socket.gethostname()}-{kind}-{key}"


def _log_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.log")


def _answering(folder: Path) -> Server | None:
    """The server of `folder`, if it lives and it is that one which answers."""
    server = boardserver.read(folder)
    if server is None or not _is_alive(server):
        return None
    connection = HTTPConnection("127.0.0.1", server.port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", "/data/environment")
        answer = json.load(connection.getresponse())
    except (OSError, HTTPException, ValueError):
        return None
    finally:
        connection.close()
    is_it = answer.get("data_location") == str(folder / boardserver.LINKS)
    return server if is_it else None


def _is_alive(server: Server) -> bool:
    return (
        server.host == socket.gethostname()
        and bool(server.started)
        and attachment.start_of(server.pid) == server.started
    )


def _start(folder: Path, runs: list[RunDirectory], root: Path, port: int) -> Server:
    if importlib.util.find_spec("tensorboard") is None:
        raise WorkError(
            f"{sys.executable} has no TensorBoard; "
            "install it: pip install --require-hashes -r requirements.lock"
        )
    reason = why_slow()
    if reason:
        print(
            "warning: TensorBoard has to use its slow loader, which took 5 s for the curves of "
            f"100 runs where the fast one took 0.6 s: {reason}",
            file=sys.stderr,
        )
    left = boardserver.read(folder)
    if left and _is_alive(left):
        _end(left)  # it lives and does not answer
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    said = _log_of(folder)
    arguments = [str(folder), str(port), str(root), *(str(run.path) for run in runs)]
    with said.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs.boardserver", *arguments],
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        return _await_answer(folder, process, said)
    except BaseException:
        process.terminate()
        process.wait()
        raise


def _await_answer(folder: Path, process: subprocess.Popen[bytes], said: Path) -> Server:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server := _answering(folder):
            return server
        if process.poll() is not None:
            break
        time.sleep(POLL_SECONDS)
    words = "\n".join(failure.tail(said)) or "it said nothing"
    raise WorkError(f"TensorBoard did not start:\n{words}")


def _end(server: Server) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(server.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while _is_alive(server):
        if time.monotonic() > deadline:
            raise WorkError(f"TensorBoard, process {server.pid}, does not end; kill -9 it")
        time.sleep(POLL_SECONDS)


def why_slow() -> str | None:
    """Why TensorBoard cannot use its fast loader, a program that needs a recent C library."""
    if importlib.util.find_spec("tensorboard_data_server") is None:
        return "tensorboard-data-server is not installed"
    import tensorboard_data_server

    program = tensorboard_data_server.server_binary()
    if program is None:
        return "tensorboard-data-server has no program for this kind of machine"
    try:
        tried = subprocess.run(
            [program, "--help"], capture_output=True, text=True, timeout=START_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{program} does not start: {error}"
    words = tried.stderr.strip().splitlines() or [f"exit code {tried.returncode}"]
    return f"{program} does not start: {words[-1]}" if tried.returncode else None


def ssh_words(port: int) -> str:
    """What to type on a laptop so that the port is there, too.

    Some machines call themselves localhost in full, or by a name without a domain; then it is the
    address by which this very session came, if it came by ssh.
    """
    host, option = socket.getfqdn(), ""
    came_by = os.environ.get("SSH_CONNECTION", "").split()
    if "." not in host or host.startswith("localhost"):
        host = came_by[2] if len(came_by) == 4 else socket.gethostname()
    if len(came_by) == 4 and came_by[3] != "22":
        option = f"-p {came_by[3]} "
    return f"ssh -N {option}-L {port}:127.0.0.1:{port} {user_name()}@{host}"


def _checked(port: int | None) -> int:
    """The wanted port if it is free; 0, which means any, for None."""
    if port is None:
        return 0
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            raise RequestError(f"port {port}: {error}; leave --port out for a free one") from None
    return port
