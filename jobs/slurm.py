"""The Slurm engine: submitit's executor, told everything, writing into one run directory."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import DelayedSubmission, FailedJobError, FailedSubmissionError

from configs.cluster import Cluster
from configs.schema import Recipe
from jobs import controller, deadline, place, told
from jobs.errors import Problem, RequestError
from jobs.layout import Layout
from jobs.rundir import RunDirectory
from jobs.task import Task

# Without these the run directory would not hold the run; each has its own key or a fixed value.
FIXED_OPTIONS = {
    "array", "chdir", "cpus-per-task", "error", "export", "gpus-per-node", "job-name", "nodes",
    "ntasks", "ntasks-per-node", "open-mode", "output", "requeue", "time", "wrap",
}  # fmt: skip

# The keys of a recipe that some of them come from.
OWN_KEYS = {
    "cpus-per-task": "cluster.cpus_per_gpu",
    "gpus-per-node": "cluster.gpus_per_node",
    "job-name": "run.name",
    "nodes": "cluster.nodes",
    "time": "cluster.time_limit",
}

# What the shell of a job does before srun for any tasks: those of submitit and of slurm/*.sbatch.
# Set by a shell inside salloc, these would pin every task to that shell's cores.
UNPIN = 'unset "${!SLURM_CPU_BIND@}" "${!SLURM_MEM_BIND@}" "${!SRUN_@}"'
# A site's --export=NONE would otherwise keep all variables from the tasks.
VARIABLES = {"PYTHONFAULTHANDLER": "1", "SLURM_EXPORT_ENV": "ALL"}

TASK = "task.pkl"


class RunExecutor(submitit.SlurmExecutor):
    """submitit's Slurm executor for one run directory.

    A subclass for three reasons: what is handed to sbatch is the run's own `job.sbatch` and not a
    copy that submitit writes; rendering works on machines without Slurm (`--dry-run`); and
    `--parsable` gives the job id where a site's sbatch prints more than submitit expects.
    """

    def __init__(self, run: RunDirectory) -> None:
        super().__init__(folder=run.engine_files)
        self._script = run.script

    @classmethod
    def affinity(cls) -> int:
        """Claim to be usable: the engine was chosen before, and a dry run needs no srun."""
        return 2

    def script(self) -> str:
        """The sbatch script as submitit renders it."""
        return self._make_submission_file_text(self._submitit_command_str, uid="") + "\n"

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        return ["sbatch", "--parsable", str(self._script)]

    @staticmethod
    def _get_job_id_from_submission_command(string: bytes | str) -> str:
        text = string if isinstance(string, str) else string.decode()
        job = controller.parse_job_id(text)
        if job is None:
            raise FailedSubmissionError(f"sbatch answered without a job id: {text!r}")
        return job


def make_executor(recipe: Recipe, layout: Layout, run: RunDirectory) -> RunExecutor:
    """The executor that renders and submits `run`."""
    executor = RunExecutor(run)
    executor.update_parameters(**parameters(recipe, layout, run))
    return executor


def parameters(recipe: Recipe, layout: Layout, run: RunDirectory) -> dict[str, Any]:
    """What submitit is told for a recipe: a pure function, so a test can compare it whole."""
    cluster = recipe.cluster
    extra = {key.replace("-", "_"): value for key, value in cluster.sbatch.items()}
    gpus = layout.gpus_per_node if "gres" not in extra else 0
    return {
        "job_name": recipe.run.name,
        "nodes": layout.nodes,
        "ntasks_per_node": layout.workers_per_node,
        "cpus_per_task": cluster.cpus_per_gpu,
        "gpus_per_node": gpus or None,
        "time": -(-cluster.time_limit_seconds // 60),
        "signal_delay_s": deadline.stop_lead_seconds(cluster),
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "constraint": cluster.constraint,
        "mem": f"{cluster.mem_gb}G" if cluster.mem_gb else None,
        # submitit's default is --wckey=submitit, which sites without wckeys refuse.
        "wckey": None,
        "setup": setup_lines(cluster, run),
        "teardown": teardown_lines(run),
        "srun_args": srun_options(str(cluster.cpus_per_gpu)),
        "additional_parameters": {
            "requeue": True,
            # `python -m` looks here first: the job runs the snapshot whatever PYTHONPATH says.
            "chdir": str(run.code),
            # False means the option is not given; submitit would write --exclusive=False.
            **{key: value for key, value in extra.items() if value is not False},
        },
    }


def srun_options(cpus_per_task: str) -> list[str]:
    """What srun is told beyond what it has from sbatch."""
    return [
        # It takes this from sbatch in some releases only (22.05 to 23.02 do not).
        f"--cpus-per-task={cpus_per_task}",
        # A dead rank ends the job now, not after the collective's timeout.
        "--kill-on-bad-exit=1",
        "--wait=60",
    ]


def export_lines(variables: Mapping[str, str]) -> list[str]:
    """Shell lines that set variables for the tasks."""
    return [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]


def setup_lines(cluster: Cluster, run: RunDirectory) -> list[str]:
    """Shell lines that run on the first node before srun."""
    files = shlex.quote(str(run.engine_files))
    job = '"${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}"'
    return [
        # A signal that Slurm sends to this shell too must not end it before the last lines have
        # run. Not '', which the tasks would inherit: this way they start with the default.
        "trap : TERM USR2 INT",
        # Whoever could write in the run directory could have code of theirs run.
        "umask g-w,o-w",
        f'echo "{told.start_line("$SLURM_JOB_ID", "${SLURM_RESTART_COUNT:-0}")}" >&2',
        # Releases before 23.02 do not say it.
        f': "${{SLURM_JOB_END_TIME:=$(($(date +%s) + {cluster.time_limit_seconds}))}}"',
        "export SLURM_JOB_END_TIME",
        f'[ "${{1:-}}" != {controller.FOLLOWING} ] || export {place.FOLLOW_UP}=yes',
        # This script alone starts the run: submitit looks for its task under the job's own id.
        # It also removes the moment between sbatch and submitit's renaming of its pickle.
        f"job_files={files}/{job}",
        f'[ -e "${{job_files}}_submitted.pkl" ] || '
        f'cp {files}/{TASK} "${{job_files}}_submitted.pkl"',
        # What an attempt before this one left would be taken for this one's, or block its end.
        'rm -f "${job_files}"_*_result.pkl*',
        *environment_lines(cluster, run),
        # Left on by the lines above, `set -e` would end this script before its last lines.
        "set +eu +o pipefail",
    ]


def environment_lines(cluster: Cluster, run: RunDirectory) -> list[str]:
    """Shell lines that make the environment of the tasks of `run`."""
    return [
        UNPIN,
        f"export PYTHONPATH={shlex.quote(str(run.code))}${{PYTHONPATH:+:$PYTHONPATH}}",
        *export_lines(VARIABLES | cluster.env),
        *cluster.setup,
    ]


def teardown_lines(run: RunDirectory) -> list[str]:
    """Shell lines that run on the first node after srun."""
    settle = shlex.join([sys.executable, "-m", "jobs.settle", str(run.path)])
    return [
        "code=$?",
        # Slurm ends the job that was just requeued; what says so has to live a little longer.
        f"(trap '' TERM USR2 INT; exec {settle} \"$code\")",
    ]


def check_options(cluster: Cluster) -> list[Problem]:
    """Options in `cluster.sbatch` that the launcher has to set itself, or that are no names."""
    problems = []
    for key in cluster.sbatch:
        name = key.replace("_", "-")
        if key.startswith("-"):
            text, remedy = "has dashes in front", f"write {key.lstrip('-') or 'its long name'}"
        elif name in FIXED_OPTIONS:
            text = "the launcher sets this option itself"
            remedy = f"set {OWN_KEYS[name]} instead" if name in OWN_KEYS else "remove it"
        else:
            continue
        problems.append(Problem(f"cluster.sbatch.{key}", text, remedy))
    return problems


def write_files(run: RunDirectory, executor: RunExecutor, final: RunDirectory) -> None:
    """Put the script and the pickled task of `final` into its draft `run`."""
    run.script.write_text(executor.script(), encoding="utf-8")
    write_task(run, final)


def write_task(run: RunDirectory, final: RunDirectory) -> None:
    """Put the pickled task of `final`, which any job of that run is started from, into `run`."""
    DelayedSubmission(Task(str(final.path))).dump(run.engine_files / TASK)


def submit(run: RunDirectory, executor: RunExecutor) -> str:
    """Queue a complete run directory; returns the job id. To be called uninterrupted.

    Raises:
        RequestError: sbatch refused; its words are the message.
    """
    with _without_leaks():
        try:
            job: submitit.Job[None] = executor.submit(Task(str(run.path)))
        except (FailedJobError, FailedSubmissionError) as error:
            if found := controller.find_queued(run.script, str(error)):
                with contextlib.suppress(FileExistsError):
                    # The job would do so when it starts; `status` knows a waiting run's job by it.
                    os.link(run.engine_files / TASK, run.engine_files / f"{found}_submitted.pkl")
                return found
            raise RequestError(f"Slurm refused the job: {error}") from None
    return str(job.job_id)


@contextlib.contextmanager
def _without_leaks() -> Iterator[None]:
    # submitit calls sbatch with this process's environment and gives no way to pass another.
    leaks = {name: os.environ.pop(name) for name in list(os.environ) if controller.is_leak(name)}
    try:
        yield
    finally:
        os.environ.update(leaks)
