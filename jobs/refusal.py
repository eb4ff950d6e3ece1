"""That a start of the job was refused, so that settling it never starts it again.

Slurm's exit code does not tell: the other ranks may be killed while they still start, and srun then
returns the code of their end. The file alone says it; on a full disk it may be empty.
"""

from __future__ import annotations

from pathlib import Path

from jobs.rundir import RunDirectory, warning


def record(run: RunDirectory, start_key: str, words: str) -> None:
    """Write down why a start of the job was refused."""
    with warning("cannot write down the refusal"):
        _file(run, start_key).write_text(words, encoding="utf-8")


def read(run: RunDirectory, start_key: str) -> str | None:
    """Why a start of the job was refused; None if it was not."""
    try:
        words = _file(run, start_key).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return words or "it was refused; the job's log says why"


def _file(run: RunDirectory, start_key: str) -> Path:
    return run.engine_files / f"refused-{start_key}.txt"
