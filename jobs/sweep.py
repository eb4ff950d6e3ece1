"""A sweep: the runs of one recipe with every combination of some values, and their folder.

It lies where a run would, in ROOT/NAME/STAMP. sweep.json there says what differs; each element is a
complete run directory below, so whatever works on a run works on an element.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs import yaml12
from jobs import files
from jobs.errors import RequestError
from jobs.files import write_json
from jobs.rundir import SWEEP, RunDirectory

# One array has one shape, and its elements lie in one folder.
FIXED = {"cluster": "the elements of a Slurm array are alike", "run.name": "it names the sweep"}
FIXED |= {"run.root": "the runs of a sweep lie in one folder"}
NAME_LENGTH = 80


@dataclass(frozen=True)
class Axis:
    """A key of the recipe and the values that it takes in turn."""

    key: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Element:
    """One combination: the name of its folder and what it changes in the recipe."""

    folder: str
    changes: dict[str, Any]

    @property
    def overrides(self) -> list[str]:
        """The changes as `--set` takes them; JSON is YAML."""
        return [f"{key}={json.dumps(value)}" for key, value in self.changes.items()]


def parse_axes(texts: Sequence[str]) -> list[Axis]:
    """What `--sweep optimizer.lr=0.001,0.0025 --sweep run.seed=1,2` means.

    Values are YAML and separated by commas, so lists go in brackets: [100,150],[50].

    Raises:
        RequestError: with everything that is wrong, by the text it is in.
    """
    axes: list[Axis] = []
    problems = []
    for text in texts:
        axis = _parse_axis(text)
        if isinstance(axis, str):
            problems.append(f"--sweep {text}: {axis}")
        elif axis.key in [each.key for each in axes]:
            problems.append(
                f"--sweep {text}: {axis.key} has its values already; give them together"
            )
        else:
            axes.append(axis)
    if problems:
        raise RequestError(*problems)
    return axes


def _parse_axis(text: str) -> Axis | str:
    """The axis, or what is wrong with it; keys and types are checked with each element's recipe."""
    key, equals, listed = text.partition("=")
    key = key.strip()
    reason = FIXED.get(key) or FIXED.get(key.partition(".")[0])
    if reason:
        return f"{key} cannot differ: {reason}"
    try:
        values = yaml12.read(f"[{listed}]").value
    except yaml12.YamlError as error:
        return f"not valid YAML: {error}"
    if not equals or not values:
        return "expected a key and its values, as in optimizer.lr=0.001,0.0025"
    texts = [json.dumps(value) for value in values]
    if len(set(texts)) < len(texts):
        return "has a value twice"
    return Axis(key, tuple(values))


def combine(axes: Sequence[Axis]) -> list[Element]:
    """Every combination, the last axis changing fastest."""
    keys = [axis.key for axis in axes]
    rows = list(itertools.product(*(axis.values for axis in axes)))
    width = len(str(len(rows) - 1))
    changes = [dict(zip(keys, row, strict=True)) for row in rows]
    return [
        Element(f"{index:0{width}}-{_in_a_name(each)}", each) for index, each in enumerate(changes)
    ]


def describe(changes: dict[str, Any]) -> str:
    """What differs, as short as it is clear: lr=0.001,seed=2."""
    short = [key.rpartition(".")[2] for key in changes]
    names = [
        name if short.count(name) == 1 else key for key, name in zip(changes, short, strict=True)
    ]
    texts = [each if isinstance(each, str) else json.dumps(each) for each in changes.values()]
    return ",".join(f"{name}={text}" for name, text in zip(names, texts, strict=True))


def _in_a_name(changes: dict[str, Any]) -> str:
    return re.sub(r"[^A-Za-z0-9.,=_+-]+", "_", describe(changes))[:NAME_LENGTH]


def write(folder: Path, axes: Sequence[Axis], elements: Sequence[Element]) -> None:
    """Write sweep.json, by which the folder is known as a sweep's."""
    content = {
        "axes": {axis.key: axis.values for axis in axes},
        "elements": [{"folder": each.folder, "changes": each.changes} for each in elements],
    }
    write_json(folder / SWEEP, content)


def read(folder: Path) -> list[Element]:
    """The elements of the sweep in `folder` by their index; none if sweep.json is damaged."""
    content = files.read_json(folder / SWEEP) or {}
    try:
        return [Element(each["folder"], each["changes"]) for each in content["elements"]]
    except (KeyError, TypeError):
        return []


def changes_of(run: RunDirectory) -> dict[str, Any]:
    """What an element of a sweep changes in the recipe; nothing for a run of its own."""
    elements = read(run.sweep) if run.sweep else []
    return next((each.changes for each in elements if each.folder == run.path.name), {})
