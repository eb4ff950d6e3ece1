"""Fetches a large file over an unsteady connection: it goes on, and is whole or not there.

What has come so far lies in NAME.partial; the file's own name appears when size and digest are
right. Proxies are those of the environment (https_proxy, no_proxy), as urllib reads them.
"""

from __future__ import annotations

import errno
import http.client
import os
import re
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from jobs.errors import WorkError
from jobs.files import read_json, write_json
from jobs.manifest import Facts, measure
from jobs.meter import Meter
from jobs.sources import Source

# Before another try, in seconds; one more without a byte more is the last.
PAUSES = (1.0, 2.0, 4.0, 8.0)
SILENCE_SECONDS = 60.0
CHUNK_BYTES = 2**18
CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
# Too busy, or not for long.
PASSING = {408, 425, 429, 500, 502, 503, 504}
NO_NETWORK = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN}


class UnreachableError(WorkError):
    """There is no network, or none that leads there."""


class _LastingError(Exception):
    """What another try would not change."""


class _Partial:
    """The beginning of a file, and by what the server will know that it is still the same one."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f"{target.name}.partial")
        self._about = target.with_name(f"{target.name}.partial.json")

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def begin(self, address: str, answer: http.client.HTTPResponse) -> None:
        self.path.write_bytes(b"")
        tag = answer.headers.get("ETag", "")
        # A weak tag says that the meaning is the same, not the bytes.
        validator = tag if tag.startswith('"') else answer.headers.get("Last-Modified", "")
        write_json(self._about, {"address": address, "validator": validator})

    def validator(self, address: str) -> str:
        about = read_json(self._about) or {}
        return str(about.get("validator", "")) if about.get("address") == address else ""

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self._about.unlink(missing_ok=True)

    def finish(self, target: Path) -> None:
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        self.path.replace(target)
        self._about.unlink(missing_ok=True)


def fetch(
    source: Source,
    target: Path,
    *,
    pauses: Sequence[float] = PAUSES,
    silence_seconds: float = SILENCE_SECONDS,
) -> Facts:
    """Fetch a file to `target`, on from where an earlier call broke off.

    Returns:
        what it is.

    Raises:
        UnreachableError: there is no network.
        WorkError: it did not come, or something else did. What has come of it is kept.
    """
    assert source.address, "whoever calls has looked"
    partial = _Partial(target)
    resumed = partial.size() > 0
    _receive_all(source, source.address, partial, pauses, silence_seconds)
    facts = measure(partial.path)
    objection = source.objection(facts)
    if objection and resumed:
        print(f"{source.name} {objection}; its beginning was wrong: once more", file=sys.stderr)
        partial.remove()
        _receive_all(source, source.address, partial, pauses, silence_seconds)
        facts = measure(partial.path)
        objection = source.objection(facts)
    if objection:
        partial.remove()
        raise WorkError(f"what {source.address} sent {objection}")
    partial.finish(target)
    return facts


def discard_partial(target: Path) -> None:
    """Remove what an earlier call has fetched of a file that came by another way."""
    _Partial(target).remove()


def _receive_all(
    source: Source, address: str, partial: _Partial, pauses: Sequence[float], silence: float
) -> None:
    furthest, failures = partial.size(), 0
    while True:
        try:
            _receive(source, address, partial, silence)
        except _LastingError as error:
            raise WorkError(f"{address}: {error}") from None
        except (OSError, http.client.HTTPException) as error:
            if _is_full(error):
                raise
            if _is_no_network(error):
                raise UnreachableError(f"{address}: {_reason(error)}") from None
            # A server that always begins anew and always breaks off gets nowhere.
            failures = 1 if partial.size() > furthest else failures + 1
            furthest = max(furthest, partial.size())
            if failures > len(pauses):
                kept = f"; {furthest:,} bytes are kept for the next try" if furthest else ""
                raise WorkError(f"{address}: {_reason(error)}{kept}") from None
            pause = pauses[failures - 1]
            print(
                f"{source.name}: {_reason(error)}; again in {pause:.0f} s",
                file=sys.stderr,
                flush=True,
            )
            time.sleep(pause)
        else:
            return


def _receive(source: Source, address: str, partial: _Partial, silence: float) -> None:
    """One answer of the server, to its end.

    Raises:
        OSError, HTTPException: it broke off.
        _LastingError: it is none that another try would change.
    """
    have = partial.size()
    validator = partial.validator(address)
    headers = {"User-Agent": "slurm-finetune", "Accept-Encoding": "identity"}
    if have and validator:
        headers |= {"Range": f"bytes={have}-", "If-Range": validator}
    # The addresses are those of jobs/sources.py, never a user's file: path.
    request = urllib.request.Request(address, headers=headers)  # noqa: S310
    try:
        answer = urllib.request.build_opener().open(request, timeout=silence)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:
            if error.headers.get("Content-Range") == f"bytes */{have}":
                return  # all of it had come before
            partial.remove()
            raise ConnectionError("the server has less than what came before") from None
        if error.code in PASSING:
            raise
        raise _LastingError(f"the server answers {error.code} {error.reason}") from None
    with answer:
        total = _begin(source, address, partial, answer, have)
        with (
            partial.path.open("ab") as file,
            Meter(source.name, total or source.size, partial.size()) as meter,
        ):
            while chunk := answer.read1(CHUNK_BYTES):
                file.write(chunk)
                meter.advance(len(chunk))
    expected = source.size if total is None else total
    # For urllib a connection that broke is the end of the file.
    if expected is not None and partial.size() < expected:
        raise ConnectionError(f"the connection broke after {partial.size():,} of {expected:,}")


def _begin(
    source: Source,
    address: str,
    partial: _Partial,
    answer: http.client.HTTPResponse,
    have: int,
) -> int | None:
    """Make ready for what comes; returns how many bytes the file will have, if the server says."""
    length = answer.headers.get("Content-Length")
    if answer.status == 206:
        span = CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if not span or int(span.group(1)) != have:
            partial.remove()
            raise ConnectionError("the server sent another part than the one asked for")
        total = None if span.group(2) == "*" else int(span.group(2))
    else:
        total = int(length) if length else None
    # A page that asks for a login, say.
    if source.size is not None and total is not None and total != source.size:
        raise _LastingError(f"the server offers {total:,} bytes, and it has {source.size:,}")
    if answer.status != 206:
        partial.begin(address, answer)
    return total


def _is_full(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _is_no_network(error: Exception) -> bool:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, socket.gaierror):
        return True
    return isinstance(cause, OSError) and cause.errno in NO_NETWORK


def _reason(error: Exception) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    if isinstance(cause, TimeoutError):
        return "no byte came for too long"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(cause) or type(cause).__name__
