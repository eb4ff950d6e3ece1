"""Pickles and tars that would do harm, each with the words that it is refused with."""

from __future__ import annotations

import datetime
import pickle
import struct
from typing import Any

import numpy as np

from tests.train.archives import END, ROWS, member, members
from train.archive import CIFAR10
from train.members import MAX_MEMBERS

TEST = f"{CIFAR10.folder}/test_batch"


def p(body: bytes) -> bytes:
    """A pickle of protocol 2 with this program."""
    return b"\x80\x02" + body + b"."


def unicode(text: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text


def array_of(code: bytes, shape: bytes, raw: bytes, state: bytes = b"U\x01|NNN") -> bytes:
    """The operations of an array with this type, shape and content."""
    return (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
        + shape
        + b"cnumpy\ndtype\n"
        + b"T"
        + struct.pack("<i", len(code))
        + code
        + b"K\x00K\x01\x87R(K\x03"
        + state
        + b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + struct.pack("<i", len(raw))
        + raw
        + b"tb"
    )


def data_of(array: bytes) -> bytes:
    return p(b"}U\x04data" + array + b"s")


TOWER = b")q\x00" + b"h\x00h\x00\x86q\x00" * 200
TIMES_TEN = b"](" + b"h\x00" * 10 + b"eq\x00"
HUGE = b"\xff" * 7 + b"\x0f"

PICKLES = {
    "a command": (p(b"cos\nsystem\nU\x04true\x85R"), "asks for os.system"),
    "a command by names on the stack": (
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",
        "asks for posix.system",
    ),
    "getattr": (p(b"cbuiltins\ngetattr\n"), "asks for builtins.getattr"),
    "a function deep in numpy": (p(b"cnumpy\nload\n"), "asks for numpy.load"),
    "a name of a megabyte": (p(b"cos\n" + b"x" * 2**20 + b"\n"), "asks for os.xxx"),
    "a name with escapes": (p(b"cos\n\x1b[2J\n"), "asks for os.\N{REPLACEMENT CHARACTER}[2J"),
    "the interpreter's own class": (p(b"(i__main__\nRefused\n"), "uses INST"),
    "a new object": (p(b"cnumpy\nndarray\n)\x81"), "uses NEWOBJ"),
    "an object": (p(b"(cnumpy\nndarray\no"), "uses OBJ"),
    "a persistent id": (p(b"Pid\n"), "uses PERSID"),
    "a persistent id from the stack": (p(b"NQ"), "uses BINPERSID"),
    "an extension's code": (p(b"\x82\x01"), "uses EXT1"),
    "a large extension's code": (p(b"\x84\x00\x00\x00\x7f"), "uses EXT4"),
    "a buffer from elsewhere": (b"\x80\x05\x97.", "uses NEXT_BUFFER"),
    "a set": (b"\x80\x04\x8f.", "uses EMPTY_SET"),
    "a date": (pickle.dumps({b"data": datetime.date.min}, 4), "asks for datetime.date"),
    "a billion lists": (p(b"]q\x00" + TIMES_TEN * 9), "it holds no dictionary"),
    "a key that takes for ever to hash": (p(TOWER + b"}h\x00Ns"), "a key is no short text"),
    "a key of a huge number": (p(b"}\x8b\x00\x00\x10\x00" + b"\x01" * 2**20 + b"Ns"), "key is no"),
    "a key of a megabyte": (p(b"}" + unicode(b"k" * 2**20) + b"Ns"), "a key is no short text"),
    "a million lists in each other": (p(b"]" * 10**6), "has more than 105,000 operations"),
    "a million marks": (p(b"(" * 10**6), "has more than 105,000 operations"),
    "bytes without end": (b"\x80\x04\x8e" + HUGE + b".", "damaged pickle (ValueError"),
    "a byte array without end": (b"\x80\x05\x96" + HUGE + b".", "damaged pickle (ValueError"),
    "a text without end": (b"\x80\x04\x8d" + HUGE + b".", "damaged pickle (ValueError"),
    "a number without end": (p(b"\x8b\xff\xff\xff\x7f"), "damaged pickle (ValueError"),
    "a number of negative length": (p(b"\x8b\xff\xff\xff\xff"), "damaged pickle (ValueError"),
    "a number of a million digits": (p(b"L" + b"9" * 10**6 + b"L\n"), "damaged pickle (ValueError"),
    "a protocol to come": (b"\x80\xff.", "damaged pickle (IndexError"),
    "a frame without end": (b"\x80\x04\x95" + HUGE + b".", "damaged pickle (IndexError"),
    "the last place of the memo": (p(b"Nr\xff\xff\xff\xff"), "it holds no dictionary"),
    "an empty place of the memo": (p(b"h\x07"), "damaged pickle (KeyError: 7)"),
    "nothing on the stack": (p(b"\x87"), "the stack is too short"),
    "no mark": (p(b"NNt"), "damaged pickle (IndexError"),
    "an odd dictionary": (p(b"(U\x01kd"), "damaged pickle (ValueError"),
    "a list that is a number": (p(b"K\x01Na"), "appended to something that is no list"),
    "a dictionary that is a number": (p(b"K\x01NNs"), "set in something that is no dictionary"),
    "a call of a text": (p(b"U\x01x)R"), "something is called that is no function"),
    "a state for a list": (p(b"]}b"), "something is given a state"),
    "an array of objects": (data_of(array_of(b"O8", b"K\x01\x85", bytes(8))), "an array of O8"),
    "an array of records": (
        data_of(array_of(b"V8", b"K\x01\x85", bytes(8))),
        "an array of V8, not of plain numbers",
    ),
    "named fields": (
        data_of(array_of(b"u1", b"K\x01\x85", b"\x00", state=b"U\x01|NU\x01f\x85}")),
        "something is given a state",
    ),
    "a type of a megabyte": (
        data_of(array_of(b"u1," * 2**18, b"K\x01\x85", b"")),
        "array of u1,u1",
    ),
    "an unknown order of bytes": (
        data_of(array_of(b"u1", b"K\x01\x85", b"\x00", state=b"U\x01^NNN")),
        "unknown order of bytes",
    ),
    "a shape of 2**60": (
        data_of(array_of(b"u1", b"\x8a\x08" + bytes(7) + b"\x10\x85", b"\x00")),
        "a side that its bytes do not fill",
    ),
    "a negative side": (
        data_of(array_of(b"u1", b"J\xff\xff\xff\xff\x85", b"\x00")),
        "a side that its bytes do not fill",
    ),
    "a thousand sides": (
        data_of(array_of(b"u1", b"(" + b"K\x01" * 1000 + b"t", b"\x00")),
        "another shape than its bytes",
    ),
    "a side that is a list": (data_of(array_of(b"u1", b"]\x85", b"\x00")), "a side that its bytes"),
    "an array that is never filled": (
        p(b"}U\x04datacnumpy.core.multiarray\n_reconstruct\n)Rs"),
        "no uint8 rows of 3072 values",
    ),
    "another coding": (
        p(b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R"),
        "enc",
    ),
    "a text that is no bytes": (
        p(b"c_codecs\nencode\nX\x03\x00\x00\x00\xe2\x82\xacX\x06\x00\x00\x00latin1\x86R"),
        "damaged pickle (UnicodeEncodeError",
    ),
    "one text as bytes again and again": (
        p(
            unicode(b"x" * 2**20)
            + b"q\x00"
            + b"c_codecs\nencode\nq\x01h\x00X\x06\x00\x00\x00latin1q\x02\x86R"
            + b"h\x01h\x00h\x02\x86R" * 10_000
        ),
        "one text again and again",
    ),
    "labels that are huge numbers": (
        pickle.dumps({b"data": ROWS, b"labels": [2**2000, -(2**64), 1]}, 2),
        "labels that are no whole numbers from 0",
    ),
    "labels that are arrays": (
        pickle.dumps({b"data": ROWS, b"labels": np.zeros(3, np.int64)}, 2),
        "not one of labels",
    ),
}


def evil(name: str, kind: bytes, **header: Any) -> bytes:
    return member(name, type=kind, **header) + members() + END


def pax(records: bytes, kind: bytes = b"x") -> bytes:
    return member("extension", records, type=kind) + members() + END


TARS = {
    "an absolute path": (evil("/etc/passwd", b"0"), "member /etc/passwd has an absolute path"),
    "a path upwards": (evil("a/../../b", b"0"), "member a/../../b has a path with '..'"),
    "a hard link": (evil(TEST, b"1", linkname="/etc/shadow"), f"member {TEST} is a hard link"),
    "a symbolic link": (evil(TEST, b"2", linkname="/etc"), f"member {TEST} is a symbolic link"),
    "a link to itself": (evil(TEST, b"1", linkname=TEST), f"member {TEST} is a hard link"),
    "a character device": (evil(TEST, b"3", devmajor=1, devminor=5), "is a character device"),
    "a block device": (evil("disk", b"4"), "member disk is a block device"),
    "a FIFO": (evil(TEST, b"6"), f"member {TEST} is a FIFO"),
    "a sparse file": (evil(TEST, b"S"), f"member {TEST} is a sparse file"),
    "a long name": (evil("././@LongLink", b"L", size=2**33), "@LongLink is a long name"),
    "a long link": (evil("././@LongLink", b"K", size=2**33), "@LongLink is a long link name"),
    "an unknown type": (evil(TEST, b"Z"), "is of the unknown type b'Z'"),
    "100 GB that a header claims": (evil("big", b"0", size=10**11), "big claims 100,000,000,000"),
    "100 GB of a batch": (evil(TEST, b"0", size=10**11), f"member {TEST} claims 100,000,000,000"),
    "a negative size": (evil(TEST, b"0", size=-512), f"member {TEST} claims -512 bytes"),
    "a folder with content": (evil("folder", b"5", size=512), "member folder claims 512 bytes"),
    "a huge extension": (evil("x", b"x", size=2**33), "member x claims 8,589,934,592 bytes"),
    "another path by an extension": (
        pax(b"21 path=/etc/passwd\n"),
        "member extension changes the path",
    ),
    "another size by an extension": (
        pax(b"9 size=1\n", b"g"),
        "member extension changes the size",
    ),
    "a sparse file by an extension": (
        pax(b"22 GNU.sparse.major=1\n"),
        "changes the GNU.sparse.major",
    ),
    "a member twice": (members() + member(TEST, b"x") + END, f"it has two members {TEST}"),
    "a member twice, once below ./": (
        members() + member(f"./{TEST}", b"x") + END,
        f"it has two members ./{TEST}",
    ),
    "a crowd of members": (
        b"".join(member(f"{number}") for number in range(MAX_MEMBERS + 1)) + members() + END,
        "it has more than 1,000 members",
    ),
    "extensions without end": (member("e", type=b"x") * 5_000, "it has more than 1,000 members"),
    "a member's name with escapes": (
        evil("\x1b]0;x", b"6"),
        "member \N{REPLACEMENT CHARACTER}]0;x is a FIFO",
    ),
    "a name that is no UTF-8": (evil("\udcff", b"6"), "member \N{REPLACEMENT CHARACTER} is a FIFO"),
    "a damaged header": (b"x" * 512 + members() + END, "truncated or damaged"),
    "no end": (members(), "truncated or damaged (it ends too early)"),
    "both layouts": (
        members() + member("cifar-100-python/meta", b"}.") + END,
        "it has both cifar-10-batches-py and cifar-100-python",
    ),
}
