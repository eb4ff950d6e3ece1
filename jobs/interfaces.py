"""Which network interface reaches the other nodes of a job."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
from collections.abc import Iterable

GET_ADDRESS = 0x8915  # SIOCGIFADDR of Linux
NAME_BYTES = 15


def towards(addresses: Iterable[str]) -> str | None:
    """The interface that the kernel's routes take to the first address that is another machine's.

    None if all are this machine's own or nobody knows.
    """
    for address in addresses:
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe,
        ):
            probe.connect((address, 9))  # sends nothing
            own = probe.getsockname()[0]
            if not own.startswith("127."):
                return _named_after(own, probe)
    return None


def _named_after(own: str, probe: socket.socket) -> str | None:
    for _, name in socket.if_nameindex():
        with contextlib.suppress(OSError):  # it has no address
            request = struct.pack("256s", name.encode()[:NAME_BYTES])
            answer = fcntl.ioctl(probe, GET_ADDRESS, request)
            if socket.inet_ntoa(answer[20:24]) == own:
                return name
    return None
