"""What the workers of a run printed, one rank's or all of them, then or as it comes."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from jobs import digest, failure, ledger, rundir, status
from jobs.errors import RequestError
from jobs.rundir import RunDirectory

POLL_SECONDS = 0.5
SLURM_POLL_SECONDS = 10.0


def show(text: str | None, root: Path, rank: int | None, attempt: int | None, follow: bool) -> int:
    """Print the logs of a run's newest attempt, or of `attempt`, or of one rank of it.

    Raises:
        RequestError: there is no such run, attempt or rank.
    """
    run = rundir.find_one(text, root)
    print(f"run: {run.path}", file=sys.stderr)
    reader = _Reader(run, rank, attempt)
    if not follow:
        if not reader.print_new():
            _explain_silence(run, rank, attempt)
        _print_failure(run, attempt)
        return 0
    asked_at = 0.0
    while True:
        printed = reader.print_new()
        if not printed and time.monotonic() - asked_at > SLURM_POLL_SECONDS:
            asked_at = time.monotonic()
            [now] = status.collect([run])
            if now.state not in ("queued", "running", "ending"):
                reader.print_new()
                _print_failure(run, attempt)
                print(f"{run.label}: {now.state}", file=sys.stderr)
                return 0
        time.sleep(POLL_SECONDS)


class _Reader:
    """Prints what was added to the logs since it last looked."""

    def __init__(self, run: RunDirectory, rank: int | None, attempt: int | None) -> None:
        self._run = run
        self._rank = rank
        self._attempt = attempt
        self._positions: dict[Path, int] = {}

    def print_new(self) -> bool:
        """Print new complete lines; returns whether there were any."""
        logs = self._logs()
        printed = False
        for log in logs:
            prefix = f"[{log.stem}] " if len(logs) > 1 else ""
            for line in self._new_lines(log):
                print(f"{prefix}{line}")
                printed = True
        sys.stdout.flush()
        return printed

    def _logs(self) -> list[Path]:
        attempts = ledger.read(self._run)
        number = self._attempt or (attempts[-1].attempt if attempts else 1)
        logs = sorted(self._run.attempt(number).glob("rank-*.log"))
        if self._rank is None:
            return logs
        return [log for log in logs if log == self._run.rank_log(number, self._rank)]

    def _new_lines(self, log: Path) -> list[str]:
        with log.open("rb") as file:
            file.seek(self._positions.get(log, 0))
            added, newline, _ = file.read().rpartition(b"\n")
        self._positions[log] = self._positions.get(log, 0) + len(added) + len(newline)
        return added.decode(errors="replace").split("\n") if newline else []


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


def _print_failure(run: RunDirectory, attempt: int | None) -> None:
    attempts = ledger.read(run)
    if attempts:
        text = digest.write(run, attempt or attempts[-1].attempt)
        if text:
            print(text, file=sys.stderr)
