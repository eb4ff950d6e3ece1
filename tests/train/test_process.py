"""The end of a worker: with its exit code, and nothing that it printed is lost."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import PROJECT

ENDING = """\
import atexit, gc, sys, threading
from train.process import leave, many_imports

atexit.register(lambda: print(gc.get_freeze_count(), "frozen"))
with many_imports():
    assert not gc.isenabled()
    import decimal
assert gc.isenabled()
assert gc.get_freeze_count()
atexit.register(print, "registered")
threading.Thread(target=threading.Event().wait).start()
print("printed", end="")
print("told", end="", file=sys.stderr)
leave(int(sys.argv[1]))
"""


@pytest.mark.parametrize(
    ("code", "printed"), [(0, "printedregistered\n0 frozen\n"), (76, "printed")]
)
def test_a_process_leaves_at_once_with_its_code_and_all_that_it_printed(
    code: int, printed: str
) -> None:
    """Also while a thread waits for ever; after a success what is registered is called."""
    done = subprocess.run(
        [sys.executable, "-c", ENDING, str(code)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (code, printed, "told")
