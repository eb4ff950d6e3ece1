"""TensorBoard for runs, on the login node and for its user alone."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from jobs import rundir
from jobs.errors import RequestError, WorkError
from jobs.provenance import user_name
from jobs.rundir import RunDirectory
from jobs.text import count


def serve(texts: list[str], root: Path, port: int | None) -> int:
    """Serve the named runs, or all below `root`, until Ctrl-C.

    Raises:
        RequestError: a name fits no run, the port is taken.
        WorkError: TensorBoard did not start.
    """
    runs = rundir.find_many(texts, root)
    port = _checked(port) if port is not None else _free_port()
    with _log_folder(runs if texts else [], root) as folder:
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder)]
        # Loopback only: a login node has other users, and TensorBoard asks for no password.
        command += ["--host", "127.0.0.1", "--port", str(port)]
        # Each reload lists every event file, which a network file system feels.
        command += ["--reload_interval", "30", "--reload_multifile", "true"]
        print(
            f"TensorBoard for {count(len(runs), 'run')}: http://127.0.0.1:{port}/ (Ctrl-C ends it)"
        )
        print("on your own machine:")
        print(f"  ssh -N -L {port}:127.0.0.1:{port} {user_name()}@{_host()}", flush=True)
        board = subprocess.Popen(command, start_new_session=True)
        try:
            code = board.wait()
        except KeyboardInterrupt:
            return 0
        finally:
            board.terminate()
            board.wait()
    raise WorkError(f"TensorBoard ended with exit code {code}")


@contextlib.contextmanager
def _log_folder(runs: list[RunDirectory], root: Path) -> Iterator[Path]:
    """A folder that shows exactly the wanted runs: `root` itself for all of them.

    For some it is a folder of links. TensorBoard's own --logdir_spec would switch to its slow
    loader, which also handles restarted runs differently.
    """
    if not runs:
        yield root
        return
    with tempfile.TemporaryDirectory(prefix="tensorboard-") as folder:
        for run in runs:
            link = Path(folder) / run.label
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(run.path / "tensorboard")
        yield Path(folder)


def _host() -> str:
    """This machine as others may know it; some machines call themselves localhost in full."""
    full = socket.getfqdn()
    return socket.gethostname() if full.startswith("localhost") else full


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _checked(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            raise RequestError(f"port {port}: {error}; leave --port out for a free one") from None
    return port
