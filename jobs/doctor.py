"""`doctor`: every check at once, each with its remedy, and never longer than ten seconds.

The checks run side by side, for most of them wait for storage or for Slurm. What does not come
back, such as a look into a dead network file system, is given up and told.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import threading
import time

from configs.loader import LoadedRecipe
from jobs import controller, engine, preflight
from jobs.engine import Engine
from jobs.errors import place_of
from jobs.finding import Finding, Level, failed, passed, warned
from jobs.preflight import Case, Check
from jobs.text import count, path_from_here

SECONDS = 9.0
COLOURS: dict[Level, str] = {"pass": "32", "warn": "33", "fail": "31"}
NAME_WIDTH = 10
SUMMARY: dict[Level, str] = {"pass": "passed", "warn": "warned", "fail": "failed"}


def examine(loaded: LoadedRecipe, *, on_node: bool) -> int:
    """Print what every check finds about a recipe here; returns 1 if any failed, else 0."""
    began = time.monotonic()
    chosen = engine.choose(loaded.recipe)
    case = preflight.make_case(loaded.recipe, chosen)
    report = _Report(loaded)
    report.add("recipe", [passed(path_from_here(loaded.path))])
    report.add("engine", [_engine(chosen)])
    for check, findings in _look_at_all(case, began + SECONDS):
        report.add(check.name, findings)
    report.close(time.monotonic() - began)
    if not on_node or report.counts["fail"]:
        if on_node:
            print("the nodes were not tried, for the job would fail", file=sys.stderr)
        return 1 if report.counts["fail"] else 0

    from jobs import nodes

    return nodes.examine(case)


def _engine(chosen: Engine) -> Finding:
    if chosen.problem:
        remedy = "ask its administrators, or load its module; or set cluster.engine to local"
        return failed(f"slurm, but {chosen.problem}", remedy, "cluster.engine")
    if chosen.name == "local" and chosen.why != engine.ASKED and controller.is_installed():
        remedy = "set cluster.engine to slurm, so that no run starts on a login node by mistake"
        text = f"local, for Slurm is installed but {chosen.why}"
        return warned(text, remedy, "cluster.engine")
    return passed(f"{chosen.name} ({chosen.why})")


def _look_at_all(case: Case, deadline: float) -> list[tuple[Check, list[Finding]]]:
    checks = preflight.table(case.engine)
    found: dict[str, list[Finding]] = {}

    def look(check: Check) -> None:
        found[check.name] = preflight.look(check, case)

    # Daemons: one that hangs in the kernel must not keep this process from its end.
    threads = [threading.Thread(target=look, args=(check,), daemon=True) for check in checks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    rows = [(check, found.get(check.name, [_gave_up(check)])) for check in checks]
    kept = preflight.without_repeats([each for _, findings in rows for each in findings])
    return [(check, [each for each in findings if each in kept]) for check, findings in rows]


def _gave_up(check: Check) -> Finding:
    text = f"no answer within {SECONDS:.0f} s"
    return failed(text, f"look whether {check.depends} answers; a launch would hang too")


class _Report:
    """The lines on the terminal, in its width, coloured where colours are wanted."""

    def __init__(self, loaded: LoadedRecipe) -> None:
        self._origins = loaded.origins
        self._is_terminal = sys.stdout.isatty()
        self._width = shutil.get_terminal_size().columns if self._is_terminal else 10_000
        self.counts: dict[Level, int] = {"pass": 0, "warn": 0, "fail": 0}

    def add(self, name: str, findings: list[Finding]) -> None:
        """Print what a check has found."""
        for finding in findings:
            self.counts[finding.level] += 1
            text = finding.text
            if finding.key and finding.level != "pass":
                text = f"{place_of(finding.key, self._origins)}: {text}"
            head = f"{self._colour(finding.level)}  {name.ljust(NAME_WIDTH)}  "
            self._print(text, head, 6 + NAME_WIDTH + 2)
            if finding.remedy:
                self._print(finding.remedy, " " * (6 + NAME_WIDTH) + "> ", 6 + NAME_WIDTH + 2)

    def close(self, seconds: float) -> None:
        """Print the summary."""
        words = ", ".join(f"{number} {SUMMARY[level]}" for level, number in self.counts.items())
        print(
            f"{count(sum(self.counts.values()), 'check')}: {words}, in {seconds:.1f} s", flush=True
        )

    def _print(self, text: str, head: str, indent: int) -> None:
        wrapper = textwrap.TextWrapper(
            max(20, self._width - indent), break_long_words=False, break_on_hyphens=False
        )
        lines = [each for line in text.splitlines() for each in wrapper.wrap(line.strip())]
        print(head + ("\n" + " " * indent).join(lines))

    def _colour(self, level: Level) -> str:
        if not self._is_terminal or os.environ.get("NO_COLOR"):
            return level
        return f"\033[{COLOURS[level]}m{level}\033[0m"
