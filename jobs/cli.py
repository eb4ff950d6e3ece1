"""The command line: which part of jobs/ does each command.

Only the part that a command needs is imported, so `--help` comes at once on a busy login node.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.errors import RequestError, WorkError
from jobs.interruption import SIGNALS, raise_interrupt
from jobs.options import make_parser

if TYPE_CHECKING:
    from configs.loader import LoadedRecipe

# What a command says of options that stand before its name, which are those of a launch.
TAKES = {
    "doctor": "takes --config, --set and --on-node, after its name",
    "stage": "starts nothing, and its options stand after its name; see stage --help",
}


def main(arguments: list[str]) -> int:
    """Run one command; returns the exit code."""
    for number in SIGNALS:
        # A dropped connection must undo what is half made, as Ctrl-C does; nohup is respected.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, raise_interrupt)
    # Whoever may write in a run directory could make its job run code of theirs. Jobs inherit it.
    os.umask(os.umask(0o077) | stat.S_IWGRP | stat.S_IWOTH)
    _mend_streams()
    try:
        code = _run(arguments)
        _flush()
        return code
    except RequestError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        return 2
    except WorkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader (`| head`) has what it wanted. Python would complain once more at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        # What can happen to any file at any time, such as a quota that is used up.
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        return 1


def _mend_streams() -> None:
    """Have a stdout and a stderr that take any text.

    Where one was closed (`>&-`), the next file opened would take its number. Names and logs may
    hold what the terminal's encoding has not.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest that is free
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _flush() -> None:
    """Print what is not printed yet, while what is wrong with that can still be told.

    Raises:
        BrokenPipeError: the reader has gone.
        WorkError: stdout cannot be written.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise WorkError(f"the output cannot be written: {error.strerror}") from None


def _run(arguments: list[str]) -> int:
    parser = make_parser()
    if arguments and arguments[0].endswith((".yaml", ".yml")):
        parser.error(f"a recipe follows its option: --config {arguments[0]}")
    options = parser.parse_args(arguments)
    if options.command is None:
        if options.config is None:
            parser.error("say what to run: --config finetune.yaml (or --help)")
        return _launch(options, arguments)
    about_a_new_run = ("config", "set", "name", "engine", "dry_run", "sweep", "watch")
    if any(getattr(options, name) for name in about_a_new_run):
        takes = TAKES.get(options.command, "is about runs that exist; it takes no recipe")
        parser.error(f"{options.command} {takes}")
    if options.command == "doctor":
        from jobs import doctor

        recipe = _load(options.recipe, options.overrides)
        return doctor.examine(recipe, on_node=options.on_node)
    if options.command == "stage":
        return _stage(options)
    if options.command == "tensorboard" and options.stop and options.port is not None:
        parser.error("--stop takes no --port: name the runs, or none for all")
    return _do(options)


def _do(options: argparse.Namespace) -> int:
    """The command on runs that was named."""
    match options.command:
        case "status":
            from jobs import overview

            code = overview.show(options.runs, _root(), everything=options.all, every=options.every)
        case "watch":
            from jobs import watch

            code = watch.show(options.run, _root())
        case "logs":
            from jobs import logs

            code = logs.show(
                options.run,
                _root(),
                rank=options.rank,
                attempt=options.attempt,
                follow=options.follow,
                tail=options.tail,
            )
        case "cancel":
            from jobs import cancellation

            code = cancellation.cancel(options.run, _root())
        case "resume":
            from jobs import resume

            code = resume.resume(options.run, _root(), options.changes, all_nodes=options.all_nodes)
        case "report":
            from jobs import report

            code = report.show(options.runs, _root(), options.format, options.output)
        case "export":
            from jobs import export

            code = export.export(
                options.run, _root(), options.layout, options.out, best=options.best
            )
        case "completion":
            from jobs import completion

            code = completion.show(options.shell)
        case _:
            from jobs import board

            if options.stop:
                code = board.stop(options.runs, _root())
            else:
                code = board.serve(options.runs, _root(), options.port)
    return code


def _stage(options: argparse.Namespace) -> int:
    if options.verify is not None:
        from jobs import manifest

        return manifest.verify(Path(options.verify))
    from jobs import stage, target

    return stage.stage(
        Path(options.to),
        _load(options.recipe, options.overrides),
        options.overrides,
        target.parse_target(options.python, options.platform, options.torch),
        [Path(each) for each in options.brought],
    )


def _launch(options: argparse.Namespace, arguments: list[str]) -> int:
    overrides, typed = list(options.set), {}
    if options.name is not None:
        overrides.append(f"run.name={json.dumps(options.name)}")
        typed["--set run.name:"] = "--name:"
    if options.engine is not None:
        overrides.append(f"cluster.engine={options.engine}")
        typed["--set cluster.engine:"] = "--engine:"
    try:
        return _launch_with(options, overrides, arguments)
    except RequestError as error:
        problems = list(error.problems)
        for ours, theirs in typed.items():
            problems = [each.replace(ours, theirs) for each in problems]
        raise RequestError(*problems) from None


def _launch_with(options: argparse.Namespace, overrides: list[str], arguments: list[str]) -> int:
    from jobs import launcher

    if options.sweep:
        from jobs import array

        return array.launch(
            options.config,
            overrides,
            options.sweep,
            ["launch.py", *arguments],
            dry_run=options.dry_run,
            watch=options.watch,
        )
    loaded = _load(options.config, overrides)
    if options.dry_run:
        return launcher.show(loaded)
    return launcher.launch(loaded, ["launch.py", *arguments], watch=options.watch)


def _root() -> Path:
    """The folder of this site's runs, where a name is looked up."""
    # This recipe comes with the project and leaves the folder to configs/site.yaml.
    return Path(_load("quickstart.yaml", []).recipe.run.root)


def _load(config: str, overrides: list[str]) -> LoadedRecipe:
    from configs.loader import load_recipe
    from configs.settings import RecipeError

    try:
        return load_recipe(config, overrides)
    except RecipeError as error:
        raise RequestError(*error.problems) from None
