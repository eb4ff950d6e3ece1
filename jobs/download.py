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


class _BrokenError(Exception):
    """What another try may change. This machine's own troubles, a full disk say, are none such."""

    def __init__(self, reason: str, *, is_no_network: bool = False) -> None:
        super().__init__(reason)
        self.is_no_network = is_no_network


class _Partial:
    """The beginning of a file, and by what the server will know that it is still the same one."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f"{target.name}.partial")
        self._about = target.with_name(f"{target.name}.partial.json")
        self.received = 0
        """Bytes that came in this call."""

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
        OSError: what comes cannot be written here, or not be read again.
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
        except _BrokenError as error:
            # A network that was there a moment ago is a connection that broke like any other.
            if error.is_no_network and not partial.received:
                raise UnreachableError(f"{address}: {error}") from None
            # A server that always begins anew and always breaks off gets nowhere.
            failures = 1 if partial.size() > furthest else failures + 1
            furthest = max(furthest, partial.size())
            if failures > len(pauses):
                kept = f"; {furthest:,} bytes are kept for the next try" if furthest else ""
                raise WorkError(f"{address}: {error}{kept}") from None
            pause = pauses[failures - 1]
            print(
                f"{source.name}: {error}; again in {pause:.0f} s",
                file=sys.stderr,
                flush=True,
            )
            time.sleep(pause)
        else:
            return


def _receive(source: Source, address: str, partial: _Partial, silence: float) -> None:
    """One answer of the server, to its end.

    Raises:
        _BrokenError: it broke off.
        _LastingError: it is none that another try would change.
        OSError: it cannot be written.
    """
    have = partial.size()
    validator = partial.validator(address)
    headers = {"User-Agent": "slurm-finetune", "Accept-Encoding": "identity"}
    if have and validator:
        headers |= {"Range": f"bytes={have}-", "If-Range": validator}
    # The addresses are those of jobs/sources.py, never a user's file: path.
    request = urllib.request.Request(address, headers=headers)  # noqa: S310
    try:
        answer = _open(request, silence)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:
            if error.headers.get("Content-Range") == f"bytes */{have}":
                return  # all of it had come before
            partial.remove()
            raise _BrokenError("the server has less than what came before") from None
        told = f"the server answers {error.code} {error.reason}"
        if error.code in PASSING:
            raise _BrokenError(told) from None
        raise _LastingError(told) from None
    with answer:
        total = _begin(source, address, partial, answer, have)
        with (
            partial.path.open("ab") as file,
            Meter(source.name, total or source.size, partial.size()) as meter,
        ):
            while chunk := _read(answer):
                file.write(chunk)
                partial.received += len(chunk)
                meter.advance(len(chunk))
    # For urllib a connection that broke is the end of the file. Where the server has not said how
    # much it sends, its end is the file's, and what came is held against what is known.
    if total is not None and partial.size() < total:
        raise _BrokenError(f"the connection broke after {partial.size():,} of {total:,}")


def _open(request: urllib.request.Request, silence: float) -> http.client.HTTPResponse:
    try:
        answer = urllib.request.build_opener().open(request, timeout=silence)
    except urllib.error.HTTPError:
        raise
    except (OSError, http.client.HTTPException) as error:
        raise _broken(error) from None
    assert isinstance(answer, http.client.HTTPResponse), "all addresses are those of web servers"
    return answer


def _read(answer: http.client.HTTPResponse) -> bytes:
    try:
        return answer.read1(CHUNK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _broken(error) from None


def _begin(
    source: Source,
    address: str,
    partial: _Partial,
    answer: http.client.HTTPResponse,
    have: int,
) -> int | None:
    """Make ready for what comes; returns how many bytes the file will have, if the server says."""
    length = answer.headers.get("Content-Length")
    total = int(length) if length else None
    if answer.status == 206:
        span = CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if not span or int(span.group(1)) != have:
            partial.remove()
            raise _BrokenError("the server sent another part than the one asked for")
        if span.group(2) != "*":
            total = int(span.group(2))
        elif total is not None:
            total += have
    # A page that asks for a login, say.
    if source.size is not None and total is not None and total != source.size:
        raise _LastingError(f"the server offers {total:,} bytes, and it has {source.size:,}")
    if answer.status != 206:
        partial.begin(address, answer)
    return total


def _broken(error: OSError | http.client.HTTPException) -> _BrokenError:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    is_no_network = isinstance(cause, socket.gaierror) or (
        isinstance(cause, OSError) and cause.errno in NO_NETWORK
    )
    if isinstance(cause, TimeoutError):
        reason = "no byte came for too long"
    elif isinstance(cause, OSError) and cause.strerror:
        reason = cause.strerror
    else:
        reason = str(cause) or type(cause).__name__
    return _BrokenError(reason, is_no_network=is_no_network)
