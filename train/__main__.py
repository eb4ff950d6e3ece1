"""The worker: train the recipe in a run directory, alone or as one of torchrun's processes.

    python -m train --run logs/finetune/20260101-120000-1a2b
    torchrun --nproc-per-node 4 -m -- train --run logs/finetune/20260101-120000-1a2b

(The bare `--` keeps torchrun on Python 3.11 from taking `--run` for an option of its own.)

Exit codes: 0 done, 1 failed, 2 the request was wrong, 75 stopped on request after saving.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from train.errors import RequestError
from train.stop import STOPPED_EXIT_CODE, StopFlag


def main() -> int:
    """Run one worker; the exit code says how it ended."""
    parser = argparse.ArgumentParser(
        prog="python -m train", description="Train the recipe in a run directory."
    )
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="run directory")
    args = parser.parse_args()
    stop = StopFlag.install()
    # Only now: importing torch takes seconds, in which a signal must not kill the process.
    from train.worker import run

    try:
        finished = run(args.run, stop)
    except RequestError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    return 0 if finished else STOPPED_EXIT_CODE


if __name__ == "__main__":
    sys.exit(main())
