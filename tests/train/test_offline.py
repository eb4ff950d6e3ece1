"""A worker's attempt to reach the network is refused at once, and the missing file is named."""

from __future__ import annotations

import os
import shutil
import subprocess
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.schema import Recipe
from tests import warm
from tests.conftest import PROJECT
from train.offline import is_remote

WEIGHTS = "resnet50-0676ba61.pth"
WEIGHTS_URL = f"https://download.pytorch.org/models/{WEIGHTS}"
DATAGRAMS = "import socket; socket.socket(type=socket.SOCK_DGRAM)"
# Each line asks the network for something as code in a training does.
ATTEMPTS = {
    "torch.hub": (f"import torch; torch.hub.load_state_dict_from_url({WEIGHTS_URL!r})", WEIGHTS),
    "a model of torchvision": (
        "import torchvision; torchvision.models.resnet50(weights='IMAGENET1K_V1')",
        WEIGHTS,
    ),
    "a data set of torchvision": (
        "import torchvision; torchvision.datasets.CIFAR10('data', download=True)",
        "cifar-10-python.tar.gz",
    ),
    "a name": ("import socket; socket.create_connection(('a.example', 80))", "a.example"),
    "a name in bytes": ("import socket; socket.getaddrinfo(b'a.example', 80)", "a.example"),
    "a name of any bytes": ("import socket; socket.getaddrinfo(b'\\xff.a', 80)", "\\xff.a"),
    "a name, as long ago": ("import socket; socket.gethostbyname('a.example')", "a.example"),
    "all of a name": ("import socket; socket.gethostbyname_ex('a.example')", "a.example"),
    "the name of an address": ("import socket; socket.gethostbyaddr('192.0.2.1')", "192.0.2.1"),
    "the name and service of an address": (
        "import socket; socket.getnameinfo(('192.0.2.1', 80), 0)",
        "192.0.2.1",
    ),
    "a datagram": (f"{DATAGRAMS}.sendto(b'', ('192.0.2.1', 53))", "192.0.2.1"),
    "a datagram with flags": (f"{DATAGRAMS}.sendto(b'', 0, ('192.0.2.1', 53))", "192.0.2.1"),
    "a datagram of parts": (f"{DATAGRAMS}.sendmsg([], [], 0, ('192.0.2.1', 53))", "192.0.2.1"),
    "an address": ("import socket; socket.socket().connect(('192.0.2.1', 80))", "192.0.2.1"),
}


def guarded(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a line of Python that is preceded by the worker's guard, with an empty cache."""
    script = folder / "attempt.py"
    script.write_text(f"from train.offline import refuse_downloads; refuse_downloads(); {code}")
    done = warm.run(script, cwd=folder, env=os.environ | {"TORCH_HOME": str(folder / "torch")})
    script.unlink()
    return done


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_an_attempt_to_load_something_is_refused_with_its_name(
    attempt: str, tmp_path: Path
) -> None:
    code, name = ATTEMPTS[attempt]

    done = guarded(code, tmp_path)

    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    assert last.startswith("train.errors.RequestError: ")
    assert name in last
    left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert not left, "nothing half made"


def test_the_refusal_waits_for_no_name_server_and_no_connection(tmp_path: Path) -> None:
    code = textwrap.dedent(
        """
        import socket, time
        from train.errors import RequestError
        began, refused = time.monotonic(), 0
        for host in ("a.example", "192.0.2.1"):
            try: socket.create_connection((host, 80))
            except RequestError: refused += 1
        print(refused, time.monotonic() - began)
        """
    )
    done = guarded(f"exec({code!r})", tmp_path)
    refused, seconds = done.stdout.split()
    assert int(refused) == 2
    assert float(seconds) < 0.5


def test_this_machine_may_be_asked(tmp_path: Path) -> None:
    code = textwrap.dedent(
        """
        import socket, threading, urllib.request
        from http.server import HTTPServer, SimpleHTTPRequestHandler
        server = HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        print(urllib.request.urlopen(address).status)
        print(socket.getaddrinfo(b"127.0.0.1", 80)[0][4][0], socket.gethostbyname("127.0.0.1"))
        socket.getaddrinfo(b"localhost", 80)
        socket.getfqdn()
        with socket.socket(type=socket.SOCK_DGRAM) as mine:
            mine.bind(("127.0.0.1", 0))
            mine.sendto(b"a datagram", mine.getsockname())
            print(mine.recv(99).decode())
        """
    )
    told = "200\n127.0.0.1 127.0.0.1\na datagram\n"
    assert guarded(f"exec({code!r})", tmp_path).stdout == told


@pytest.mark.parametrize(
    ("host", "remote"),
    [
        ("localhost", False),
        ("127.0.0.1", False),
        ("::1", False),
        ("0.0.0.0", False),  # noqa: S104 - nothing is bound
        ("", False),
        (None, False),
        ("a.example", True),
        ("192.0.2.1", True),
        ("2001:db8::1", True),
        ("fe80::1%eth0", True),
    ],
)
def test_a_host_is_remote_unless_it_is_this_machine(host: str | None, remote: bool) -> None:
    assert is_remote(host) == remote


def test_a_worker_whose_code_loads_weights_itself_ends_as_a_wrong_request(
    recipe: Recipe, make_run: Callable[..., Path], tmp_path: Path
) -> None:
    project = tmp_path / "project"
    for part in ("configs", "train"):
        shutil.copytree(PROJECT / part, project / part)
    model = project / "train" / "model.py"
    own = "    with torch.random.fork_rng("
    assert own in model.read_text()
    loading = "import torchvision; torchvision.models.resnet50(weights='IMAGENET1K_V1')"
    edited = f"    {loading}\n{own}"
    model.write_text(model.read_text().replace(own, edited))
    run_dir = make_run(recipe)

    began = time.monotonic()
    done = warm.run(
        "train", "--run", run_dir,
        cwd=project, env=os.environ | {"TORCH_HOME": str(tmp_path / "torch")},
    )  # fmt: skip

    assert done.returncode == 2, done.stderr
    assert f"error: {WEIGHTS} is missing, and a job loads nothing from the network" in done.stderr
    assert time.monotonic() - began < 60
