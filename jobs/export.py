"""A run's model as a file that other programs read; the trainer's own program writes it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from jobs import rundir
from jobs.errors import WorkError
from jobs.repository import PROJECT


def export(text: str, root: Path, layout: str, out: str, *, best: bool) -> int:
    """Write the model of the run that `text` names to the file `out`; returns the exit code.

    Raises:
        RequestError: no run is so named, or several are.
        WorkError: the program ended without a word.
    """
    run = rundir.find_one(text, root)
    # Not by the current folder, which may have a `train` of its own.
    command = [sys.executable, "-P", "-m", "train.export", "--run", str(run.path)]
    command += ["--layout", layout, *(["--best"] if best else []), "--", out]
    with subprocess.Popen(
        command,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        start_new_session=True,  # so that Ctrl-C reaches it once, from here
    ) as program:
        try:
            code = program.wait()
        except KeyboardInterrupt:
            program.terminate()
            program.wait()
            raise
    if code < 0:
        raise WorkError(f"the export was ended by {signal.Signals(-code).name}")
    return code
