"""Where a rank of a benchmark is: torchrun's variables, all ranks being on this machine."""

from __future__ import annotations

import socket


def environment(rank: int, ranks: int, port: int) -> dict[str, str]:
    """Torchrun's variables of one worker."""
    values = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
    names = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return names | {name: str(value) for name, value in values.items()}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
