"""Where this process's code came from: a run that has a snapshot works from it and nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

PACKAGES = ("configs", "jobs", "train")


def objection(code: Path) -> str | None:
    """What is wrong with the packages that are imported so far; None for a run without `code`.

    A run started by a batch script of one's own or by torchrun has none, and works from wherever it
    was started.
    """
    if not code.is_dir():
        return None
    for name in PACKAGES:
        if name in sys.modules:
            [actual, *_] = sys.modules[name].__path__
            own = code / name
            # Not by the names of the folders: a cluster may mount one storage in two places.
            if not own.is_dir() or not own.samefile(actual):
                return (
                    f"{name} was imported from {actual}, not from the run's own code in {own}; "
                    f"start it in {code}"
                )
    return None
