"""Start, watch and end training runs: `python launch.py --config finetune.yaml`."""

from __future__ import annotations

import contextlib
import os
import sys

from jobs.cli import main

if __name__ == "__main__":
    code = main(sys.argv[1:])
    with contextlib.suppress(OSError):  # has been told, unless there was more to tell
        sys.stdout.flush()
    # Not Python's own end, which takes apart all that was imported: a sixth of a command's time.
    os._exit(code)
