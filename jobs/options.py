"""What the command line takes: its commands, their options and the words of `--help`."""

from __future__ import annotations

import argparse

EXAMPLES = """examples:
  python launch.py --config finetune.yaml
  python launch.py --config finetune.yaml --set optimizer.lr=0.01
  python launch.py --config finetune.yaml --dry-run
  python launch.py --config finetune.yaml --sweep optimizer.lr=0.001,0.0025 --sweep run.seed=1,2,3
  python launch.py doctor --config finetune.yaml
  python launch.py status
  python launch.py watch finetune
  python launch.py logs -f finetune
  python launch.py cancel finetune/20260101-120000-1a2b
  python launch.py resume finetune --set cluster.time_limit=08:00:00
  python launch.py report --output report.html
  python launch.py tensorboard
  python launch.py export finetune --layout mmcls resnet50.pth

exit codes: 0 done, 1 the work failed, 2 the request was wrong, 130 interrupted
"""
RUN_HELP = "a run's directory, its name or a unique part of it; the newest run if left out"
SWEEP_HELP = f"{RUN_HELP}; of a sweep, all its runs"


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands; starting a run is the one without a name."""
    parser = argparse.ArgumentParser(
        prog="launch.py",
        usage="launch.py --config C [--set K=V]... [--name N] [--engine E] [--dry-run] [--watch]\n"
        "                 [--sweep K=V1,V2,...]...\n"
        "       launch.py {doctor,stage,status,watch,logs,cancel,resume,report,tensorboard,\n"
        "                  export,completion}\n"
        "                 [--help] ...",
        description="Fine-tune ResNet-50 on a Slurm cluster or on this machine.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="C", help="recipe: a file, or a name from configs/")
    parser.add_argument(
        "--set", metavar="K=V", action="append", default=[], help="override a key of the recipe"
    )
    parser.add_argument("--name", metavar="N", help="name of the run; the recipe's if left out")
    parser.add_argument(
        "--engine",
        choices=("auto", "slurm", "local"),
        help="where it runs; auto takes Slurm when its controller answers",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the sbatch script and the resolved recipe, and make nothing",
    )
    parser.add_argument(
        "--sweep",
        metavar="K=V1,V2",
        action="append",
        default=[],
        help="a run for each value, or for each combination; on Slurm as one array",
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="stay and show a live screen of the job; leaving it does not touch the job",
    )
    commands = parser.add_subparsers(
        dest="command", title="commands on runs", metavar="COMMAND", prog="launch.py"
    )

    doctor = _add(
        commands,
        "doctor",
        "every check before the queue",
        "doctor --config finetune.yaml --on-node",
    )
    _add_recipe(doctor, "recipe: a file, or a name from configs/", required=True)
    doctor.add_argument(
        "--on-node", action="store_true", help="also start a short job that looks at the nodes"
    )

    _add_stage(commands)

    status = _add(commands, "status", "one line a run", "status finetune --watch")
    status.add_argument(
        "runs",
        metavar="RUN",
        nargs="*",
        help="runs or sweeps to show; if left out, the newest and all that are queued or running",
    )
    status.add_argument("--all", action="store_true", help="also old runs, and all of a sweep")
    status.add_argument(
        "--watch",
        dest="every",
        metavar="SECONDS",
        nargs="?",
        type=_seconds,
        const=10.0,
        help="keep showing it until Ctrl-C, read anew every so many seconds (10 if left out); "
        "Slurm itself is asked every 10 seconds, not more often",
    )

    watch = _add(
        commands,
        "watch",
        "live screen of a run: progress, curves, log; leaving it does not touch the job",
        "watch finetune",
    )
    watch.add_argument(
        "run", metavar="RUN", nargs="?", help=RUN_HELP.replace("run's", "run's or sweep's", 1)
    )

    logs = _add(commands, "logs", "what the workers printed", "logs -f --rank 0 finetune")
    logs.add_argument("run", metavar="RUN", nargs="?", help=RUN_HELP)
    logs.add_argument("--rank", metavar="R", type=int, help="only this rank")
    logs.add_argument("--attempt", metavar="K", type=int, help="this attempt, not the newest")
    logs.add_argument(
        "-f",
        "--follow",
        action="store_true",
        help="go on until the run ends, through all of its attempts",
    )
    logs.add_argument(
        "--tail",
        metavar="N",
        type=_line_count,
        default=200,
        help="begin with the last N lines of each rank (200 if left out), or with 'all'",
    )

    cancel = _add(commands, "cancel", "end a run or a sweep for good", "cancel finetune")
    cancel.add_argument("run", metavar="RUN", nargs="?", help=SWEEP_HELP)

    resume = _add(
        commands,
        "resume",
        "go on with a run that ended unfinished, or longer with a finished one",
        "resume finetune --set schedule.epochs=40",
    )
    resume.add_argument("run", metavar="RUN", nargs="?", help=SWEEP_HELP)
    resume.add_argument(
        "--set",
        metavar="K=V",
        action="append",
        default=[],
        dest="changes",
        help="change a key from now on: cluster, evaluate, checkpoint, logging, run.notes, "
        "data.root, data.local_copy, train.cuda_graph, train.max_steps, and what lies ahead of the "
        "schedule",
    )
    resume.add_argument(
        "--all-nodes",
        action="store_true",
        help="take nodes again that were unfit before; without it they are left out",
    )

    report = _add(
        commands,
        "report",
        "what came of runs, side by side",
        "report finetune --output report.html",
    )
    report.add_argument("runs", metavar="RUN", nargs="*", help="runs to report; all if left out")
    report.add_argument(
        "--format",
        choices=("table", "csv", "json", "html"),
        help="by the name of FILE, or a table, if left out",
    )
    report.add_argument("--output", metavar="FILE", help="write it there, not to the terminal")

    board = _add(commands, "tensorboard", "serve the curves of runs", "tensorboard --port 6006")
    board.add_argument("runs", metavar="RUN", nargs="*", help="runs to serve; all if left out")
    board.add_argument("--port", metavar="P", type=int, help="a free one if left out")
    board.add_argument(
        "--stop",
        action="store_true",
        help="end the one that serves these runs; all of yours on this machine if left out",
    )

    export = _add(
        commands,
        "export",
        "a run's model as a file that other programs read",
        "export finetune --layout safetensors resnet50.safetensors",
    )
    export.add_argument("run", metavar="RUN", help="a run's directory, its name or a unique part")
    export.add_argument(
        "--layout",
        choices=("mmcls", "torchvision", "safetensors"),
        required=True,
        help="mmcls: for MMClassification and mmpretrain; torchvision: the bare tensors; "
        "safetensors: with class names, preprocessing and scores",
    )
    export.add_argument(
        "--best", action="store_true", help="the checkpoint with the best score, not the newest"
    )
    export.add_argument("out", metavar="OUT", help="the file to write, which must not be there yet")

    completion = _add(
        commands,
        "completion",
        "tab completion for your shell",
        "completion bash > ~/.launch_completion  # then, in ~/.bashrc: . ~/.launch_completion",
    )
    completion.add_argument("shell", choices=("bash", "zsh"), help="which shell")
    return parser


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    what: str,
    example: str,
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=what,
        description=f"{what[0].upper()}{what[1:]}.",
        epilog=f"example:\n  python launch.py {example}\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    return parser


def _add_recipe(
    parser: argparse.ArgumentParser,
    what: str,
    *,
    required: bool = False,
    default: str | None = None,
) -> None:
    # Under names of their own, or what stands before the command's name would be lost in silence.
    parser.add_argument(
        "--config", metavar="C", dest="recipe", required=required, default=default, help=what
    )
    parser.add_argument(
        "--set",
        metavar="K=V",
        action="append",
        default=[],
        dest="overrides",
        help="override a key of the recipe",
    )


def _add_stage(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    stage = _add(
        commands,
        "stage",
        "one folder with all that a cluster without internet needs, made where there is internet",
        "stage --to bundle --config finetune.yaml",
    )
    which = stage.add_mutually_exclusive_group(required=True)
    which.add_argument("--to", metavar="DIR", help="the folder to make, or to go on with")
    which.add_argument("--verify", metavar="DIR", help="look at every file of a folder made so")
    _add_recipe(stage, "recipe; finetune.yaml if left out", default="finetune.yaml")
    stage.add_argument(
        "--python", metavar="X.Y", default="3.11", help="of the cluster; 3.11 if left out"
    )
    stage.add_argument(
        "--platform",
        metavar="TAG",
        default="manylinux_2_28_x86_64",
        help="of the cluster, as wheels name it; manylinux_2_28_x86_64 if left out",
    )
    stage.add_argument(
        "--torch",
        choices=("cuda", "cpu"),
        default="cuda",
        help="cuda, if left out: the build of requirements.lock; cpu: a smaller one without GPUs",
    )
    stage.add_argument(
        "--from",
        metavar="FILE",
        action="append",
        default=[],
        dest="brought",
        help="take this file instead of fetching it, told by its name or its content",
    )


def _line_count(text: str) -> int | None:
    if text == "all":
        return None
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a number of lines or 'all', got {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected seconds, got {text!r}; name runs before --watch"
        ) from None
    if not 1 <= seconds < 86400:
        raise argparse.ArgumentTypeError("expected at least 1 second and less than a day")
    return seconds
