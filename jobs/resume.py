"""Going on with runs that ended unfinished, and with finished ones for longer.

A person asks for it, so the budgets of jobs/budget.py count from the attempt that follows.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from configs import continuation
from configs.continuation import Taken
from configs.loader import change_resolved, dump_recipe, read_resolved
from configs.schema import Recipe
from configs.settings import RecipeError
from jobs import (
    again,
    attachment,
    checkpoints,
    controller,
    deadline,
    files,
    layout,
    lease,
    metrics,
    preflight,
    rundir,
)
from jobs import status as runs_status
from jobs.errors import RefusedError, RequestError, WorkError, locate
from jobs.interruption import Interrupt, meet_dropped, uninterrupted
from jobs.layout import Layout
from jobs.rundir import RunDirectory
from jobs.status import Status
from jobs.text import next_commands, path_from_here

LIVE = ("queued", "running", "ending")


@dataclass(frozen=True)
class _Wish:
    """A run that may go on, and how."""

    run: RunDirectory
    recipe: Recipe
    plan: Layout
    on_slurm: bool


class _NothingToDoError(RequestError):
    """The run is finished, or goes on anyway."""


def resume(
    text: str | None, root: Path, overrides: Sequence[str], *, all_nodes: bool = False
) -> int:
    """Go on with the run, or with all of the sweep, that `text` names.

    On Slurm each as a job of its own, else one after the other, attached to this process. All of
    them are checked before the first one is started.

    Args:
        text: as `rundir.find_together` takes it.
        root: folder of all runs.
        overrides: changes of the recipe, each "section.key=value".
        all_nodes: take nodes again that were unfit before.

    Raises:
        RequestError: nothing is so named, or goes on already, or is finished, or would be another.
        WorkError: Slurm refuses a job, or cannot be asked whether a run has one.
    """
    runs = rundir.find_together(text, root)
    wishes: list[_Wish] = []
    problems: list[str] = []
    for now in runs_status.collect(runs):
        try:
            wishes.append(_wish(now, overrides))
        except _NothingToDoError as error:
            if len(runs) == 1:
                raise
            print(f"passed over: {error}", file=sys.stderr)
        except RequestError as error:
            problems += error.problems
    if problems:
        raise RequestError(*dict.fromkeys(problems))
    if not wishes:
        raise RequestError(f"nothing of {text or 'the newest sweep'} ended unfinished")
    codes: list[int] = []
    meet_dropped()
    with Interrupt().watch() as interrupt:
        for wish in wishes:
            if interrupt.count:
                left = len(wishes) - len(codes)
                print(f"interrupted; {left} of {len(wishes)} were not resumed", file=sys.stderr)
                return 130
            codes.append(_start(wish, overrides, interrupt, all_nodes=all_nodes))
    return max(codes)


def _wish(now: Status, overrides: Sequence[str]) -> _Wish:
    run = now.run
    before, recipe, origins = _recipes(run, overrides)
    _refuse_if_live(now)
    _refuse_another_run(run, before, recipe)
    if now.state == "finished" and not _is_longer(run, before, recipe):
        raise _NothingToDoError(
            f"{run.label} is finished; to train on, give it more epochs: "
            f"--set schedule.epochs={2 * before.schedule.epochs}"
        )
    on_slurm = recipe.cluster.engine == "slurm" or (
        recipe.cluster.engine == "auto" and run.script.exists()
    )
    return _Wish(run, recipe, _plan(recipe, origins, on_slurm=on_slurm), on_slurm)


def _recipes(run: RunDirectory, overrides: Sequence[str]) -> tuple[Recipe, Recipe, dict[str, str]]:
    """The run's recipe, the one to go on under, and where its keys were set."""
    try:
        loaded = change_resolved(run.config, overrides)
        return read_resolved(run.config), loaded.recipe, loaded.origins
    except RecipeError as error:
        raise RequestError(*error.problems) from None


def _refuse_another_run(run: RunDirectory, before: Recipe, now: Recipe) -> None:
    """Refuse every change under which the steps so far would have been others.

    Raises:
        RequestError: with each such key and the reason.
    """
    old, new = continuation.shaping(before), continuation.shaping(now)
    taken = _taken(run)
    problems = [
        f"--set {key}: that would be another run: {reason}"
        for key in continuation.changes(before, now)
        if (reason := continuation.objection(key, old, new, taken))
    ]
    if problems:
        raise RequestError(*problems[:-1], f"{problems[-1]}; start a new run for that")


def _taken(run: RunDirectory) -> Taken:
    """What the checkpoint that the run goes on from has behind it, as far as the metrics say."""
    saved = checkpoints.newest(run)
    if saved is None:
        return Taken(0, 0)
    rows = metrics.read(run)
    epochs = [row["epoch"] for row in rows if "epoch" in row and row.get("step", 0) <= saved.step]
    return Taken(saved.step, max(epochs, default=0))


def _is_longer(run: RunDirectory, before: Recipe, now: Recipe) -> bool:
    """Whether a finished run has steps left to take under the new recipe."""
    done = (metrics.results(run) or {}).get("steps", 0)
    limit = now.train.max_steps
    if limit is not None and limit <= done:
        return False
    # Where the limit in steps had ended it, raising that is enough.
    return now.schedule.epochs > before.schedule.epochs or before.train.max_steps == done


def _refuse_if_live(now: Status) -> None:
    run = now.run
    launcher = attachment.read(run)
    far = launcher is not None and launcher.is_alive() is None
    # A process on another machine cannot be asked; whether it lives shows in its lease.
    if now.state in LIVE and not far:
        raise _NothingToDoError(f"{run.label} is {now.state} already ({now.note})")
    if now.state == "unknown":
        raise WorkError(f"{run.label} may be queued or running: {now.note}")
    holder = lease.read(run)
    if holder and not holder.released:
        seconds = lease.WATCHED_PERIODS * lease.REFRESH_SECONDS
        print(f"watching for {seconds:.0f} s whether {holder.where} lives", file=sys.stderr)
        if lease.is_alive(run):
            raise _NothingToDoError(f"{run.label} is running already ({holder.where})")


def _plan(recipe: Recipe, origins: dict[str, str], *, on_slurm: bool) -> Layout:
    from jobs import slurm

    try:
        plan = (
            layout.on_slurm(recipe)
            if on_slurm
            else layout.on_this_machine(recipe, layout.count_gpus())
        )
    except RefusedError as error:
        raise RequestError(*locate(error.problems, origins)) from None
    problems = preflight.check_shares(recipe, plan)
    problems += slurm.check_options(recipe.cluster) if on_slurm else []
    if problems:
        raise RequestError(*locate(problems, origins))
    return plan


def _start(wish: _Wish, overrides: Sequence[str], interrupt: Interrupt, *, all_nodes: bool) -> int:
    run = wish.run
    saved = checkpoints.newest(run)
    where = f"from the checkpoint of step {saved.step}" if saved else "from the beginning"
    print(f"{run.label} goes on {where}", file=sys.stderr)
    if wish.on_slurm:
        with uninterrupted():
            return _submit(wish, overrides, all_nodes=all_nodes)

    from jobs import local

    with _prepared(wish, overrides, None):
        run.note("resumed by hand on this machine")
    return local.run_attached(run, wish.recipe, wish.plan, interrupt)


def _submit(wish: _Wish, overrides: Sequence[str], *, all_nodes: bool) -> int:
    from jobs import slurm

    run, recipe = wish.run, wish.recipe
    asks_anew = any(each.startswith("cluster.") for each in overrides) or not run.script.exists()
    script = slurm.make_executor(recipe, wish.plan, run).script() if asks_anew else None
    if not (run.engine_files / slurm.TASK).exists():
        slurm.write_task(run, final=run)
    saved = checkpoints.newest(run)
    lead = deadline.stop_lead_seconds(recipe.cluster, saved.seconds if saved else None)
    with _prepared(wish, overrides, script):
        if all_nodes:
            again.trust_nodes(run)
        excluded = again.exclusions(run, recipe.cluster)
        options = [f"--exclude={','.join(excluded)}"] if excluded else []
        job = controller.submit(run.script, f"--signal=USR2@{lead}", *options)
    with contextlib.suppress(FileExistsError):
        # The job would do so when it starts; `status` knows a waiting run's job by it.
        os.link(run.engine_files / slurm.TASK, run.engine_files / f"{job}_submitted.pkl")
    run.note(f"resumed by hand as job {job}")
    if excluded:
        print(
            f"left out, as unfit before or by the recipe: {', '.join(excluded)} "
            "(resume --all-nodes takes unfit ones again)",
            file=sys.stderr,
        )
    print(f"submitted job {job}: {wish.plan.describe()}")
    print(next_commands(run, ("status", "logs -f", "cancel")))
    return 0


@contextlib.contextmanager
def _prepared(wish: _Wish, overrides: Sequence[str], script: str | None) -> Iterator[None]:
    """Make the run directory ready to go on; if the body raises, as it was before."""
    run = wish.run
    with (
        _written(run.config, dump_recipe(wish.recipe) if overrides else None),
        _written(run.script, script),
        _results_set_aside(run),
    ):
        yield


@contextlib.contextmanager
def _results_set_aside(run: RunDirectory) -> Iterator[None]:
    """Keep the results of the shorter run beside those to come, named by its steps."""
    results = metrics.results(run)
    if results is None:
        yield
        return
    kept = run.results.with_name(f"results-step-{results['steps']}.json")
    run.results.rename(kept)
    try:
        yield
    except BaseException:
        kept.rename(run.results)
        raise
    print(f"the results so far are kept: {path_from_here(kept)}", file=sys.stderr)


@contextlib.contextmanager
def _written(path: Path, text: str | None) -> Iterator[None]:
    """Put `text` into a file for the body of the with, and keep it there unless that raises."""
    before = path.read_text(encoding="utf-8") if path.exists() else None
    if text is not None:
        files.write_whole(path, text)
    try:
        yield
    except BaseException:
        if text is not None and before is not None:
            files.write_whole(path, before)
        raise
