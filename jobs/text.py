"""How the command line says things: counts, durations, what to type next."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from jobs.rundir import RunDirectory

# Escape sequences and other characters by which a terminal would redraw what it shows, or worse.
CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b.|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """What a log or another person has written, without what is meant for a terminal."""
    return CONTROL.sub("", text)


def count(number: int, noun: str, plural: str = "") -> str:
    """A number and its noun: 1 node, 2 nodes."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def duration(seconds: float) -> str:
    """A time span to the second: 45 s, 3 min 20 s, 2 h 05 min."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def short_duration(seconds: float) -> str:
    """A time span in a column: 45s, 12m, 3h05m, 2d04h."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{max(0, round(seconds))}s"
    hours, minutes = divmod(minutes, 60)
    days, hours_of_day = divmod(hours, 24)
    if days:
        return f"{days}d{hours_of_day:02d}h"
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m"


def clock(moment: float) -> str:
    """A time of these days as people say it here: 16:40, Tue 16:40, 2 Dec 16:40."""
    then, now = time.localtime(moment), time.localtime()
    if then[:3] == now[:3]:
        return time.strftime("%H:%M", then)
    if abs(moment - time.time()) < 6 * 86400:
        return time.strftime("%a %H:%M", then)
    return time.strftime("%d %b %H:%M", then).lstrip("0")


def path_from_here(path: Path) -> str:
    """`path` as short as it can be typed in the current folder, quoted for the shell."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


def next_commands(run: RunDirectory, commands: Sequence[str]) -> str:
    """What a person may want to type next for a run, ready to copy, a line each."""
    name = path_from_here(run.path)
    return "\n".join(f"  {command_line(command)} {name}" for command in commands)


def command_line(command: str) -> str:
    """A command of this tool, ready to copy."""
    return f"{_python()} launch.py {command}"


def _python() -> str:
    """This interpreter as it is typed here: `python` only where that is the one with our packages.

    Whoever has just run `make quickstart` has not activated the environment.
    """
    found = shutil.which("python")
    same = found is not None and Path(found).absolute() == Path(sys.executable).absolute()
    return "python" if same else path_from_here(Path(sys.executable))
