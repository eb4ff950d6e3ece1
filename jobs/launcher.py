"""From a recipe to a run: choose the engine, check, make the run directory, start.

Everything that can be refused is refused before the run directory exists, all problems at once.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Sequence
from pathlib import Path

from configs.loader import LoadedRecipe, dump_recipe
from configs.schema import Recipe
from jobs import engine, preflight, provenance, repository, rundir, snapshot
from jobs.engine import Engine
from jobs.errors import RequestError, locate, place_of
from jobs.files import write_json
from jobs.interruption import Interrupt, uninterrupted
from jobs.layout import Layout
from jobs.rundir import RunDirectory
from jobs.text import next_commands, path_from_here


def launch(loaded: LoadedRecipe, command: Sequence[str], *, watch: bool = False) -> int:
    """Check a recipe and start it; returns the exit code.

    Args:
        loaded: the recipe.
        command: the command line, for the record.
        watch: whether to show a job of Slurm until it ends; a local run is shown anyway.

    Raises:
        RequestError: with every problem found; nothing was made.
    """
    recipe = loaded.recipe
    chosen = engine.choose(recipe)
    if chosen.problem:
        raise RequestError(f"{place_of('cluster.engine', loaded.origins)}: {chosen.problem}")
    announce(chosen)
    plan, problems = check(loaded, chosen)
    if plan is None or problems:
        raise RequestError(*problems)
    run = rundir.reserve(Path(recipe.run.root), recipe.run.name)
    if chosen.name == "slurm":
        _submit(recipe, plan, run, command)
        return follow([run]) if watch else 0

    from jobs import local

    with contextlib.ExitStack() as held:
        with rundir.create(run, recipe.run.mode, lambda draft: fill(draft, recipe, command)):
            interrupt = held.enter_context(Interrupt().watch())
        return local.run_attached(run, recipe, plan, interrupt)


def show(loaded: LoadedRecipe) -> int:
    """Print what `launch` would submit, and the resolved recipe, and make nothing.

    Raises:
        RequestError: with every problem that `launch` would find, after printing.
    """
    recipe = loaded.recipe
    chosen = engine.choose(recipe)
    announce(chosen)
    plan, problems = check(loaded, chosen)
    if plan and chosen.name == "slurm":
        from jobs import slurm

        run = rundir.reserve(Path(recipe.run.root), recipe.run.name)
        print(f"# job.sbatch\n{slurm.make_executor(recipe, plan, run).script()}", end="")
    return show_recipe("config.yaml", recipe, chosen, problems)


def show_recipe(title: str, recipe: Recipe, chosen: Engine, problems: Sequence[str]) -> int:
    """The end of every dry run: the resolved recipe, and what is wrong.

    Raises:
        RequestError: with the problems, after printing.
    """
    print(f"# {title}\n{dump_recipe(recipe)}", end="")
    if chosen.problem:
        print(f"not checked with Slurm: {chosen.problem}", file=sys.stderr)
    if problems:
        raise RequestError(*problems)
    return 0


def check(
    loaded: LoadedRecipe, chosen: Engine, *, ask_slurm: bool = True
) -> tuple[Layout | None, list[str]]:
    """The workers that a recipe means on an engine, and everything that is wrong with it.

    What may go wrong is told here, each thing once, however many runs it is about.
    """
    case = preflight.make_case(loaded.recipe, chosen)
    problems = []
    for finding in preflight.at_launch(case, ask_slurm=ask_slurm):
        if finding.level == "fail":
            problems += locate([finding.problem], loaded.origins)
        else:
            _warn(f"warning: {finding.text}; more: launch.py doctor")
    return case.plan, problems


@functools.cache
def _warn(text: str) -> None:
    print(text, file=sys.stderr)


def _submit(recipe: Recipe, plan: Layout, run: RunDirectory, command: Sequence[str]) -> None:
    from jobs import slurm

    executor = slurm.make_executor(recipe, plan, run)

    def fill_all(draft: RunDirectory) -> None:
        fill(draft, recipe, command)
        slurm.write_files(draft, executor, final=run)

    with contextlib.ExitStack() as held:
        with rundir.create(run, recipe.run.mode, fill_all):
            # Until its job is told, or the run directory is gone again.
            held.enter_context(uninterrupted())
            job = slurm.submit(run, executor)
        run.note(f"submitted as job {job}")
        print(f"submitted job {job}: {plan.describe()}")
        print(f"run directory: {path_from_here(run.path)}")
        print(next_commands(run, ("status", "watch", "logs -f", "tensorboard", "cancel")))


def follow(runs: list[RunDirectory]) -> int:
    """Stay and show what was submitted until it ends; returns the exit code."""
    from jobs import watch

    sys.stdout.flush()
    return watch.follow(runs)


def fill(draft: RunDirectory, recipe: Recipe, command: Sequence[str]) -> None:
    """Put in what every run has on every engine: the recipe, the code, where they come from."""
    draft.engine_files.mkdir()
    draft.config.write_text(dump_recipe(recipe), encoding="utf-8")
    code_sha256 = snapshot.copy_code(draft.code, Path(recipe.run.root) / snapshot.STORE)
    write_json(draft.provenance, provenance.collect(recipe, code_sha256, command))


def announce(chosen: Engine) -> None:
    """Say where it goes and why."""
    print(f"engine: {chosen.name} ({chosen.why})", file=sys.stderr)
    if words := repository.refusal():
        print(
            "warning: git does not read this project, so provenance.json names no commit, and "
            f"code/ has every file, ignored ones too:\n{words}",
            file=sys.stderr,
        )
