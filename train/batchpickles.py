"""Reading a pickle without running it: plain values and arrays of numbers, nothing else.

Python's unpickler trusts what it reads. It calls what the pickle names, makes its memo as large as
a number in it, and hashes keys that may be towers of tuples. So `pickletools` takes the pickle
apart here, and each operation is done or refused one by one. What is read takes memory in
proportion to the pickle, and its operations are counted.
"""

from __future__ import annotations

import math
import pickletools
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from train.errors import RequestError, printable

MAX_OPERATIONS = 100_000  # of the smallest pickle; as many class names need far fewer
BYTES_PER_OPERATION = 200  # an image has 3,072 bytes, its labels and its file name take ten
LONGEST_KEY = 1_000  # characters
LONGEST_CODE = 100  # characters of a type of numbers
NUMBERS = re.compile(r"[<>|=]?(?:b1|[iu][1248]|f[248])")
ADMITTED = {
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("numpy.core.multiarray", "_reconstruct"): "reconstruct",
    ("numpy._core.multiarray", "_reconstruct"): "reconstruct",
    ("numpy.core.numeric", "_frombuffer"): "frombuffer",
    ("numpy._core.numeric", "_frombuffer"): "frombuffer",
    ("_codecs", "encode"): "encode",
}


class Function:
    """Stands for something that a pickle may call."""

    def __init__(self, name: str) -> None:
        self.name = name


class Numbers:
    """Stands for numpy's type of an array; `code` such as u1, `order` of its bytes."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.order = "="


class Array:
    """Stands for an array, which a pickle makes in two steps."""

    values: np.ndarray | None = None


def read_pickle(content: bytes) -> dict[bytes, Any]:
    """The dictionary pickled in `content`; keys that are texts become their UTF-8 bytes.

    Raises:
        RequestError: it holds something else, is damaged, or asks for what no image batch needs.
    """
    machine = Machine(len(content))
    limit = MAX_OPERATIONS + len(content) // BYTES_PER_OPERATION
    try:
        for count, (operation, argument, _) in enumerate(pickletools.genops(content)):
            if count == limit:
                raise RequestError(f"its pickle has more than {limit:,} operations for its size")
            if operation.name not in STEPS:
                raise RequestError(f"its pickle uses {operation.name}, which no image batch needs")
            STEPS[operation.name](machine, argument)
        value = machine.stack.pop()
    except (ValueError, TypeError, LookupError, OverflowError) as error:
        raise RequestError(f"damaged pickle ({type(error).__name__}: {printable(error)})") from None
    if not isinstance(value, dict):
        raise RequestError("it holds no dictionary")
    return {key: each.values if isinstance(each, Array) else each for key, each in value.items()}


class Machine:
    """The stack machine that a pickle is a program for; `size` is the pickle's, in bytes."""

    def __init__(self, size: int) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.room = size  # for texts that are turned into bytes, each as often as it is asked for

    def since_mark(self) -> list[Any]:
        """Take from the stack what is above its last mark."""
        return self.take(len(self.stack) - self.marks.pop())

    def take(self, count: int) -> list[Any]:
        """Take the last `count` values from the stack."""
        if not 0 <= count <= len(self.stack):
            raise ValueError("the stack is too short")
        start = len(self.stack) - count
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def extend(self, values: list[Any]) -> None:
        """Append `values` to the list on the stack."""
        if not isinstance(self.stack[-1], list):
            raise TypeError("values are appended to something that is no list")
        self.stack[-1].extend(values)

    def fill(self, values: list[Any]) -> None:
        """Put `values`, keys and values by turns, into the dictionary on the stack."""
        if not isinstance(self.stack[-1], dict):
            raise TypeError("keys are set in something that is no dictionary")
        self.stack[-1].update(zip(map(_key, values[::2]), values[1::2], strict=True))

    def find(self, module: object, name: object) -> None:
        """Put what the pickle calls `module.name` on the stack, if it is admitted."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError("a name is no text")
        if (module, name) not in ADMITTED:
            asked = printable(f"{module}.{name}")
            raise RequestError(f"its pickle asks for {asked}, which no image batch needs")
        self.stack.append(Function(ADMITTED[module, name]))

    def call(self) -> None:
        """Do what the function on the stack stands for, with the arguments above it."""
        function, arguments = self.take(2)
        if not isinstance(function, Function) or not isinstance(arguments, tuple):
            raise TypeError("something is called that is no function")
        match function.name, arguments:
            case "encode", (str(text), "latin1" | "latin-1"):
                self.room -= len(text)
                if self.room < 0:
                    raise RequestError("its pickle uses one text again and again")
                self.stack.append(text.encode("latin-1"))
            case "dtype", (str() | bytes() as code, *_):
                self.stack.append(Numbers(_code(code)))
            case "reconstruct", _:
                self.stack.append(Array())
            case "frombuffer", (raw, Numbers() as numbers, shape, order):
                array = Array()
                array.values = _array(raw, numbers, shape, "F" if order == "F" else "C")
                self.stack.append(array)
            case _:
                raise TypeError(f"{function.name} has other arguments than an array gives it")

    def build(self) -> None:
        """Give the array, or the type of one, on the stack what it holds."""
        (state,) = self.take(1)
        match self.stack[-1], state:
            case Numbers() as numbers, (_, str() | bytes() as order, None, None, None, *_):
                numbers.order = _order(order)
            case Array() as array, (_, shape, Numbers() as numbers, is_fortran, raw):
                array.values = _array(raw, numbers, shape, "F" if is_fortran else "C")
            case _:
                raise TypeError("something is given a state that is no array of numbers")


def _key(value: object) -> bytes:
    """A key as bytes; nothing else is hashed, for that may take for ever."""
    if not isinstance(value, str | bytes) or len(value) > LONGEST_KEY:
        raise TypeError("a key is no short text")
    return value.encode() if isinstance(value, str) else value


def _code(code: str | bytes) -> str:
    text = code if isinstance(code, str) else code[: LONGEST_CODE + 1].decode("latin-1")
    if len(text) > LONGEST_CODE or not NUMBERS.fullmatch(text):
        raise RequestError(f"its pickle has an array of {printable(text)}, not of plain numbers")
    return text


def _order(order: str | bytes) -> str:
    text = order if isinstance(order, str) else order[:2].decode("latin-1")
    if text not in ("<", ">", "|", "="):
        raise ValueError("an array has an unknown order of bytes")
    return text


def _array(raw: object, numbers: Numbers, shape: object, order: str) -> np.ndarray:
    """The bytes of `raw` as an array; they are not copied.

    Raises:
        ValueError, TypeError: they do not make such an array.
    """
    if not isinstance(raw, bytes | bytearray) or not isinstance(shape, tuple):
        raise TypeError("an array has no bytes or no shape")
    if not all(isinstance(side, int) and 0 <= side <= len(raw) for side in shape[:4]):
        raise ValueError("an array has a side that its bytes do not fill")
    kind = np.dtype(numbers.code).newbyteorder(numbers.order)
    if len(shape) > 4 or math.prod(shape) * kind.itemsize != len(raw):
        raise ValueError("an array has another shape than its bytes")
    return np.frombuffer(raw, kind).reshape(shape, order=order)


def _push(machine: Machine, value: Any) -> None:
    machine.stack.append(value)


def _remember(machine: Machine, place: int) -> None:
    machine.memo[place] = machine.stack[-1]


def _tuple_of(count: int) -> Callable[[Machine, Any], None]:
    return lambda machine, _: machine.stack.append(tuple(machine.take(count)))


def _dictionary(machine: Machine, _: Any) -> None:
    values = machine.since_mark()
    machine.stack.append({})
    machine.fill(values)


VALUES = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
)
# Python 2's texts are bytes; pickletools shows each byte as a character.
TEXTS = ("STRING", "BINSTRING", "SHORT_BINSTRING")
STEPS: dict[str, Callable[[Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda machine, _: None),
    **dict.fromkeys(VALUES, _push),
    **dict.fromkeys(TEXTS, lambda machine, text: _push(machine, text.encode("latin-1"))),
    "NONE": lambda machine, _: _push(machine, None),
    "NEWTRUE": lambda machine, _: _push(machine, True),
    "NEWFALSE": lambda machine, _: _push(machine, False),
    "EMPTY_DICT": lambda machine, _: _push(machine, {}),
    "EMPTY_LIST": lambda machine, _: _push(machine, []),
    "EMPTY_TUPLE": lambda machine, _: _push(machine, ()),
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "DICT": _dictionary,
    "LIST": lambda machine, _: _push(machine, machine.since_mark()),
    "TUPLE": lambda machine, _: _push(machine, tuple(machine.since_mark())),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "APPEND": lambda machine, _: machine.extend(machine.take(1)),
    "APPENDS": lambda machine, _: machine.extend(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.fill(machine.take(2)),
    "SETITEMS": lambda machine, _: machine.fill(machine.since_mark()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _remember),
    "MEMOIZE": lambda machine, _: _remember(machine, len(machine.memo)),
    **dict.fromkeys(
        ("GET", "BINGET", "LONG_BINGET"), lambda machine, place: _push(machine, machine.memo[place])
    ),
    "GLOBAL": lambda machine, names: machine.find(*names.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.find(*machine.take(2)),
    "REDUCE": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.build(),
}
