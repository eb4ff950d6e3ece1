"""The members of a `.tar.gz` in memory, one after the other, by name and never by path.

tarfile follows what a header claims, however large or nested. Here it reads headers alone; what
follows them is bounded, and whatever is no plain file or folder is refused.
"""

from __future__ import annotations

import re
import tarfile
import zlib
from collections.abc import Callable, Iterator

from configs.archives import LARGEST_ARCHIVE_BYTES
from train.errors import RequestError, printable

BLOCK = 512
CHUNK_BYTES = 2**16
MAX_MEMBERS = 1_000
MAX_MEMBER_BYTES = 256 * 2**20  # the largest official one has 155 MB
MAX_EXTENSION_BYTES = 2**16
GZIP = 31  # zlib's number for the largest window and gzip's header and trailer
FILE, OLD_FILE, FOLDER = b"0", b"\0", b"5"
EXTENSIONS = (b"x", b"g")  # of POSIX; most hold a finer time or who made the file
REFUSED = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a FIFO",
    b"7": "a contiguous file",
    b"K": "a long link name",
    b"L": "a long name",
    b"S": "a sparse file",
}
# A record of an extension is "length key=value"; these would make another member of the next one.
CHANGES = re.compile(rb"^\d+ (path|linkpath|size|GNU\.sparse\.[\w.]+)=", re.MULTILINE)


class DamagedError(Exception):
    """The bytes are no whole `.tar.gz`; zlib.error says so too."""


def read_members(packed: bytes, is_wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Name and content of each plain file whose name `is_wanted`.

    Raises:
        RequestError: a member, wanted or not, is none that an archive of images needs.
        DamagedError, zlib.error: truncated, or no such archive.
    """
    stream = Inflated(packed)
    names: set[str] = set()
    for _ in range(MAX_MEMBERS):
        header = stream.read(BLOCK)
        if not any(header):
            stream.finish()
            return
        member = read_header(header)
        name = printable(member.name)
        check_member(member, name)
        padding = -member.size % BLOCK
        if member.type in EXTENSIONS:
            if found := CHANGES.search(stream.read(member.size + padding)):
                raise RequestError(f"member {name} changes the {found[1].decode()} of the next one")
            continue
        plain = member.name.removeprefix("./")
        if plain in names:
            raise RequestError(f"it has two members {name}")
        names.add(plain)
        if member.type != FOLDER and is_wanted(plain):
            yield plain, stream.read(member.size)
            stream.skip(padding)
        else:
            stream.skip(member.size + padding)
    raise RequestError(f"it has more than {MAX_MEMBERS:,} members")


def read_header(block: bytes) -> tarfile.TarInfo:
    """What a member's header says; DamagedError where it is none."""
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError):
        raise DamagedError("a member's header is none") from None


def check_member(member: tarfile.TarInfo, name: str) -> None:
    """Raise RequestError unless the member, shown as `name`, is one that can be read or skipped."""
    if member.type not in (FILE, OLD_FILE, FOLDER, *EXTENSIONS):
        kind = REFUSED.get(member.type, f"of the unknown type {member.type!r}")
        raise RequestError(f"member {name} is {kind}, which no archive of images needs")
    if member.name.startswith("/"):
        raise RequestError(f"member {name} has an absolute path")
    if ".." in member.name.split("/"):
        raise RequestError(f"member {name} has a path with '..'")
    limit = MAX_MEMBER_BYTES
    if member.type in EXTENSIONS:
        limit = MAX_EXTENSION_BYTES
    elif member.type == FOLDER:
        limit = 0
    if not 0 <= member.size <= limit:
        raise RequestError(
            f"member {name} claims {member.size:,} bytes, and {limit:,} are the most it may have"
        )


class Inflated:
    """What a gzip stream unpacks to, from its beginning to its end, as far as it is asked for.

    Raises:
        DamagedError, zlib.error: the stream ends too early or is none.
        RequestError: it unpacks to more than an archive may have.
    """

    def __init__(self, packed: bytes) -> None:
        self.packed = packed
        self.position = 0
        self.unpacked = 0
        self.inflate = zlib.decompressobj(wbits=GZIP)

    def read(self, size: int) -> bytes:
        """The next `size` bytes."""
        parts = []
        while size:
            part = self.some(size)
            if not part:
                raise DamagedError("it ends too early")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def skip(self, size: int) -> None:
        """Go on without the next `size` bytes."""
        while size:
            size -= len(self.read(min(size, CHUNK_BYTES)))

    def finish(self) -> None:
        """Read the rest, so that the check sum at its end is checked, and see that none follows."""
        while self.some(CHUNK_BYTES):
            pass
        if not self.inflate.eof:
            raise DamagedError("it ends too early")
        end = self.position - len(self.inflate.unused_data)
        if self.packed.count(0, end) != len(self.packed) - end:
            raise DamagedError("something follows its end")

    def some(self, size: int) -> bytes:
        """At most `size` bytes of the next ones; none at the end."""
        while not self.inflate.eof:
            given = self.inflate.unconsumed_tail
            if not given:
                given = self.packed[self.position : self.position + CHUNK_BYTES]
                self.position += len(given)
            part = self.inflate.decompress(given, size)
            self.unpacked += len(part)
            if self.unpacked > LARGEST_ARCHIVE_BYTES:
                limit = f"{LARGEST_ARCHIVE_BYTES:,}"
                raise RequestError(f"it unpacks to more than the {limit} bytes that it may have")
            if part or not given:
                return part
        return b""
