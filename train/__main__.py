"""The worker: train the recipe in a run directory, alone or as one of torchrun's processes.

    python -m train --run logs/finetune/20260101-120000-1a2b
    torchrun --nproc-per-node 4 -m -- train --run logs/finetune/20260101-120000-1a2b

(The bare `--` keeps torchrun on Python 3.11 from taking `--run` for an option of its own.)

Exit codes: 0 done, 1 failed, 2 the request was wrong, 75 stopped on request after saving, 76 this
node is not what the run was given.
"""

from __future__ import annotations

import argparse
import signal
import sys
import traceback
from pathlib import Path

from train.errors import RequestError, UnfitNodeError
from train.process import leave, many_imports
from train.stop import STOP_SIGNALS, STOPPED_EXIT_CODE, StopFlag

UNFIT_NODE_EXIT_CODE = 76


def main() -> int:
    """Run one worker; the exit code says how it ended."""
    parser = argparse.ArgumentParser(
        prog="python -m train", description="Train the recipe in a run directory."
    )
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="run directory")
    args = parser.parse_args()
    stop = StopFlag.install()
    # Only now: importing torch takes seconds, in which a signal must not kill the process.
    from configs import origin

    if words := origin.objection(args.run / "code"):
        print(f"error: {words}", file=sys.stderr)
        return 2
    from train.offline import refuse_downloads

    with many_imports():
        from train.worker import run

    refuse_downloads()
    try:
        return 0 if run(args.run, stop) else STOPPED_EXIT_CODE
    except (RequestError, UnfitNodeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, RequestError) else UNFIT_NODE_EXIT_CODE
    except Exception:
        traceback.print_exc()
        return 1


if __name__ == "__main__":
    code = main()
    for number in STOP_SIGNALS:
        # What there was to save is saved; Python's own end would put back handlers that kill.
        signal.signal(number, signal.SIG_IGN)
    leave(code)
