"""What a pickle would build, followed instruction by instruction without building it.

`torch.load(weights_only=True)` runs no code of a file's choice. It still does what plain
instructions ask for: hash a tuple that nests a billion-fold, allocate a storage of any claimed
size, make a tensor of quintillions of elements out of one, copy one text a million times. Here a
pickle is read first, by the standard library's disassembler, and refused unless it builds what a
checkpoint is made of, in proportion to its own length.
"""

from __future__ import annotations

import math
import pickletools
from dataclasses import dataclass, field
from typing import IO, Any

from train.admitted import (
    ENCODE,
    ORDERED_DICT,
    OTHER_TENSORS,
    PARAMETER,
    PLAIN,
    REBUILDS,
    RENAMED,
    SIZE,
    STAND_INS,
    STORAGES,
)
from train.errors import RequestError, first_line, printable

# A checkpoint of ResNet-50 with its optimizer takes 40,000 instructions.
MOST_INSTRUCTIONS = 400_000
MOST_VALUES = 1_000_000
DEEPEST = 40
MOST_DIMENSIONS = 8

KEYS = (str, bytes, int, float, type(None))
NOTHING_ELSE = "a checkpoint needs nothing like it"


@dataclass
class Value:
    """Something that the pickle builds, but for numbers, texts and the like.

    `depth`, `size`: how deep it nests and how many values it holds, those that occur in several
    places counted in each. `kind`: 'tuple', 'list', 'dict', 'global', 'storage', 'tensor', 'other'.
    """

    kind: str
    items: list[Any] = field(default_factory=list)
    name: str = ""
    numel: int = 0
    depth: int = 0
    size: int = 1

    def hold(self, items: list[Any]) -> None:
        """Take `items` in."""
        for item in items:
            depth, size = (item.depth, item.size) if isinstance(item, Value) else (0, 1)
            self.depth = max(self.depth, depth + 1)
            self.size += size
        if self.depth > DEEPEST:
            raise RequestError(f"its pickle nests more than {DEEPEST} levels: {NOTHING_ELSE}")
        if self.size > MOST_VALUES:
            raise RequestError(
                f"its pickle unfolds to more than {MOST_VALUES:,} values: {NOTHING_ELSE}"
            )
        self.items += items


@dataclass(frozen=True)
class Storage:
    """The values of one or more tensors: how many, and bytes of each."""

    numel: int
    itemsize: int

    @property
    def nbytes(self) -> int:
        """Bytes of all."""
        return self.numel * self.itemsize


@dataclass
class Plan:
    """What one pickle builds.

    `storages`: by key, what must lie beside the pickle. `stand_ins`: names of what is not read.
    `copied`: characters and numbers that its calls copy, each as often as they do.
    """

    result: Any = None
    storages: dict[str, Storage] = field(default_factory=dict)
    stand_ins: set[str] = field(default_factory=set)
    copied: int = 0


def plan(file: IO[bytes]) -> Plan:
    """Follow the pickle at the position of `file`, which is afterwards behind it.

    Raises:
        RequestError: damaged, or it builds what no checkpoint of a network holds.
    """
    found = Plan()
    try:
        _follow(file, found)
    except RequestError:
        raise
    except Exception as error:  # whatever the disassembler meets in a damaged one
        raise RequestError(f"its pickle is damaged ({first_line(error)})") from None
    return found


def _follow(file: IO[bytes], found: Plan) -> None:  # noqa: PLR0912, PLR0915 - one case each
    stack: list[Any] = []
    marked: list[list[Any]] = []
    memo: dict[int, Any] = {}
    start = file.tell()
    for number, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if number > MOST_INSTRUCTIONS:
            raise RequestError(
                f"its pickle has more than {MOST_INSTRUCTIONS:,} instructions: {NOTHING_ELSE}"
            )
        match opcode.name:
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "BININT1" | "BININT2" | "BININT" | "LONG1" | "BINFLOAT" | "BINUNICODE":
                stack.append(argument)
            case "PROTO":
                if argument != 2:
                    raise RequestError(
                        f"its pickle has protocol {argument}: torch.save writes protocol 2"
                    )
            case "STOP":
                found.result = stack.pop()
                return
            case "MARK":
                marked.append(stack)
                stack = []
            case "NONE":
                stack.append(None)
            case "SHORT_BINSTRING":  # of Python 2
                stack.append(argument)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE":
                stack.append(Value(opcode.name.removeprefix("EMPTY_").lower()))
            case "TUPLE":
                items, stack = stack, marked.pop()
                stack.append(_tuple(items))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(opcode.name[-1])
                items = [stack.pop() for _ in range(count)][::-1]
                stack.append(_tuple(items))
            case "APPEND":
                items = [stack.pop()]
                _expect(stack[-1], "list").hold(items)
            case "APPENDS":
                items, stack = stack, marked.pop()
                _expect(stack[-1], "list").hold(items)
            case "SETITEM":
                items = [stack.pop(), stack.pop()][::-1]
                _set_items(stack[-1], items)
            case "SETITEMS":
                items, stack = stack, marked.pop()
                _set_items(stack[-1], items)
            case "GLOBAL":
                stack.append(_named(argument, found))
            case "BINPERSID":
                stack.append(_storage(stack.pop(), found))
            case "NEWOBJ" | "REDUCE":
                arguments = _expect(stack.pop(), "tuple").items
                function = _expect(stack.pop(), "global").name
                label = stack[-1] if stack and isinstance(stack[-1], str) else "a tensor"
                stack.append(_call(function, arguments, label, found))
                # What torch.save writes has a place of its own in the pickle for each of them.
                if found.copied > file.tell() - start:
                    raise RequestError(f"its pickle copies one value over and over: {NOTHING_ELSE}")
            case "BUILD":
                state = stack.pop()
                _check_state(stack[-1], state)
                stack[-1].hold([state])
            case name:
                raise RequestError(f"its pickle has the instruction {name}: {NOTHING_ELSE}")


def _expect(value: Any, kind: str) -> Value:
    if not isinstance(value, Value) or value.kind != kind:
        raise RequestError(f"its pickle is damaged (no {kind} where one must be)")
    return value


def _tuple(items: list[Any]) -> Value:
    value = Value("tuple")
    value.hold(items)
    return value


def _set_items(value: Any, items: list[Any]) -> None:
    target = _expect(value, "dict")
    # Nothing else may be hashed: the hash of nested tuples takes for ever.
    if len(items) % 2 or not all(isinstance(key, KEYS) for key in items[::2]):
        raise RequestError("its pickle has a dictionary whose keys are no texts or numbers")
    target.hold(items)


def _check_state(value: Any, state: Any) -> None:
    if isinstance(value, Value) and value.kind == "other":
        return
    # A state_dict carries its modules' versions. Other attributes could hide a dictionary's own.
    if _expect(value, "dict") and _expect(state, "dict").items[::2] != ["_metadata"]:
        raise RequestError("its pickle gives a dictionary attributes of its own")


def _named(argument: str, found: Plan) -> Value:
    module, _, name = argument.partition(" ")
    full = f"{RENAMED.get(module, module)}.{name}"
    if full in STAND_INS:
        found.stand_ins.add(full)
    elif full in OTHER_TENSORS:
        raise RequestError(f"it holds {OTHER_TENSORS[full]}, and a ResNet-50 plain ones only")
    elif full not in {ORDERED_DICT, PARAMETER, ENCODE} | PLAIN | REBUILDS.keys() | STORAGES.keys():
        raise RequestError(
            f"its pickle asks for {printable(full)}, which might run code. Where you trust the "
            "file, load it with the program that wrote it and save its state_dict alone"
        )
    return Value("global", name=full)


def _storage(value: Any, found: Plan) -> Value:
    items = _expect(value, "tuple").items
    is_legacy = len(items) == 6 and items[5] is None
    if items[:1] != ["storage"] or not (is_legacy or len(items) == 5):
        raise RequestError("its pickle refers to something that is no storage of a tensor")
    kind, key, location, numel = items[1:5]
    name = _expect(kind, "global").name
    is_sound = isinstance(key, str) and isinstance(location, str) and _is_count(numel)
    if name not in STORAGES or not is_sound:
        raise RequestError("its pickle is damaged (a storage without type, key or size)")
    storage = Storage(numel, STORAGES[name])
    if found.storages.setdefault(key, storage) != storage:
        raise RequestError(f"its pickle has two sizes for the storage {printable(key, 20)}")
    return Value("storage", numel=numel)


def _call(function: str, arguments: list[Any], label: str, found: Plan) -> Value:
    if function in REBUILDS:
        _check_tensor(arguments, REBUILDS[function], printable(label))
        return Value("tensor")
    if function == PARAMETER:
        _expect(arguments[0], "tensor")
        return Value("tensor")
    if function == ORDERED_DICT:
        if arguments:
            raise RequestError("its pickle fills a dictionary in a way that torch.save does not")
        return Value("dict")
    if function == ENCODE:
        if not isinstance(arguments[0], str) or arguments[1:] != ["latin1"]:
            raise RequestError("its pickle has bytes in an unknown encoding")
        found.copied += len(arguments[0])
    if function == SIZE:
        found.copied += len(_expect(arguments[0], "tuple").items)
    if function in STORAGES:
        raise RequestError("its pickle makes a storage instead of referring to one")
    return Value("other")


def _check_tensor(arguments: list[Any], count: int, label: str) -> None:
    if len(arguments) != count:
        raise RequestError(f"{label} is no plain tensor: it has attributes of its own")
    storage = _expect(arguments[0], "storage")
    offset, size, stride = arguments[1], *(_expect(arg, "tuple").items for arg in arguments[2:4])
    if len(size) != len(stride) or len(size) > MOST_DIMENSIONS:
        raise RequestError(f"{label} has {len(size)} dimensions and {len(stride)} strides")
    if not all(_is_count(number) for number in (offset, *size, *stride)):
        raise RequestError(f"{label} has a size, stride or offset that is no number of values")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 not in size and (last >= storage.numel or math.prod(size) > storage.numel):
        raise RequestError(
            f"{label} of shape {tuple(size)} reaches beyond the {storage.numel:,} values stored "
            "for it"
        )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
