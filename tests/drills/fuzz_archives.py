"""Damage archives at random: each must be read or refused, quickly and in little memory.

    python -m tests.drills.fuzz_archives --seconds 300

Small sound archives are changed at one of three levels: bytes of the gzip stream, bytes of the tar,
operations of a pickle. A reader may return images or raise RequestError; anything else, a crash, a
case of more than ten seconds or of more than a gigabyte is a failure. Its number and the seed
make the same file again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import pickle
import pickletools
import queue
import random
import re
import resource
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.train import archives
from tests.train.archives import END
from train.archive import CIFAR100, read_archive
from train.errors import RequestError

SECONDS_A_CASE = 10
MEMORY = 2**30
CASES_A_PROCESS = 2_000
PIECES = (b"\x00", b"\xff", b"\x80", b"\x7f\xff\xff\xff", b"\xff" * 8, b"9" * 40, b"(", b".", b"\n")


def seeds() -> list[dict[str, bytes]]:
    """Sound archives, by the names of their members: both layouts, all protocols, Python 2's."""
    ours = [
        {
            f"cifar-10-batches-py/{name}": pickle.dumps(each, protocol)
            for name, each in archives.GOOD.items()
        }
        for protocol in range(1, pickle.HIGHEST_PROTOCOL + 1)
    ]
    batch = archives.BATCH | {b"fine_labels": [0, 1, 1]}
    parts = {"meta": {b"fine_label_names": [b"a", b"b"]}, "train": batch, "test": batch}
    ours.append(
        {f"{CIFAR100.folder}/{name}": pickle.dumps(each, 2) for name, each in parts.items()}
    )
    ours.append({**ours[1], "cifar-10-batches-py/test_batch": archives.python2_batch()})
    return ours


def damaged(content: bytes, source: random.Random) -> bytes:
    """`content` with some bytes flipped, lost, put in, repeated or taken from elsewhere."""
    bytes_ = bytearray(content)
    for _ in range(source.choice((1, 1, 2, 4, 16))):
        place = source.randrange(len(bytes_) + 1)
        end = min(len(bytes_), place + source.choice((1, 2, 8, 64, 512)))
        match source.randrange(6):
            case 0 if place < len(bytes_):
                bytes_[place] ^= 1 << source.randrange(8)
            case 1:
                del bytes_[place:end]
            case 2:
                bytes_[place:place] = source.choice(PIECES)
            case 3:
                bytes_[place:place] = bytes_[place:end] * source.choice((1, 2, 100))
            case 4:
                start = source.randrange(len(bytes_) + 1)
                bytes_[place:end] = bytes_[start : start + end - place]
            case _:
                bytes_[place:end] = source.randbytes(end - place)
    return bytes(bytes_)


def operations(content: bytes) -> list[bytes]:
    """A pickle, cut into its operations."""
    places = [place for _, _, place in pickletools.genops(content)]
    return [content[a:b] for a, b in zip(places, [*places[1:], len(content)], strict=True)]


def rewritten(content: bytes, others: list[bytes], source: random.Random) -> bytes:
    """A pickle with operations lost, repeated, swapped, put in, or with other arguments."""
    program = operations(content)
    codes = [code.code.encode("latin-1") for code in pickletools.opcodes]
    for _ in range(source.choice((1, 1, 2, 4, 16))):
        place = source.randrange(len(program))
        match source.randrange(7):
            case 0 if len(program) > 1:
                del program[place]
            case 1:
                most = 2**22 // len(program[place])
                times = min(most, source.choice((1, 2, 1_000, 100_000)))
                program[place:place] = [program[place]] * times
            case 2:
                other = source.randrange(len(program))
                program[place], program[other] = program[other], program[place]
            case 3:
                program.insert(place, source.choice(others))
            case 4:
                program.insert(place, source.choice(codes) + source.randbytes(source.randrange(9)))
            case 5:
                number = source.choice((0, 1, 255, 2**31 - 1, 2**32 - 1))
                program.insert(place, source.choice((b"r", b"j", b"J")) + struct.pack("<I", number))
            case _:
                program[place] = program[place][:1] + damaged(program[place][1:], source)
    return b"".join(program)


def case(number: int, seed: int) -> tuple[str, bytes]:
    """The level at which case `number` is damaged, and its file."""
    source = random.Random(f"{seed} {number}")  # noqa: S311 - not a secret
    sound = seeds()
    parts = dict(source.choice(sound))
    level = ("gzip", "tar", "pickle", "pickle")[number % 4]
    if level == "pickle":
        name = source.choice(sorted(parts))
        others = [each for part in parts.values() for each in operations(part)]
        parts[name] = rewritten(parts[name], others, source)
    tar = b"".join(archives.member(name, content) for name, content in parts.items()) + END
    if level == "tar":
        tar = damaged_headers(tar, source) if source.random() < 0.7 else damaged(tar, source)
    packed = archives.gzipped(tar)
    return level, damaged(packed, source) if level == "gzip" else packed


def damaged_headers(tar: bytes, source: random.Random) -> bytes:
    """A tar with a header that is damaged and has a right check sum."""
    starts = [found.start() for found in re.finditer(rb"cifar-10(0-python|-batches-py)/", tar)]
    starts = [start for start in starts if start % 512 == 0] or [0]
    start = source.choice(starts)
    header = bytearray(tar[start : start + 512])
    for _ in range(source.choice((1, 2, 8))):
        field = source.choice(((0, 100), (124, 136), (156, 157), (157, 257), (345, 500)))
        place = source.randrange(*field)
        value = source.choice((0x80, 0xFF, 0, 0x37, 0x2F, source.randrange(256)))
        header[place] = value
        if field == (156, 157):
            header[place] = source.choice(b"01234567xgLKSDMVNXA\0")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return tar[:start] + bytes(header) + tar[start + 512 :]


def work(first: int, count: int, seed: int, folder: Path, results: Any) -> None:
    """Read some cases; puts the number of each one before it is read, then how it went."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    path = folder / f"{first}.tar.gz"
    for number in range(first, first + count):
        level, content = case(number, seed)
        path.write_bytes(content)
        results.put((number, level, None, 0.0))
        began = time.process_time()
        outcome = read(path)
        results.put((number, level, outcome, time.process_time() - began))
    results.put(None)


def read(path: Path) -> str:
    """How the reading of an archive ends, in words that are the same for alike ends."""
    try:
        read_archive(path, "none")
    except RequestError as error:
        text = str(error).removeprefix(str(path)).removesuffix(". Bring the archive again")
        # What the file says, numbers and names, would make each refusal a kind of its own.
        text = re.sub(r"^ \(.*? bytes\)|^: ", "", text)
        text = re.sub(r"member .*? (is refused|is|has|claims|changes)\b", r"member \1", text)
        text = re.sub(r"(asks for|array of|uses|KeyError:|type) [^,)]+", r"\1 ...", text)
        text = re.sub(r"(Error): .*", r"\1)", text)
        return re.sub(r"\d[\d,]*", "N", text).strip()[:100]
    except BaseException as error:  # any other is what the drill looks for
        return f"FAILURE: {type(error).__name__}: {error}"[:200]
    return "read"


def watch(process: Any, results: Any, tell: Callable[[int, str, str, float], None]) -> None:
    """Tell how each case of a process went, until its end, which may come in the middle of one."""
    number, level = -1, ""
    while True:
        try:
            result = results.get(timeout=6 * SECONDS_A_CASE)
        except queue.Empty:
            process.kill()
            process.join()
            tell(number, level, f"FAILURE: no end, exit code {process.exitcode}", 0.0)
            return
        if result is None:
            process.join()
            return
        number, level, outcome, seconds = result
        if outcome is None:
            continue
        slow = f"FAILURE: {seconds:.0f} s" if seconds > SECONDS_A_CASE else ""
        tell(number, level, slow or outcome, seconds)


def main(arguments: list[str]) -> int:
    """Run the drill; 0 if every case ended as it may."""
    parser = argparse.ArgumentParser(prog="python -m tests.drills.fuzz_archives")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    kinds: Counter[str] = Counter()
    levels: Counter[str] = Counter()
    slowest = (0.0, -1, "")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.train.archives"])

    def tell(number: int, level: str, outcome: str, seconds: float) -> None:
        nonlocal slowest
        kinds[outcome] += 1
        levels[level] += 1
        slowest = max(slowest, (seconds, number, outcome))
        if outcome.startswith("FAILURE"):
            print(f"case {number} ({level}, --seed {options.seed}): {outcome}", flush=True)

    deadline = time.monotonic() + options.seconds
    first = 0
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < deadline:
            results = context.Queue()
            process = context.Process(
                target=work, args=(first, CASES_A_PROCESS, options.seed, Path(folder), results)
            )
            process.start()
            watch(process, results, tell)
            first += CASES_A_PROCESS

    failures = sum(count for kind, count in kinds.items() if kind.startswith("FAILURE"))
    by_level = ", ".join(f"{count:,} {level}" for level, count in levels.items())
    print(f"{kinds.total():,} cases ({by_level}), {failures} failures")
    print(f"slowest: case {slowest[1]}, {slowest[0]:.2f} s: {slowest[2]}")
    for kind, count in kinds.most_common():
        print(f"{count:8,}  {kind}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
