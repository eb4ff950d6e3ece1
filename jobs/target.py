"""What a bundle is for: the Python, the platform and the build of torch on the cluster."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cached_property

from packaging.markers import Marker
from packaging.specifiers import SpecifierSet
from packaging.tags import Tag, compatible_tags, cpython_tags

from jobs.errors import RequestError
from jobs.repository import PROJECT

PLATFORM = re.compile(r"manylinux_2_(\d{1,2})_(x86_64|aarch64)")
# PEP 600's names for the tags of before, and the oldest glibc that there are wheels for.
ALIASES = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
OLDEST_GLIBC = {"x86_64": 5, "aarch64": 17}


@dataclass(frozen=True)
class Target:
    """The Python, the platform and the build of torch that a wheelhouse is for."""

    python: str
    glibc: int
    machine: str
    torch: str

    @property
    def platform(self) -> str:
        """The newest tag of the wheels."""
        return f"manylinux_2_{self.glibc}_{self.machine}"

    @cached_property
    def platforms(self) -> list[str]:
        """Every tag of wheels that the platform takes, the newest first."""
        tags = []
        for minor in range(self.glibc, OLDEST_GLIBC[self.machine] - 1, -1):
            tags.append(f"manylinux_2_{minor}_{self.machine}")
            if minor in ALIASES:
                tags.append(f"{ALIASES[minor]}_{self.machine}")
        return tags

    @cached_property
    def tags(self) -> frozenset[Tag]:
        """Every tag of wheels that this Python takes there."""
        version = tuple(int(part) for part in self.python.split("."))
        short = self.python.replace(".", "")
        own = cpython_tags(version, [f"cp{short}"], self.platforms)
        return frozenset([*own, *compatible_tags(version, f"cp{short}", self.platforms)])

    def applies(self, marker: str) -> bool:
        """Whether an environment marker is true there."""
        environment = {
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
        }
        return Marker(marker).evaluate({**environment})


def parse_target(python: str, platform: str, torch: str) -> Target:
    """The target that the command line names.

    Raises:
        RequestError: this project or its wheels do not run there.
    """
    problems = []
    needed = _python_needed()
    if not re.fullmatch(r"3\.\d{1,2}", python) or f"{python}.0" not in SpecifierSet(needed):
        problems.append(f"--python {python}: the project needs a Python of {needed}, as in 3.11")
    match = PLATFORM.fullmatch(platform.replace("manylinux2014_", "manylinux_2_17_"))
    if not match:
        problems.append(
            f"--platform {platform}: expected manylinux_2_N_x86_64 or manylinux_2_N_aarch64, where "
            "the cluster's glibc is 2.N or later (ldd --version)"
        )
    if problems or not match:
        raise RequestError(*problems)
    return Target(python, int(match.group(1)), match.group(2), torch)


def _python_needed() -> str:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["requires-python"])
