"""What the fork server of tests/warm.py imports, so that the processes that it forks need not."""

from __future__ import annotations

import atexit
import os

from train.process import many_imports

with many_imports():
    import tests.warm
    import train.journal
    import train.worker

__all__ = ["tests", "train"]
SERVER = os.getpid()


@atexit.register
def leave() -> None:
    """Skip Python's own end, which takes the server some seconds; its children have their own."""
    if os.getpid() == SERVER:
        os._exit(0)
