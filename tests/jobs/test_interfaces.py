"""The interface for gloo is one that reaches other machines."""

from __future__ import annotations

import fcntl
import socket
import struct

import pytest

from jobs import interfaces


def addresses() -> dict[str, str]:
    """The address of each interface of this machine that has one."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(
                    probe, interfaces.GET_ADDRESS, struct.pack("256s", name.encode())
                )
            except OSError:
                continue
            found[name] = socket.inet_ntoa(answer[20:24])
    return found


def test_the_loopback_reaches_nobody() -> None:
    assert interfaces.towards(["127.0.0.1", "127.0.1.1", "does.not.resolve.invalid"]) is None


def test_the_interface_is_that_of_the_first_address_beyond_the_loopback() -> None:
    real = {name: own for name, own in addresses().items() if not own.startswith("127.")}
    if not real:
        # There is nothing that the first address beyond it could be.
        pytest.skip("this machine has the loopback only")
    for name, own in real.items():
        assert interfaces.towards(["127.0.1.1", own]) == name
