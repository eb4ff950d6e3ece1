"""What a recipe's keys take, in words, and what is wrong with a key or a value.

Everything here is read from the schema, so messages and tables cannot drift from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from configs.schema import Recipe
from configs.section import Section

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

Key = tuple[str, ...]
"""Section and key, and a name where the key holds a mapping, such as cluster.env.NCCL_DEBUG."""

SECTIONS: dict[str, type[Section]] = {
    name: section.annotation
    for name, section in Recipe.model_fields.items()
    if isinstance(section.annotation, type)
}
KEYS: tuple[Key, ...] = tuple(
    (name, key) for name, section in SECTIONS.items() for key in section.model_fields
)

LONGEST_VALUE_SHOWN = 60
IN_A_SHELL = "in a shell within others: '\"...\"'"
SINGULAR, PLURAL = 0, 1
NOUNS: dict[object, tuple[str, str]] = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("text", "texts"),
    bool: ("true/false", "true/false values"),
    NoneType: ("null", "nulls"),
}


def field(key: Key) -> FieldInfo:
    """Return the schema's entry for a known `key`."""
    return SECTIONS[key[0]].model_fields[key[1]]


def holds_mapping(key: Key) -> bool:
    """Tell whether `key` is a known key whose value is a mapping with names of its own."""
    return key in KEYS and get_origin(field(key).annotation) is dict


def expected(key: Key) -> str:
    """Return what a known `key` takes, such as "a number above 0" or "text or null"."""
    entry = field(key)
    if len(key) > 2:
        return _type_in_words(get_args(entry.annotation)[1], [])
    return _type_in_words(entry.annotation, entry.metadata)


def key_problem(key: Key) -> str | None:
    """Return what is wrong with the name of `key`, or None if the schema has it."""
    if key[:2] in KEYS:
        return None
    section, *rest = key
    if section not in SECTIONS:
        return "unknown section" + (_section_hint(section) or _list("sections", SECTIONS))
    if not rest:
        return f"is a section, its keys go below it: {', '.join(SECTIONS[section].model_fields)}"
    if nearest := _nearest_key(section, rest[0]):
        return f"unknown key; did you mean '{nearest}'?"
    return "unknown key" + _list(f"keys of {section}", SECTIONS[section].model_fields)


def value_problem(key: Key, value: Any, error: ErrorDetails) -> str:
    """Return what is wrong with the `value` of a known `key`, which pydantic met with `error`."""
    if error["type"] == "value_error":
        return f"{error['ctx']['error']}; got {shown(value)}"
    return wrong_type(key, value)


def wrong_type(key: Key, value: Any) -> str:
    """Return that `value` is not what a known `key` takes, and the choice it comes close to."""
    entry = field(key)
    message = f"expected {expected(key)}, got {shown(value)}"
    if entry.description:
        message += f" ({entry.description})"
    if expected(key).startswith("text") and isinstance(value, bool | int | float | dict):
        # Without an example of it: of 007, all that is left here is 7.
        return f"{message}; put it in quotes to make it text, {IN_A_SHELL}"
    near = get_close_matches(str(value).lower(), _choices(entry.annotation), 1)
    return f"{message}; did you mean '{near[0]}'?" if near else message


def shown(value: Any) -> str:
    """Return `value` as a message shows it, cut where it is long."""
    text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_VALUE_SHOWN else f"{text[:LONGEST_VALUE_SHOWN]}..."


def _type_in_words(annotation: Any, bounds: Sequence[object], number: int = SINGULAR) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_in_words(parts[0], parts[1].metadata, number)
    if origin in (Union, UnionType, Literal):
        is_choice = origin is Literal
        return _any_of([f"'{p}'" if is_choice else _type_in_words(p, bounds) for p in parts])
    if origin is dict:
        return f"a mapping of names to {_type_in_words(parts[1], [])}"
    if origin is list:
        length = _bound(bounds, "min_length")
        exactly = f"{length} " if length and length == _bound(bounds, "max_length") else ""
        return f"a list of {exactly}{_type_in_words(parts[0], [], PLURAL)}"
    if origin is tuple:
        return f"[{', '.join(_type_in_words(part, []) for part in parts)}]"
    noun = NOUNS[annotation][number]
    return noun if annotation is NoneType else noun + _range_in_words(bounds)


def _range_in_words(bounds: Sequence[object]) -> str:
    at_least, at_most = _bound(bounds, "ge"), _bound(bounds, "le")
    if at_least is not None and at_most is not None:
        return f" from {at_least} to {at_most}"
    limits = [
        f"{words} {limit}"
        for words, limit in (
            ("above", _bound(bounds, "gt")),
            ("of at least", at_least),
            ("below", _bound(bounds, "lt")),
            ("at most", at_most),
        )
        if limit is not None
    ]
    if _bound(bounds, "min_length"):
        limits.append("(not empty)")
    if longest := _bound(bounds, "max_length"):
        limits.append(f"of at most {longest} characters")
    return f" {' and '.join(limits)}" if limits else ""


def _bound(bounds: Sequence[object], name: str) -> Any:
    return next((getattr(bound, name) for bound in bounds if hasattr(bound, name)), None)


def _any_of(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]


def _choices(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [choice for part in get_args(annotation) for choice in _choices(part)]


def _section_hint(name: str) -> str | None:
    if tuple(name.split(".")) in KEYS:
        section, key = name.split(".")
        return f"; write '{key}:' below '{section}:'"
    if keys := [".".join(key) for key in KEYS if key[1] == name]:
        return f"; did you mean '{keys[0]}'?"
    near = get_close_matches(name, SECTIONS, 1)
    return f"; did you mean '{near[0]}'?" if near else None


def _nearest_key(section: str, name: str) -> str | None:
    """Return the known key that `section.name` was meant to be: moved, cut short or misspelt."""
    at_home_first = sorted(KEYS, key=lambda key: key[0] != section)
    for key in at_home_first:
        if key[1] == name or key[1].startswith(f"{name}_"):
            return ".".join(key)
    names_here = SECTIONS[section].model_fields
    near = get_close_matches(name, names_here, 1) or get_close_matches(
        name, [key[1] for key in KEYS], 1, cutoff=0.8
    )
    return next((".".join(key) for key in at_home_first if key[1] in near), None)


def _list(what: str, names: Iterable[str]) -> str:
    return f"; the {what} are {', '.join(names)}"
