"""No worker loads a file from the network: it says at once which one is missing.

The nodes have no way out, so an attempt would end in a time-out of minutes, on all ranks, in the
middle of a job that has waited for its GPUs. Python's audit events tell of it beforehand, whatever
library is at work (torch.hub and torchvision load by urllib). Workers themselves meet by C++
sockets, which raise no such events.
"""

from __future__ import annotations

import ipaddress
import socket
import sys
from typing import Any
from urllib.parse import urlsplit

from train.errors import RequestError


def refuse_downloads() -> None:
    """From now on, refuse this process's attempts to reach another machine, with RequestError."""
    sys.addaudithook(_inspect)


def _inspect(event: str, arguments: tuple[Any, ...]) -> None:
    match event, arguments:
        case "urllib.Request", (str(address), *_) if is_remote(urlsplit(address).hostname):
            name = urlsplit(address).path.rpartition("/")[2] or address
            raise RequestError(
                f"{name} is missing, and a job loads nothing from the network: bring it from "
                f"{address} to storage that the nodes see, and name that file in the recipe"
            )
        case (
            ("socket.getaddrinfo" | "socket.gethostbyname" | "socket.gethostbyaddr", (host, *_))
            | ("socket.getnameinfo", ((host, *_),))
            | ("socket.connect" | "socket.sendto" | "socket.sendmsg", (_, (host, *_)))
        ) if is_remote(_text(host)):
            raise RequestError(_refusal(_text(host)))


def _refusal(host: str | None) -> str:
    return (
        f"something in this worker asked for {host}, and a job loads nothing from the network: "
        "bring the file that it wanted to storage that the nodes see"
    )


def _text(host: object) -> str | None:
    if isinstance(host, bytes):
        return host.decode("ascii", errors="backslashreplace")
    return str(host) if host else None


def is_remote(host: str | None) -> bool:
    """Whether `host`, a name or an address, is another machine than this one."""
    if not host or host in ("localhost", socket.gethostname()):
        return False
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return True
    return not (address.is_loopback or address.is_unspecified)
