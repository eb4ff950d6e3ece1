"""A web server on this machine that breaks connections, lies and dawdles as real ones do."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CHUNK_BYTES = 10_000


@dataclass
class Behaviour:
    """How the server serves its one file; `asked` has the Range of each request."""

    content: bytes
    tag: str | None = '"one"'
    has_ranges: bool = True
    breaks_after: list[int] = field(default_factory=list)
    """Bytes of each answer, the first one first, after which the connection breaks."""
    statuses: list[int] = field(default_factory=list)
    """What the first requests are answered instead."""
    claimed_size: int | None = None
    shifts_ranges: bool = False
    tells_length: bool = True
    tells_total: bool = True
    """Of a part, the size of the whole."""
    silence_seconds: float = 0.0
    asked: list[str | None] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    behaviour: Behaviour

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base's name
        """Say nothing."""

    def do_GET(self) -> None:
        plan = self.behaviour
        wanted = self.headers.get("Range")
        plan.asked.append(wanted)
        if plan.statuses:
            self.send_error(plan.statuses.pop(0))
            return
        start = 0
        is_same = self.headers.get("If-Range") == plan.tag
        if wanted and plan.has_ranges and is_same:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        size = len(plan.content)
        if start >= size:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            told = start + 1 if plan.shifts_ranges else start
            total = size if plan.tells_total else "*"
            self.send_header("Content-Range", f"bytes {told}-{size - 1}/{total}")
        if plan.tag:
            self.send_header("ETag", plan.tag)
        claimed = plan.claimed_size or size
        if plan.tells_length:
            self.send_header("Content-Length", str(claimed - start))
        self.end_headers()
        self._send(plan, plan.content[start:])

    def _send(self, plan: Behaviour, body: bytes) -> None:
        if plan.breaks_after:
            body = body[: plan.breaks_after.pop(0)]
        time.sleep(plan.silence_seconds)
        with contextlib.suppress(ConnectionError):
            for begin in range(0, len(body), CHUNK_BYTES):
                self.wfile.write(body[begin : begin + CHUNK_BYTES])
        self.close_connection = True


@contextlib.contextmanager
def serving(behaviour: Behaviour) -> Iterator[str]:
    """Serve; gives the address of the file."""

    class Handler(_Handler):
        pass

    Handler.behaviour = behaviour
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/file.pth"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
