"""A shorter start and end of a process that imports torch: some three of ten seconds on a CPU."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import sys
from collections.abc import Iterator
from typing import NoReturn


@contextlib.contextmanager
def many_imports() -> Iterator[None]:
    """Import without looking for garbage: torch makes 360,000 objects and hardly any of that.

    Nor is it looked for among them later, or each time takes a CPU half a second.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        # A process that does not `leave` (after Ctrl-C) would else be told what libraries leaked.
        atexit.register(gc.unfreeze)


def leave(code: int) -> NoReturn:
    """End the process with this exit code, all its files being closed already.

    Python's own end would take apart thousands of modules one by one, some seconds in which the
    node's memory and GPU are still in use. What libraries have registered for the end is called
    after a success; after a failure they may wait for peers that wait for us.
    """
    if code == 0:
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # a full disk or a reader that has gone
            stream.flush()
    os._exit(code)
