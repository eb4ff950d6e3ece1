"""Read checkpoints with random damage, and see nothing but refusals, soon, in little memory.

    python -m tests.drills.fuzz_checkpoints --seconds 300

Small files of every container and layout, and the attacks of the tests, are damaged: bytes,
lengths and slices; pickles and headers inside archives whose checksums are then right. A worker
process with bounded memory reads them as a run does. Anything but a `RequestError` or a sound
checkpoint, a case of more than ten seconds, and the death of the worker are failures; their files
are kept.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import random
import re
import resource
import struct
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from configs.schema import Model
from tests.train.crafted import ONES, SOUND, attacks, foreign, saved, zipped
from tests.train.layouts import LAYOUTS, mmengine
from train.errors import RequestError
from train.model import build_model
from train.weights import load_weights

SLOW_SECONDS = 10.0
HANGS_AFTER_SECONDS = 60.0
MEMORY = 2**30
EXTREMES = (0, 1, 0x7F, 0xFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1)
OPCODES = b"()}].NKMJX\x8aqrhjQRbsuaet\x85\x86\x87\x88\x89c\x80\x81"


def seeds() -> list[bytes]:
    """Small files: the tests' attacks, and a net of two layers in each layout and container."""
    entries = {
        "conv1.weight": torch.ones(4, 3, 2, 2),
        "bn1.running_var": torch.ones(4),
        "bn1.num_batches_tracked": torch.tensor(3),
        "layer1.0.conv1.weight": torch.ones(4, 4, 1, 1),
        "fc.weight": torch.ones(2, 4),
        "fc.bias": torch.ones(2),
    }
    files = [zipped(SOUND, ONES)]
    files += [content for content, _ in (attacks("never") | foreign()).values()]
    for layout in LAYOUTS.values():
        with mmengine():
            content = layout.make(entries, entries)
            files += [saved(content, is_zip=is_zip) for is_zip in (True, False)]
        if layout.container == "safetensors":
            files.append(safetensors.torch.save(content, layout.metadata))
    return [file for file in files if 0 < len(file) < 2**16]


def damaged(content: bytes, others: list[bytes], source: random.Random) -> bytes:
    """`content` after a few random changes."""
    changed = bytearray(content)
    for _ in range(source.randint(1, 4)):
        if not changed:
            break
        at = source.randrange(len(changed))
        length = min(source.choice((1, 2, 4, 8, 30, 300)), len(changed) - at)
        match source.randrange(8):
            case 0:
                changed[at] = source.randrange(256)
            case 1:
                changed[at] ^= 1 << source.randrange(8)
            case 2:
                changed[at : at + 1] = bytes([source.choice(OPCODES)])
            case 3:
                del changed[at : at + length]
            case 4:
                changed[at:at] = changed[at : at + length] * source.choice((1, 2, 50))
            case 5:
                size = source.choice((2, 4, 8))
                number = source.choice(EXTREMES) % 2 ** (8 * size)
                changed[at : at + size] = number.to_bytes(size, source.choice(("little", "big")))
            case 6:
                other = source.choice(others)
                start = source.randrange(len(other))
                changed[at : at + length] = other[start : start + length]
            case 7:
                del changed[at:]
    return bytes(changed)


def damaged_within(content: bytes, others: list[bytes], source: random.Random) -> bytes:
    """`content` with damage in one part only, which the checks around that part let through."""
    if content.startswith(b"PK\x03\x04"):
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                members = {name: archive.read(name) for name in archive.namelist()}
        except (zipfile.BadZipFile, OSError, EOFError):
            return damaged(content, others, source)
        name = source.choice([name for name in members if name.endswith(".pkl")] or [*members])
        members[name] = damaged(members[name], others, source)
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name, member in members.items():
                archive.writestr(name, member)
        return file.getvalue()
    if content[8:9] == b"{":
        length = int.from_bytes(content[:8], "little")
        header = damaged(content[8 : 8 + length], others, source)
        return struct.pack("<Q", len(header)) + header + content[8 + length :]
    return damaged(content, others, source)


def kind_of(message: str) -> str:
    """A refusal without its file, names and numbers."""
    text = message.partition("read safely: ")[2] or message.partition("ResNet-50: ")[2] or message
    text = re.sub(r" \(.*", "", text.partition(";")[0])
    return re.sub(r"[^\s:]*[\d\N{REPLACEMENT CHARACTER}._/][^\s:]*", "*", text)[:60]


def work(connection: Connection, folder: Path, seed: int, deadline: float) -> None:
    """Read case after case; what became of each goes to the parent."""
    model = build_model(Model(), seed=0)
    source, files = random.Random(seed), seeds()  # noqa: S311 - nothing secret
    path = folder / f"case-{seed}"
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + MEMORY,) * 2)
    changes: tuple[Callable[..., bytes], ...] = (damaged, damaged_within)
    while time.monotonic() < deadline:
        content = source.choice(changes)(source.choice(files), files, source)
        path.write_bytes(content)
        began, failure, kind = time.process_time(), None, "accepted"
        try:
            load_weights(model, path)
        except RequestError as error:
            kind = kind_of(str(error))
        except BaseException:  # what must never come out
            failure = traceback.format_exc()
        seconds = time.process_time() - began
        if seconds > SLOW_SECONDS:
            failure = f"took {seconds:.1f} s"
        if failure:
            (folder / f"failure-{seed}-{source.getrandbits(32):08x}").write_bytes(content)
        connection.send((kind, seconds, failure))
    path.unlink()
    connection.send(None)


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def main() -> int:
    """Fuzz for so long; 1 if anything came out but refusals."""
    parser = argparse.ArgumentParser(prog="python -m tests.drills.fuzz_checkpoints")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-checkpoints-"))
    deadline = time.monotonic() + args.seconds
    context = multiprocessing.get_context("spawn")
    kinds: Counter[str] = Counter()
    failures: list[str] = []
    slowest, seed = 0.0, args.seed
    while time.monotonic() < deadline:
        ours, theirs = context.Pipe(duplex=False)
        worker = context.Process(target=work, args=(theirs, folder, seed, deadline))
        worker.start()
        theirs.close()
        while (told := _next(ours, worker.pid)) not in (None, "died", "hangs"):
            kind, seconds, failure = told
            kinds[kind] += 1
            slowest = max(slowest, seconds)
            failures += [failure] if failure else []
        if told is not None:
            worker.kill()
            failures.append(f"the worker {told}: see {folder / f'case-{seed}'}")
        worker.join()
        seed += 1
    for kind, count in kinds.most_common(40):
        print(f"{count:9,}  {kind}")
    print(f"{sum(kinds.values()):,} cases of {len(kinds):,} kinds, the slowest {slowest:.2f} s")
    for failure in failures[:10]:
        print(failure)
    print(f"{len(failures)} failures" + (f", kept in {folder}" if failures else ""))
    if not failures:
        folder.rmdir()
    return 1 if failures else 0


def _next(connection: Connection, pid: int | None) -> Any:
    """What the worker tells, or that it died, or computes for long and says nothing."""
    began = _cpu_seconds(pid)
    try:
        while not connection.poll(1.0):
            if _cpu_seconds(pid) - began > HANGS_AFTER_SECONDS:
                return "hangs"
        return connection.recv()
    except (EOFError, ConnectionResetError):
        return "died"


def _cpu_seconds(pid: int | None) -> float:
    """What a process has computed; not what time has passed, for the machine may be busy."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
