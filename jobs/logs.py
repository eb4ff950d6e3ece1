"""What the workers of a run printed, one rank's or all of them merged, then or as it comes."""

from __future__ import annotations

import heapq
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from jobs import digest, failure, ledger, rundir, status
from jobs.errors import RequestError
from jobs.ranklog import Block, RankLog, start_of_tail
from jobs.rundir import RunDirectory

# Every poll opens each log once, which makes a network file system ask its server.
POLL_SECONDS = 1.0
LOGS_A_SECOND = 16
LOOK_SECONDS = 3.0
SLURM_POLL_SECONDS = 10.0
# How long the rest of a traceback is waited for, in polls.
PATIENCE = 3
LIVE = ("queued", "running", "ending")


def show(
    text: str | None,
    root: Path,
    *,
    rank: int | None,
    attempt: int | None,
    follow: bool,
    tail: int | None,
) -> int:
    """Print the logs of a run's newest attempt, or of `attempt`, or of one rank of it.

    Args:
        text: as `rundir.find_one` takes it.
        root: folder of all runs.
        rank: this one alone; None: all, merged by the time at which their lines were printed.
        attempt: this one alone.
        follow: go on until the run ends, through all attempts that begin meanwhile.
        tail: so many last lines of each rank; None: all.

    Raises:
        RequestError: there is no such run, attempt or rank.
    """
    run = rundir.find_one(text, root)
    print(f"run: {run.path}", file=sys.stderr)
    if follow:
        return _follow(run, rank, attempt, tail)
    number = attempt or _newest_attempt(run)
    reader = _Reader(run, number, rank, tail)
    reader.print_all()
    if not reader.has_printed:
        _explain_silence(run, rank, attempt)
    _print_failure(run, number)
    return 0


def _follow(run: RunDirectory, rank: int | None, attempt: int | None, tail: int | None) -> int:
    number = attempt or _newest_attempt(run)
    reader = _Reader(run, number, rank, tail)
    looked_at = asked_at = time.monotonic() - SLURM_POLL_SECONDS
    said = ""
    has_printed = False
    while True:
        printed = reader.print_new()
        has_printed = has_printed or printed
        if time.monotonic() - looked_at > LOOK_SECONDS:
            looked_at = time.monotonic()
            reader.find_logs()
            newest = attempt or _newest_attempt(run)
            if newest > number:
                reader.print_rest()
                has_printed = has_printed or reader.has_printed
                _print_failure(run, number)
                number += 1
                print(_header(run, number), flush=True)
                reader = _Reader(run, number, rank, None)
                continue
            # A run that speaks is running; only of a silent one Slurm is asked.
            if not printed and time.monotonic() - asked_at > SLURM_POLL_SECONDS:
                asked_at = time.monotonic()
                [now] = status.collect([run])
                has_ended = now.state not in LIVE or (attempt and _has_ended(run, attempt))
                if has_ended and (attempt or _newest_attempt(run)) == number:
                    reader.print_rest()
                    if not (has_printed or reader.has_printed):
                        _explain_silence(run, rank, attempt)
                    _print_failure(run, number)
                    print(f"{run.label}: {now.state}", file=sys.stderr)
                    return 0
                if now.state == "queued" and now.note != said:
                    said = now.note
                    print(f"{run.label} is queued, {said}", file=sys.stderr)
        time.sleep(max(POLL_SECONDS, reader.count / LOGS_A_SECOND))


class _Reader:
    """Prints the logs of one attempt."""

    def __init__(self, run: RunDirectory, attempt: int, rank: int | None, tail: int | None) -> None:
        self._run = run
        self._attempt = attempt
        self._is_one_of_many = False
        self._rank = rank
        self._tail = tail
        self._logs: dict[Path, RankLog] = {}
        self._held: dict[int, tuple[int, list[Block]]] = {}
        self.has_printed = False
        self.find_logs()

    @property
    def count(self) -> int:
        """How many logs there are."""
        return len(self._logs)

    def find_logs(self) -> None:
        """Look for logs that have appeared."""
        is_cut = False
        known = len(self._logs)
        for path in sorted(self._run.attempt(self._attempt).glob("rank-*.log")):
            number = path.stem[5:]
            if path in self._logs or not number.isdecimal():
                continue
            if self._rank in (None, int(number)):
                start = start_of_tail(path, self._tail) if self._tail else 0
                is_cut = is_cut or start > 0
                self._logs[path] = RankLog(path, int(number), start)
        if len(self._logs) > known:
            # They appear one after the other; the ledger knows how many there will be.
            lines = [each for each in ledger.read(self._run) if each.attempt == self._attempt]
            count = (lines[0].workers if lines else None) or len(self._logs)
            self._is_one_of_many = self._rank is None and count > 1
        if is_cut:
            each = " of each rank" if len(self._logs) > 1 else ""
            print(f"the last {self._tail} lines{each}; --tail all prints all", file=sys.stderr)

    def print_all(self) -> None:
        """Print what there is."""
        streams = [_blocks(log) for log in self._logs.values()]
        self._print(heapq.merge(*streams, key=lambda block: (block.seconds, block.rank)))

    def print_new(self, *, is_last: bool = False) -> bool:
        """Print what has come; an unfinished traceback waits a little for its end."""
        now = time.time()
        ready: list[Block] = []
        for log in self._logs.values():
            blocks = log.read(now, is_last=is_last)
            polls, held = self._held.pop(log.rank, (0, []))
            polls = 0 if blocks else polls + 1
            held += blocks
            if held and log.is_in_traceback and polls < PATIENCE and not is_last:
                self._held[log.rank] = (polls, held)
            else:
                ready += held
        return self._print(sorted(ready, key=lambda block: (block.seconds, block.rank)))

    def print_rest(self) -> None:
        """Print what the attempt has left, also of ranks whose logs were not seen before."""
        self.find_logs()
        while self.print_new(is_last=True):
            pass

    def _print(self, blocks: Iterable[Block]) -> bool:
        printed = False
        for block in blocks:
            prefix = f"[rank-{block.rank:03d}] " if self._is_one_of_many else ""
            print("".join(f"{prefix}{line}\n" for line in block.lines), end="")
            printed = True
        sys.stdout.flush()
        self.has_printed = self.has_printed or printed
        return printed


def _blocks(log: RankLog) -> Iterator[Block]:
    while blocks := log.read():
        yield from blocks
    yield from log.read(is_last=True)


def _newest_attempt(run: RunDirectory) -> int:
    attempts = ledger.read(run)
    return attempts[-1].attempt if attempts else 1


def _has_ended(run: RunDirectory, number: int) -> bool:
    return any(entry.attempt == number and entry.end for entry in ledger.read(run))


def _header(run: RunDirectory, number: int) -> str:
    """The line that says which attempt goes on in the same stream."""
    words = f"attempt {number}"
    for entry in ledger.read(run):
        if entry.attempt == number:
            job = f"job {entry.job_id} " if entry.job_id else ""
            words += f": {job}on {', '.join(entry.nodes)} since {entry.start}"
    return f"== {words} =="


def _explain_silence(run: RunDirectory, rank: int | None, attempt: int | None) -> None:
    """Say why there is nothing to print.

    Raises:
        RequestError: what was asked for does not exist.
    """
    folders = sorted(run.path.glob("attempt-*"))
    if attempt is not None and run.attempt(attempt) not in folders:
        raise RequestError(f"{run.label} has {len(folders)} attempts; there is no {attempt}")
    newest = run.attempt(attempt) if attempt else next(reversed(folders), None)
    if newest:
        ranks = sorted(newest.glob("rank-*.log"))
        if rank is not None and not any(int(log.stem[5:]) == rank for log in ranks):
            raise RequestError(f"{run.label} has {len(ranks)} ranks, from 0; there is no {rank}")
        return
    # No worker has started: the parents of the workers may have said why.
    for log in sorted(run.engine_files.glob("*_log.err")):
        print("".join(f"[{log.name}] {line}\n" for line in failure.tail(log)), end="")
    [now] = status.collect([run])
    print(f"{run.label}: {now.state}; no worker has started. {now.note}", file=sys.stderr)


def _print_failure(run: RunDirectory, attempt: int) -> None:
    text = digest.write(run, attempt)
    if text:
        print(text, file=sys.stderr)
