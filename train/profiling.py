"""A trace of a few training steps by torch's profiler, for TensorBoard's plugin and Perfetto."""

from __future__ import annotations

import contextlib
import errno
import gzip
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from train.files import whole_file
from train.saver import cause_of

if TYPE_CHECKING:
    from train.session import Session

# So many steps of the attempt, and of one resolution, come before the first that is traced: in the
# first of them libraries choose their kernels, the network is compiled or a CUDA graph is recorded,
# and in the last of them the profiler itself warms up.
WARM_UP_STEPS = 3


class Tracer:
    """Traces `count` steps of this rank, once, and writes them to a file.

    Whatever goes wrong with it is a warning: no run ends because it is being watched.

    Args:
        path: the file.
        begin: the first step that is traced, from 0.
        count: how many are.
    """

    def __init__(self, path: Path, begin: int, count: int) -> None:
        self.path = path
        self.begin = begin
        self.end = begin + count
        self._profile: profile | None = None

    def step(self, done: int) -> None:
        """Look, after each step, at how many are `done`: start, go on or end."""
        if done != self.begin - 1 and self._profile is None:
            return
        try:
            if self._profile is None:
                self._start()
            else:
                self._profile.step()
                if done == self.end:
                    self._finish()
        except (OSError, RuntimeError) as error:
            self._profile = None
            tell(f"warning: no trace was written to {self.path} ({cause_of(error)})")

    def close(self) -> None:
        """Give up a trace that is not complete, for the run was asked to stop."""
        if self._profile:
            with contextlib.suppress(RuntimeError):
                self._profile.stop()
            self._profile = None

    def _start(self) -> None:
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
            # A CUDA graph may crash when it is replayed after the profiler has let go of the
            # driver (as torch.profiler notes where it knows of a graph).
            os.environ.setdefault("TEARDOWN_CUPTI", "0")
        plan = schedule(wait=0, warmup=1, active=self.end - self.begin, repeat=1)
        # Of one cycle the events are the same with and without `acc_events`, but without it torch
        # 2.11 warns that it clears those of the cycle before.
        self._profile = profile(activities=activities, schedule=plan, acc_events=True)
        self._profile.start()

    def _finish(self) -> None:
        assert self._profile is not None, "it was started"
        self._profile.stop()
        with tempfile.TemporaryDirectory() as folder:
            trace = Path(folder) / "trace.json"
            self._profile.export_chrome_trace(str(trace))
            check_is_whole(trace)
            self.path.parent.mkdir(exist_ok=True)
            with (
                trace.open("rb") as text,
                whole_file(self.path) as file,
                gzip.GzipFile(fileobj=file, mode="wb", compresslevel=3) as packed,
            ):
                shutil.copyfileobj(text, packed)
        self._profile = None
        tell(
            f"profile: steps {self.begin + 1} to {self.end} are in {self.path}: open it at "
            "https://ui.perfetto.dev or in TensorBoard with torch-tb-profiler (docs/profiling.md)"
        )


def make_tracer(run_dir: Path, session: Session) -> Tracer | None:
    """What traces this rank's steps in this attempt; None where nothing is asked for or left to do.

    Args:
        run_dir: the run directory; the trace goes into a folder of it.
        session: set up, at the attempt's first step.
    """
    count = session.recipe.logging.profile_steps
    if not count or session.state.step == session.total_steps:
        return None
    # By this name TensorBoard's plugin knows that it is a trace, and the rank.
    path = run_dir / "profile" / f"rank-{session.ranks.rank:03d}.pt.trace.json.gz"
    if path.exists():
        session.journal.say(f"profile: there is one from an earlier attempt: {path}")
        return None
    begin = first_traced_step(session, count)
    if begin is None:
        session.journal.say(
            f"warning: logging.profile_steps is {count}, but after a warm-up of {WARM_UP_STEPS} "
            "steps there are not so many of one resolution left: nothing is traced"
        )
        return None
    return Tracer(path, begin, count)


def first_traced_step(session: Session, count: int) -> int | None:
    """The step (from 0) at which a trace of `count` steps begins; None if no such steps are left.

    They and the warm-up before them have one resolution, and no evaluation is between them unless
    an epoch is shorter than they are.
    """
    epoch = session.batches.steps_per_epoch
    resolution = session.batches.resolution

    def is_steady(begin: int) -> bool:
        steps = range(begin - WARM_UP_STEPS, begin + count)
        return len({resolution(step) for step in steps}) == 1

    def is_in_one_epoch(begin: int) -> bool:
        return begin // epoch == (begin + count - 1) // epoch or count > epoch

    steps = range(session.first_step + WARM_UP_STEPS, session.total_steps - count + 1)
    wished = (step for step in steps if is_in_one_epoch(step) and is_steady(step))
    return next(wished, None)


def check_is_whole(trace: Path) -> None:
    """Find what torch does not tell: that a disk was too full for a trace.

    Raises:
        OSError: it was.
    """
    text = trace.read_bytes() if trace.exists() else b""
    if not text.rstrip().endswith(b"}"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(trace))


def tell(text: str) -> None:
    """A sentence for the log of this rank."""
    with contextlib.suppress(OSError):  # a full disk
        print(text, flush=True)
