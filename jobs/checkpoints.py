"""The newest complete checkpoint of a run, by its manifest; the worker alone reads the state."""

from __future__ import annotations

import re
from dataclasses import dataclass

from jobs import files
from jobs.rundir import RunDirectory

MANIFEST = re.compile(r"step-(\d+)\.json")


@dataclass(frozen=True)
class Checkpoint:
    """What the launcher needs of a manifest; None where an older worker did not write it."""

    step: int
    seconds: float | None = None
    """How long this save took."""
    saved_at: str | None = None


def newest(run: RunDirectory) -> Checkpoint | None:
    """The checkpoint that the run goes on from; None before the first one."""
    try:
        names = [path.name for path in run.checkpoints.iterdir()]
    except OSError:
        return None
    found = {int(match.group(1)): name for name in names if (match := MANIFEST.fullmatch(name))}
    for step in sorted(found, reverse=True):
        manifest = files.read_json(run.checkpoints / found[step])
        if manifest is not None:
            return Checkpoint(step, manifest.get("seconds"), manifest.get("saved_at"))
    return None
