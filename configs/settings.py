"""What the layers of a recipe set, merged key by key, each with the place it comes from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import ValidationError

from configs import explain, yaml12
from configs.explain import Key
from configs.schema import Recipe

OVERRIDE = "--set"


class RecipeError(Exception):
    """A recipe that cannot be used; `problems` has one line on each thing that is wrong."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Place(NamedTuple):
    """Where something is set; places sort in the order that problems are told in."""

    layer: int
    line: int
    label: str


class Setting(NamedTuple):
    """A value and where it was set."""

    value: Any
    place: Place


@dataclass(frozen=True)
class Layer:
    """The content of one file; the smaller its rank, the sooner its problems are told."""

    label: str
    rank: int
    document: yaml12.Document

    def place(self, key: Key) -> Place:
        """Return where `key`, which this file holds, is set."""
        line = self.document.lines[key]
        return Place(self.rank, line, f"{self.label}:{line}")


class Settings:
    """The settings of all layers so far; a later layer wins, key by key.

    A list is one value. The mappings in `cluster.env` and `cluster.sbatch` are merged name by name,
    so a recipe adds a variable to those of the site.
    """

    def __init__(self) -> None:
        self.values: dict[Key, Setting] = {}
        self._problems: list[tuple[Place, str]] = []

    def report(self, place: Place, message: str, key: Key = ()) -> None:
        """Note a problem; `recipe` raises all of them together."""
        parts = [place.label, ".".join(key)]
        separator = " " if place.label == OVERRIDE else ": "
        self._problems.append((place, f"{separator.join(filter(None, parts))}: {message}"))

    def add_file(self, layer: Layer) -> None:
        """Merge the sections of a recipe."""
        if layer.document.value is None:
            self.report(Place(layer.rank, 0, layer.label), "is empty")
        for key, value in self._settings_in(layer):
            self._add(key, value, layer.place(key))

    def add_site(self, layer: Layer) -> None:
        """Merge the defaults of a site, which are of `cluster` and the folder of all runs."""
        for key, value in self._settings_in(layer):
            if key[0] == "cluster" or key == ("run", "root"):
                self._add(key, value, layer.place(key))
            else:
                self.report(layer.place(key), "a site sets only cluster.* and run.root", key)

    def add_override(self, text: str, rank: int) -> None:
        """Merge one `section.key=value`; the value is YAML, or the empty text."""
        dotted, equals, value_text = text.partition("=")
        key: Key = tuple(dotted.split(".", 2))
        place = Place(rank, 0, OVERRIDE)
        if not equals:
            self.report(place, "write it as section.key=value", key)
            return
        try:
            document = yaml12.read(value_text) if value_text else yaml12.Document("")
        except yaml12.YamlError as error:
            self.report(place, f"not valid YAML: {error}", key)
            return
        if str(document.value).count("#") < value_text.count("#"):
            remedy = f"put the value in quotes, {explain.IN_A_SHELL}"
            self.report(place, f"'#' begins a comment: {remedy}", key)
            return
        for path, _, _ in document.duplicates:
            self.report(place, "is given twice", (*key, *path))
        sections = document.value
        for name in reversed(key):
            sections = {name: sections}
        for found, value in _flatten(sections):
            self._add(found, value, place)

    def value(self, key: Key) -> Any:
        """Return what `key` is set to, or its default."""
        return self.values[key].value if key in self.values else explain.field(key).default

    def origins(self) -> dict[str, str]:
        """Return where each dotted key was set, as `LoadedRecipe` has it."""
        return {".".join(key): setting.place.label for key, setting in self.values.items()}

    def replace(self, key: Key, value: Any, place: Place) -> None:
        """Set `key` to `value` where it was set, or at `place` if it was not."""
        self.values[key] = Setting(value, self.values[key].place if key in self.values else place)

    def recipe(self) -> Recipe:
        """Return the recipe with these settings, the schema's defaults for all others.

        Raises:
            RecipeError: with every problem reported so far and every value that is refused.
        """
        nested: dict[str, Any] = {}
        for key, setting in self.values.items():
            *parents, name = key
            level = nested
            for parent in parents:
                level = level.setdefault(parent, {})
            level[name] = setting.value
        try:
            recipe = Recipe.model_validate(nested)
        except ValidationError as error:
            self._report_values(error)
        if self._problems:
            raise RecipeError([message for _, message in sorted(self._problems)])
        return recipe

    def _settings_in(self, layer: Layer) -> Iterator[tuple[Key, Any]]:
        for key, line, first_line in layer.document.duplicates:
            place = Place(layer.rank, line, f"{layer.label}:{line}")
            self.report(place, f"already given on line {first_line}", key)
        return _flatten(layer.document.value or {})

    def _add(self, key: Key, value: Any, place: Place) -> None:
        problem = explain.key_problem(key)
        if not problem and explain.holds_mapping(key):
            problem = explain.wrong_type(key, value)
        if problem:
            self.report(place, problem, key)
        else:
            self.values[key] = Setting(value, place)

    def _report_values(self, error: ValidationError) -> None:
        seen = set()
        for details in error.errors():
            # A union reports each of its members, a list each of its items: one problem a key.
            location = tuple(str(part) for part in details["loc"])
            key = next(location[:n] for n in (3, 2) if location[:n] in self.values)
            if key not in seen:
                seen.add(key)
                value, place = self.values[key]
                self.report(place, explain.value_problem(key, value, details), key)


def _flatten(sections: dict[str, Any]) -> Iterator[tuple[Key, Any]]:
    """Yield each setting, two levels deep, or three where the schema has a mapping.

    An empty section sets nothing. What stands where a section or a mapping should is yielded under
    its own, shorter key.
    """
    for section, keys in sections.items():
        if keys is None and section in explain.SECTIONS:
            continue
        if not isinstance(keys, dict) or section not in explain.SECTIONS:
            yield (section,), keys
            continue
        for name, value in keys.items():
            key = (section, name)
            if isinstance(value, dict) and explain.holds_mapping(key):
                yield from (((*key, inner), item) for inner, item in value.items())
            else:
                yield key, value
