"""Whether the kernel killed something for lack of memory, by this task's cgroups."""

from __future__ import annotations

import re
from pathlib import Path

CGROUPS = Path("/proc/self/cgroup")
MOUNT = Path("/sys/fs/cgroup")
# Slurm sets the limit on the job or the step, some levels above the task.
LEVELS = 4


def count_kills(cgroups: Path = CGROUPS, mount: Path = MOUNT) -> int:
    """How many processes the kernel has killed so far; only a rise of it means anything."""
    try:
        lines = cgroups.read_text().splitlines()
    except OSError:
        return 0
    total = 0
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            total += _count(mount / path.strip("/"), mount, "memory.events")
        elif "memory" in controllers.split(","):
            folder = mount / "memory"
            total += _count(folder / path.strip("/"), folder, "memory.oom_control")
    return total


def _count(folder: Path, top: Path, name: str) -> int:
    """The kills of a cgroup and of those above it: a kill may be counted at several levels."""
    total = 0
    for level in [folder, *folder.parents][:LEVELS]:
        if not level.is_relative_to(top):
            break
        try:
            found = re.search(r"^oom_kill (\d+)$", (level / name).read_text(), re.MULTILINE)
        except OSError:
            continue
        total += int(found.group(1)) if found else 0
    return total
