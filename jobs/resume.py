"""Going on with a run that ended unfinished and does not start again by itself.

A person asks for it, so the budgets of jobs/budget.py count from the attempt that follows.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from configs.loader import dump_recipe, load_recipe
from configs.schema import Recipe
from configs.settings import RecipeError
from jobs import (
    again,
    attachment,
    checkpoints,
    controller,
    deadline,
    layout,
    lease,
    preflight,
    rundir,
)
from jobs import status as runs_status
from jobs.errors import RefusedError, RequestError, WorkError, locate
from jobs.layout import Layout
from jobs.rundir import RunDirectory
from jobs.text import next_commands, path_from_here

CHANGEABLE = ("cluster", "logging", "checkpoint")


def resume(text: str | None, root: Path, overrides: Sequence[str]) -> int:
    """Go on with the run that `text` names, on Slurm or attached to this process.

    Raises:
        RequestError: no run is so named, it is finished, queued or running, or would be another.
        WorkError: Slurm refuses the job, or cannot be asked whether the run has one.
    """
    run = rundir.find_one(text, root)
    recipe, origins = _recipe(run, overrides)
    _refuse_unless_ended(run)
    on_slurm = recipe.cluster.engine == "slurm" or (
        recipe.cluster.engine == "auto" and run.script.exists()
    )
    plan = _plan(recipe, origins, on_slurm=on_slurm)
    saved = checkpoints.newest(run)
    where = f"from the checkpoint of step {saved.step}" if saved else "from the beginning"
    print(f"{run.label} goes on {where}", file=sys.stderr)
    if on_slurm:
        return _submit(run, recipe, plan, overrides)

    from jobs import local

    with _written(run.config, dump_recipe(recipe) if overrides else None):
        run.note("resumed by hand on this machine")
    return local.run_attached(run, recipe, plan)


def _recipe(run: RunDirectory, overrides: Sequence[str]) -> tuple[Recipe, dict[str, str]]:
    wrong = [each for each in overrides if each.partition(".")[0].strip() not in CHANGEABLE]
    if wrong:
        kept = ", ".join(f"{section}.*" for section in CHANGEABLE)
        names = ", ".join(each.partition("=")[0] for each in wrong)
        raise RequestError(
            f"--set {names}: that would be another run; resume changes {kept} only, "
            f"start a new run from {path_from_here(run.config)} for the rest"
        )
    try:
        loaded = load_recipe(str(run.config), overrides)
    except RecipeError as error:
        raise RequestError(*error.problems) from None
    return loaded.recipe, loaded.origins


def _refuse_unless_ended(run: RunDirectory) -> None:
    [now] = runs_status.collect([run])
    launcher = attachment.read(run)
    far = launcher is not None and launcher.is_alive() is None
    if now.state == "finished":
        raise RequestError(f"{run.label} is finished")
    # A process on another machine cannot be asked; whether it lives shows in its lease.
    if now.state in ("queued", "running", "ending") and not far:
        raise RequestError(f"{run.label} is {now.state} already ({now.note})")
    if now.state == "unknown":
        raise WorkError(f"{run.label} may be queued or running: {now.note}")
    holder = lease.read(run)
    if holder and not holder.released:
        seconds = lease.WATCHED_PERIODS * lease.REFRESH_SECONDS
        print(f"watching for {seconds:.0f} s whether {holder.where} lives", file=sys.stderr)
        if lease.is_alive(run):
            raise RequestError(f"{run.label} is running already ({holder.where})")


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


def _submit(run: RunDirectory, recipe: Recipe, plan: Layout, overrides: Sequence[str]) -> int:
    from jobs import slurm

    asks_anew = any(each.startswith("cluster.") for each in overrides) or not run.script.exists()
    script = slurm.make_executor(recipe, plan, run).script() if asks_anew else None
    if not (run.engine_files / slurm.TASK).exists():
        slurm.write_task(run, final=run)
    saved = checkpoints.newest(run)
    lead = deadline.stop_lead_seconds(recipe.cluster, saved.seconds if saved else None)
    with (
        _written(run.config, dump_recipe(recipe) if overrides else None),
        _written(run.script, script),
    ):
        excluded = again.exclusions(run, recipe.cluster)
        options = [f"--exclude={','.join(excluded)}"] if excluded else []
        job = controller.submit(run.script, f"--signal=USR2@{lead}", *options)
    with contextlib.suppress(FileExistsError):
        # The job would do so when it starts; `status` knows a waiting run's job by it.
        os.link(run.engine_files / slurm.TASK, run.engine_files / f"{job}_submitted.pkl")
    run.note(f"resumed by hand as job {job}")
    if excluded:
        print(f"left out, as unfit before or by the recipe: {', '.join(excluded)}", file=sys.stderr)
    print(f"submitted job {job}: {plan.describe()}")
    print(next_commands(run, ("status", "logs -f", "cancel")))
    return 0


@contextlib.contextmanager
def _written(path: Path, text: str | None) -> Iterator[None]:
    """Put `text` into a file for the body of the with, and keep it there unless that raises."""
    before = path.read_text(encoding="utf-8") if path.exists() else None
    if text is not None:
        _replace(path, text)
    try:
        yield
    except BaseException:
        if text is not None and before is not None:
            _replace(path, before)
        raise


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.partial")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
