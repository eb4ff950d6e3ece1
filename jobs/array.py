"""A sweep becomes runs: one Slurm array or, without Slurm, one run after the other.

The array's script only finds its element and goes on as the `job.sbatch` of that. So an element is
requeued, resumed and cancelled like any run.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from configs.loader import LoadedRecipe, load_recipe
from configs.settings import RecipeError
from jobs import controller, engine, launcher, rundir, sweep
from jobs.engine import Engine
from jobs.errors import RequestError, WorkError, place_of
from jobs.interruption import Interrupt, uninterrupted
from jobs.layout import Layout
from jobs.rundir import RunDirectory
from jobs.sweep import Axis, Element
from jobs.text import count, next_commands, path_from_here


def launch(
    config: str,
    overrides: Sequence[str],
    texts: Sequence[str],
    command: Sequence[str],
    *,
    dry_run: bool,
    watch: bool,
) -> int:
    """Check all runs of a sweep and start them; returns the exit code.

    Args:
        config: the recipe.
        overrides: what `--set` changes in all of them.
        texts: what `--sweep` says.
        command: the command line, for the record.
        dry_run: only print what would be submitted.
        watch: whether to show the jobs of Slurm until they end; local runs are shown anyway.

    Raises:
        RequestError: with every problem of any of the runs; nothing was made.
    """
    axes = sweep.parse_axes(texts)
    elements = sweep.combine(axes)
    loaded = _load(config, overrides, axes, elements)
    recipe = loaded[0].recipe
    chosen = engine.choose(recipe)
    launcher.announce(chosen)
    plan, found = _check(loaded, chosen)
    problems = _as_told(found, axes)
    if chosen.problem and not dry_run:
        problems = [f"{place_of('cluster.engine', loaded[0].origins)}: {chosen.problem}"]
    if plan is None or (problems and not dry_run):
        raise RequestError(*problems)
    folder = rundir.reserve(Path(recipe.run.root), recipe.run.name)
    if dry_run:
        return _show(folder, loaded, elements, chosen, plan, problems)

    def fill(draft: RunDirectory) -> None:
        sweep.write(draft.path, axes, elements)
        for each, element in zip(loaded, elements, strict=True):
            run = RunDirectory(draft.path / element.folder)
            run.path.mkdir(mode=each.recipe.run.mode)
            launcher.fill(run, each.recipe, command)
        if chosen.name == "slurm":
            _fill_for_slurm(draft, folder, loaded, elements, plan)

    if chosen.name == "slurm":
        with contextlib.ExitStack() as held:
            with rundir.create(folder, recipe.run.mode, fill):
                held.enter_context(uninterrupted())
                job = _submit(folder)
            _note_job(folder, elements, job)
            print(f"submitted job {job}: {count(len(elements), 'run')}, each {plan.describe()}")
            print(f"sweep directory: {path_from_here(folder.path)}")
            print(next_commands(folder, ("status", "watch", "report", "tensorboard", "cancel")))
        runs = [RunDirectory(folder.path / element.folder) for element in elements]
        return launcher.follow(runs) if watch else 0
    with contextlib.ExitStack() as held:
        with rundir.create(folder, recipe.run.mode, fill):
            interrupt = held.enter_context(Interrupt().watch())
        return _run_in_turn(folder, loaded, elements, interrupt)


def _load(
    config: str, overrides: Sequence[str], axes: Sequence[Axis], elements: Sequence[Element]
) -> list[LoadedRecipe]:
    loaded, problems = [], []
    for element in elements:
        try:
            loaded.append(load_recipe(config, [*overrides, *element.overrides]))
        except RecipeError as error:
            problems += error.problems
    if problems:
        raise RequestError(*_as_told(problems, axes))
    return loaded


def _as_told(problems: Sequence[str], axes: Sequence[Axis]) -> list[str]:
    """Each problem once, with the option that the person typed."""
    for axis in axes:
        problems = [each.replace(f"--set {axis.key}", f"--sweep {axis.key}") for each in problems]
    return list(dict.fromkeys(problems))


def _check(loaded: Sequence[LoadedRecipe], chosen: Engine) -> tuple[Layout | None, list[str]]:
    # Slurm is asked once: `cluster` is the same in all, and so is what it is asked.
    checked = [
        launcher.check(each, chosen, ask_slurm=index == 0) for index, each in enumerate(loaded)
    ]
    return checked[0][0], [line for _, lines in checked for line in lines]


def _show(
    folder: RunDirectory,
    loaded: Sequence[LoadedRecipe],
    elements: Sequence[Element],
    chosen: Engine,
    plan: Layout,
    problems: Sequence[str],
) -> int:
    if chosen.name == "slurm":
        print(f"# job.sbatch\n{render(folder, loaded[0], elements, plan)}", end="")
    print(f"# {count(len(elements), 'run')}")
    for element in elements:
        print(f"#   {element.folder}")
    title = f"config.yaml of {elements[0].folder}"
    return launcher.show_recipe(title, loaded[0].recipe, chosen, problems)


def _fill_for_slurm(
    draft: RunDirectory,
    folder: RunDirectory,
    loaded: Sequence[LoadedRecipe],
    elements: Sequence[Element],
    plan: Layout,
) -> None:
    from jobs import slurm, snapshot

    draft.engine_files.mkdir()
    snapshot.copy_code(draft.code, Path(loaded[0].recipe.run.root) / snapshot.STORE)
    draft.script.write_text(render(folder, loaded[0], elements, plan), encoding="utf-8")
    for each, element in zip(loaded, elements, strict=True):
        run = RunDirectory(folder.path / element.folder)
        executor = slurm.make_executor(each.recipe, plan, run)
        slurm.write_files(RunDirectory(draft.path / element.folder), executor, final=run)


def render(
    folder: RunDirectory, first: LoadedRecipe, elements: Sequence[Element], plan: Layout
) -> str:
    """The script of the array: what is asked of Slurm as for one run, then each goes its way."""
    from jobs import slurm

    recipe = first.recipe
    script = slurm.make_executor(recipe, plan, folder).script()
    asked = [line for line in script.splitlines() if line.startswith("#SBATCH ")]
    at_once = recipe.cluster.array_parallelism
    limit = f"%{at_once}" if at_once else ""
    logs = shlex.quote(str(folder.engine_files))
    lines = [
        "#!/bin/bash",
        *asked,
        f"#SBATCH --array=0-{len(elements) - 1}{limit}",
        "",
        "runs=(",
        *(f"    {shlex.quote(str(folder.path / each.folder))}" for each in elements),
        ")",
        "run=${runs[$SLURM_ARRAY_TASK_ID]}",
        "# What Slurm says of this job's end is looked for in the run's own folder.",
        f'ln -sf {logs}/"$SLURM_JOB_ID"_0_log.{{out,err}} "$run/{folder.engine_files.name}/"',
        'cd "$run/code" && exec bash "$run/job.sbatch"',
    ]
    return "\n".join(lines) + "\n"


def _submit(folder: RunDirectory) -> str:
    try:
        return controller.submit(folder.script)
    except WorkError as error:
        raise RequestError(str(error)) from None


def _note_job(folder: RunDirectory, elements: Sequence[Element], job: str) -> None:
    from jobs import slurm

    for index, element in enumerate(elements):
        run = RunDirectory(folder.path / element.folder)
        run.note(f"submitted as job {job}_{index}")
        with contextlib.suppress(FileExistsError):
            # The job would do so when it starts; `status` knows a waiting run's job by it.
            os.link(
                run.engine_files / slurm.TASK, run.engine_files / f"{job}_{index}_submitted.pkl"
            )


def _run_in_turn(
    folder: RunDirectory,
    loaded: Sequence[LoadedRecipe],
    elements: Sequence[Element],
    interrupt: Interrupt,
) -> int:
    """Run one after the other, whatever becomes of each; returns the worst exit code."""
    from jobs import cancellation, layout, local

    worst = 0
    for number, (each, element) in enumerate(zip(loaded, elements, strict=True), start=1):
        run = RunDirectory(folder.path / element.folder)
        if cancellation.is_passed_over(run):
            print(f"not started, as the sweep was cancelled: {element.folder}", file=sys.stderr)
            continue
        print(f"run {number} of {len(elements)}: {element.folder}", file=sys.stderr)
        plan = layout.on_this_machine(each.recipe, layout.count_gpus())
        try:
            code = local.run_attached(run, each.recipe, plan, interrupt)
        except (RequestError, WorkError) as error:
            print(f"error: {run.label}: {error}", file=sys.stderr)
            code = 1
        if cancellation.is_cancelled_here(run):
            interrupt.count = 0  # that was for this one
        elif interrupt.count:
            print(f"{len(elements) - number} of the sweep were not started", file=sys.stderr)
            return 130
        worst = max(worst, code)
    print(f"sweep directory: {path_from_here(folder.path)}")
    print(next_commands(folder, ("report", "tensorboard", "status")))
    return worst
