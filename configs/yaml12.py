"""YAML by the 1.2 rules, with the line of every key.

PyYAML reads YAML 1.1, where `1e-3` is a string, `no` is false, `12:00:00` is 43200 and a key given
twice silently takes its last value. Here a scalar is what YAML 1.2's core schema says, keys are
always strings, and a key given twice is a problem. Aliases, tags and deep nesting are refused: a
recipe needs none of them, and aliases that expand each other can fill any memory.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from typing import Any

import yaml

MAX_DEPTH = 20
MAX_NUMBER_LENGTH = 100

# The core schema of YAML 1.2, section 10.3.2: tag, pattern, characters it can start with.
CORE_SCHEMA = (
    ("tag:yaml.org,2002:null", r"(?:~|null|Null|NULL|)", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", r"(?:true|True|TRUE|false|False|FALSE)", list("tTfF")),
    ("tag:yaml.org,2002:int", r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)", list("-+0123456789")),
    (
        "tag:yaml.org,2002:float",
        r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))",
        list("-+.0123456789"),
    ),
)


class YamlError(ValueError):
    """A text that is not the YAML we read; `line` and `column` count from 1."""

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


@dataclass(frozen=True)
class Document:
    """The plain data of a text, the line of each key, and the keys that are given twice."""

    value: Any
    lines: dict[tuple[str, ...], int] = field(default_factory=dict)
    duplicates: list[tuple[tuple[str, ...], int, int]] = field(default_factory=list)
    """Path of the key, its line, and the line that it was first given on."""


def read(text: str) -> Document:
    """Return the one document in `text`, whose value is None if there is nothing in it.

    Raises:
        YamlError: it is not valid YAML, or uses what recipes do without.
    """
    try:
        _refuse_what_recipes_do_without(text)
        document = Document(None)
        value = _value(yaml.compose(text, Loader=_Loader), (), document)
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        message = f"the character U+{ord(text[error.position]):04X} is not allowed"
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise YamlError(message, line, column) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        assert mark, "PyYAML and we give every error a place"
        raise YamlError(_in_words(error), mark.line + 1, mark.column + 1) from error
    except (ValueError, OverflowError) as error:
        # PyYAML hands the number in "\UFFFFFFFF" to chr() as it is, and tells no place.
        raise YamlError("an escape (\\x, \\u or \\U) names no character", 1, 1) from error
    return Document(value, document.lines, document.duplicates)


def dump(value: Any) -> str:
    """Return `value` as YAML that `read` reads back equal, keys in the order given.

    A string that YAML 1.1 or 1.2 would take for something else is quoted, so other tools read the
    text alike.
    """
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=sys.maxsize)


class _Loader(yaml.SafeLoader):
    """Knows the implicit types of YAML 1.2 only."""


class _Dumper(yaml.SafeDumper):
    """Knows YAML 1.1's implicit types from its parent and learns those of 1.2 below."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in CORE_SCHEMA:
    _Loader.add_implicit_resolver(_tag, re.compile(rf"^{_pattern}\Z"), _first)
    _Dumper.add_implicit_resolver(_tag, re.compile(rf"^{_pattern}\Z"), _first)


def _represent_list(dumper: _Dumper, items: list[Any]) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)


def _represent_str(dumper: _Dumper, text: str) -> yaml.Node:
    # PyYAML's other styles lose line breaks such as U+0085.
    style = None if [text] == text.splitlines() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(list, _represent_list)
_Dumper.add_representer(str, _represent_str)


def _refuse_what_recipes_do_without(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            raise _refusal(f"the alias *{event.anchor}: write the value out", event.start_mark)
        if getattr(event, "tag", None):
            raise _refusal("tags (!...): write the value without", event.start_mark)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise _refusal(f"more than {MAX_DEPTH} levels", event.start_mark)


def _value(node: yaml.Node | None, path: tuple[str, ...], document: Document) -> Any:
    """Return the plain data of `node`, noting the lines of its keys in `document`."""
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, document)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*path, str(i)), document) for i, item in enumerate(node.value)]
    return _scalar(node) if isinstance(node, yaml.ScalarNode) else None


def _mapping(node: yaml.MappingNode, path: tuple[str, ...], document: Document) -> dict[str, Any]:
    mapping = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise _refusal("a list or mapping as a key", key_node.start_mark)
        key, line = (*path, key_node.value), key_node.start_mark.line + 1
        if key in document.lines:
            document.duplicates.append((key, line, document.lines[key]))
        document.lines.setdefault(key, line)
        mapping[key_node.value] = _value(value_node, key, document)
    return mapping


def _scalar(node: yaml.ScalarNode) -> str | int | float | bool | None:
    text: str = node.value
    kind = node.tag.removeprefix("tag:yaml.org,2002:")
    if kind in ("int", "float") and len(text) > MAX_NUMBER_LENGTH:
        raise _refusal(f"a number of {len(text)} characters", node.start_mark)
    match kind:
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int":
            base = {"0o": 8, "0x": 16}.get(text[:2], 10)
            return int(text, base)
        case "float":
            # float() knows .inf and .nan without the dot only.
            return float(re.sub(r"\.(?=[iInN])", "", text))
    return text


def _refusal(what: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=f"recipes do not use {what}", problem_mark=mark)


def _in_words(error: yaml.MarkedYAMLError) -> str:
    message = str(error.problem)
    if error.context and error.context_mark:
        message = f"{error.context} from line {error.context_mark.line + 1}, {message}"
    if "'\\t'" in message:
        message += "; indent with spaces, not tabs"
    return message
