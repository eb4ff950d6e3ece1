"""A run's model as one file, in a layout that other programs read.

    python -m train.export --run DIR --layout mmcls|torchvision|safetensors [--best] OUT

`python launch.py export RUN ...` finds the run's directory by its name and starts this. Exit codes:
0 done, 1 the file could not be written, 2 the request was wrong, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from train.errors import RequestError
from train.process import leave, many_imports

LAYOUTS = ("mmcls", "torchvision", "safetensors")
SUFFIX = ".safetensors"


def check_target(out: Path, layout: str) -> None:
    """Refuse what can be seen to fail before anything is read.

    Raises:
        RequestError: a file of that name is there, its folder is missing or takes no file, or its
            ending is that of another layout.
    """
    if out.is_dir():
        raise RequestError(f"{out} is a folder: name a file in it")
    if out.exists() or out.is_symlink():
        raise RequestError(f"{out} exists and is not overwritten: name another file or remove it")
    if not out.parent.is_dir():
        raise RequestError(f"{out}: there is no folder {out.parent}: make it or name another")
    if not os.access(out.parent, os.W_OK | os.X_OK):
        raise RequestError(f"{out}: you may not write in {out.parent}: name another folder")
    if (out.suffix == SUFFIX) != (layout == "safetensors"):
        endings = "in .safetensors" if layout == "safetensors" else "in .pth, not .safetensors"
        raise RequestError(
            f"{out}: a file in the {layout} layout ends {endings}, by which its readers know it"
        )


def main() -> int:
    """Write the file and say what it holds; the exit code says how that went."""
    parser = argparse.ArgumentParser(
        prog="python -m train.export", description="Write a run's model as one file."
    )
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="run directory")
    parser.add_argument("--layout", choices=LAYOUTS, required=True, help="whose names it uses")
    parser.add_argument("--best", action="store_true", help="the best checkpoint, not the newest")
    parser.add_argument("out", type=Path, metavar="OUT", help="the file to write")
    args = parser.parse_args()
    # What is half written is removed then, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        check_target(args.out, args.layout)
        # Only now: importing torch takes seconds.
        with many_imports():
            from train import writers

        told = writers.export(args.run, args.layout, args.out, best=args.best)
    except RequestError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {args.out} cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    try:
        print(told, flush=True)
    except BrokenPipeError:
        pass  # the reader (`| head`) has what it wanted
    except OSError as error:
        words = "is written, but what is in it cannot be told"
        print(f"error: {args.out} {words}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    leave(main())
