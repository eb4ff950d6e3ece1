"""Questions to Slurm and orders to it, through its own programs and their plain output.

Slurm's JSON changes its shape between releases; `--format` does not.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from jobs import queue
from jobs.errors import WorkError
from jobs.queue import Job

PING_SECONDS = 5.0
QUERY_SECONDS = 30.0
# A job that asks may have little time left.
PATIENCE_IN_A_JOB_SECONDS = 10.0
# For sbatch, whose job may be queued by the time that it does not answer: from the login node it
# gets all the time that Slurm's own limits give it.
SUBMIT_IN_A_JOB_SECONDS = 120.0
LOOKS_FOR_A_JOB = 6
LOOK_SECONDS = 5.0
QUEUED_STATES = {"PENDING", "CONFIGURING", "RUNNING"}
FOLLOWING = "follow-up"
# What Slurm's programs say where nobody has refused anything: its errors of communication.
UNANSWERED = re.compile(
    "Unable to contact slurm controller|Socket timed out|Zero Bytes were transmitted"
)

# What a shell inside salloc, a job step or an old training session leaves behind; it would change
# the new job (SLURM_CPU_BIND pins all ranks to a few cores, SBATCH_* overrides the script), or the
# answer to a question (SQUEUE_PARTITION hides jobs, and what is hidden looks lost).
LEAKS = (
    "SLURM_", "SLURMD_", "SRUN_", "SBATCH_", "SALLOC_", "SUBMITIT_",
    "SQUEUE_", "SACCT_", "SINFO_", "SCONTROL_", "SCANCEL_",
    "PMI_", "PMIX_", "PMI2_", "OMPI_", "TORCHELASTIC_",
)  # fmt: skip
GPU_CHOICE = {
    "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL",
}  # fmt: skip
LEAKING_NAMES = GPU_CHOICE | {
    "RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE",
    "MASTER_ADDR", "MASTER_PORT",
}  # fmt: skip
# These say how to talk to Slurm, not what to run.
NEEDED = {"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT"}


@dataclass(frozen=True)
class Now:
    """A job in the queue at this moment."""

    state: str
    restarts: int


@dataclass(frozen=True)
class Start:
    """One start of a job as accounting has it; when it began, in seconds since the epoch."""

    began: int
    state: str


def is_leak(name: str) -> bool:
    """Whether a variable of the submitting shell must not reach the job."""
    return name not in NEEDED and (name in LEAKING_NAMES or name.startswith(LEAKS))


def clean_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """`environment` without what would leak into a job."""
    return {name: value for name, value in environment.items() if not is_leak(name)}


def gpu_choice() -> dict[str, str]:
    """The variables that choose among this machine's GPUs: a leak into a job, a wish here."""
    return {name: os.environ[name] for name in GPU_CHOICE if name in os.environ}


def is_installed() -> bool:
    """Whether this machine has Slurm's programs."""
    return shutil.which("squeue") is not None


def unavailable() -> str | None:
    """Why no job can be given to Slurm from here, or None when its controller answers."""
    missing = [name for name in ("sbatch", "srun", "scontrol") if not shutil.which(name)]
    if missing:
        return f"{missing[0]} is not on PATH"
    try:
        answer = _ask(["scontrol", "ping"], PING_SECONDS)
    except WorkError as error:
        return str(error)
    if answer.returncode == 0 and "is UP" in answer.stdout:
        return None
    words = (answer.stderr.strip() or answer.stdout.strip()).splitlines()
    return f"Slurm's controller does not answer (scontrol ping: {words[-1] if words else 'silent'})"


def try_script(script: str) -> tuple[bool, str]:
    """Whether Slurm would take `script`, and its words; nothing is queued.

    Raises:
        WorkError: Slurm does not say so, for its controller does not answer.
    """
    answer = _ask(["sbatch", "--test-only"], QUERY_SECONDS, script)
    words = answer.stderr.strip()
    if answer.returncode != 0 and UNANSWERED.search(words):
        raise WorkError(words)
    return answer.returncode == 0, words


def queued_jobs(users: Iterable[str]) -> list[Job]:
    """The jobs of some users that the controller still knows, ended ones of late included.

    One query for any number of runs, elements of arrays one by one. Where squeue does not do as it
    is told (some sites put something of their own in its place) scontrol is asked.

    Raises:
        WorkError: the controller does not answer.
    """
    command = ["squeue", "--noheader", "--array", "--states=all", f"--user={','.join(users)}"]
    command.append(f"--format={queue.FORMAT}")
    answer = _ask(command, QUERY_SECONDS, SLURM_TIME_FORMAT="%s")
    if answer.returncode == 0:
        return queue.parse_squeue(answer.stdout)
    command = ["scontrol", "--oneliner", "show", "job"]
    records = _words(command, QUERY_SECONDS, SLURM_TIME_FORMAT="%s")
    if not records:
        raise WorkError(answer.stderr.strip())
    return queue.parse_scontrol(records)


def recorded_states(job_ids: Iterable[str]) -> dict[str, str]:
    """The final states of jobs that the controller has forgotten; empty where sacct is silent."""
    jobs = ",".join(job_ids)
    if not jobs or not shutil.which("sacct"):
        return {}
    command = ["sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State"]
    try:
        answer = _ask([*command, f"--jobs={jobs}"], QUERY_SECONDS)
    except WorkError:
        return {}
    if answer.returncode != 0:
        return {}
    # "CANCELLED by 1000" is a state and a user.
    rows = re.findall(r"^([^|\n]+)\|(\w+)", answer.stdout, re.MULTILINE)
    return dict(rows)


def look_at(job_id: str) -> Now | None:
    """How a job stands in the queue; None if nobody can say."""
    command = ["squeue", "--noheader", f"--jobs={job_id}", "--Format=State:40,RestartCnt:20"]
    words = _words(command).split()
    if len(words) != 2:  # an older squeue, or none on this node
        found = dict(re.findall(r"(\w+)=(\S+)", _words(["scontrol", "-o", "show", "job", job_id])))
        words = [found.get("JobState", ""), found.get("Restarts", "")]
    state, restarts = words
    return Now(state, int(restarts)) if state and restarts.isdecimal() else None


def state_and_reason(job_id: str) -> tuple[str, str]:
    """The state of a job and why it waits; both empty if nobody says so."""
    command = ["squeue", "--noheader", "--states=all", f"--jobs={job_id}", "--format=%T|%r"]
    state, _, reason = _words(command).strip().partition("|")
    return state, reason


def end_time(job_id: str, patience: float = PATIENCE_IN_A_JOB_SECONDS) -> str:
    """When the time limit of a running job is, as Slurm writes times here; empty if unknown."""
    return _words(["squeue", "--noheader", f"--jobs={job_id}", "--format=%e"], patience).strip()


def state_and_end(job_id: str, patience: float) -> str:
    """The state and the end of a job as `STATE|END`; empty if nobody says so in time.

    Slurm brings the end of a preempted job forward by the grace that it gives it.
    """
    command = ["squeue", "--noheader", f"--jobs={job_id}", "--format=%T|%e"]
    return _words(command, patience).strip()


def configuration() -> str:
    """The cluster's configuration as scontrol prints it; empty if it does not."""
    return _words(["scontrol", "show", "config"])


def partitions() -> str:
    """The partitions that you may see, one a line by scontrol; empty if it does not answer."""
    return _words(["scontrol", "--oneliner", "show", "partition"])


def nodes(partition: str, fields: str) -> list[list[str]]:
    """What sinfo says of a partition's nodes, grouped where they are alike; [] if it does not.

    `fields`: sinfo's letters; each row has a text for each of them.
    """
    form = "|".join(f"%{letter}" for letter in fields)
    command = ["sinfo", "--noheader", "--exact", f"--partition={partition}", f"--format={form}"]
    rows = [[each.strip() for each in line.split("|")] for line in _words(command).splitlines()]
    return [row for row in rows if len(row) == len(fields)]


def associations(user: str) -> list[list[str]] | None:
    """Account and QOS names of each association of a user; None where accounting is silent."""
    return _records("associations", f"user={user}", "format=account,qos")


def qualities() -> list[list[str]] | None:
    """Name and longest time of each quality of service; None where accounting is silent."""
    return _records("qos", "format=name,maxwall")


def _records(*what: str) -> list[list[str]] | None:
    words = _words(["sacctmgr", "--noheader", "--parsable2", "--readonly", "show", *what])
    return [line.split("|") for line in words.splitlines()] or None


def recorded_starts(job_id: str) -> list[Start]:
    """Every start of a job in accounting, oldest first; empty where sacct is silent."""
    command = ["sacct", "--noheader", "--parsable2", "--allocations", "--duplicates"]
    command += ["--format=Start,State", f"--jobs={job_id}"]
    rows = [line.split("|", 1) for line in _words(command, SLURM_TIME_FORMAT="%s").splitlines()]
    return [Start(int(start), state.split()[0]) for start, state in rows if start.isdecimal()]


def exclude(job_id: str, nodes: Iterable[str]) -> str | None:
    """Keep a waiting job off some nodes; returns Slurm's words if it refuses."""
    command = ["scontrol", "update", f"JobId={job_id}", f"ExcNodeList={','.join(nodes)}"]
    return _order(command)


def follow(job_id: str, script: Path, excluded: Iterable[str]) -> tuple[str, str]:
    """Queue `script` to start when a job has ended: its id, or Slurm's words if it refuses."""
    command = ["sbatch", "--parsable", f"--dependency=afterany:{job_id}"]
    nodes = ",".join(excluded)
    command += [f"--exclude={nodes}"] if nodes else []
    try:
        answer = _ask([*command, str(script), FOLLOWING], SUBMIT_IN_A_JOB_SECONDS)
    except WorkError as error:
        return "", str(error)
    if answer.returncode != 0:
        return "", answer.stderr.strip()
    return parse_job_id(answer.stdout) or "", f"sbatch answered without a job id: {answer.stdout}"


def submit(script: Path, *options: str) -> str:
    """Queue a script as it is; returns the job id. To be called uninterrupted.

    Raises:
        WorkError: Slurm refuses, in its words.
    """
    answer = _ask(["sbatch", "--parsable", *options, str(script)], patience=None)
    job = parse_job_id(answer.stdout)
    words = answer.stderr.strip() or answer.stdout.strip()
    if answer.returncode != 0:
        job = find_queued(script, words)
    if job is None:
        raise WorkError(f"Slurm refused the job: {words}")
    return job


def find_queued(script: Path, words: str) -> str | None:
    """The job of a script for which sbatch has said `words`, if Slurm has queued it all the same.

    sbatch waits for the answer of a busy controller for some seconds, and then says that it had
    none; the controller goes on. The job is known by the snapshot beside the script, in which it
    works; no other of that run lives when one is submitted.
    """
    if not UNANSWERED.search(words):
        return None
    folder = (script.parent / "code").resolve()
    for _ in range(LOOKS_FOR_A_JOB):
        with contextlib.suppress(WorkError):
            for job in queued_jobs([str(os.getuid())]):
                if job.state in QUEUED_STATES and Path(job.work_dir).resolve() == folder:
                    return job.job_id.partition("_")[0]
        time.sleep(LOOK_SECONDS)
    return None


def parse_job_id(answer: str) -> str | None:
    """The job id in what `sbatch --parsable` prints.

    A site's banner may come before it, the cluster's name after it: "123;cluster".
    """
    lines = answer.strip().splitlines()
    match = re.fullmatch(r"(\d+)(;\S+)?", lines[-1]) if lines else None
    return match.group(1) if match else None


def requeue(job_id: str) -> str | None:
    """Ask Slurm to start a running job again; returns Slurm's words if it refuses."""
    return _order(["scontrol", "requeue", job_id])


def cancel(*job_ids: str) -> None:
    """End jobs, queued or running, with one order for all of them.

    Raises:
        WorkError: Slurm refuses, in its words.
    """
    answer = _ask(["scancel", *job_ids], QUERY_SECONDS)
    if answer.returncode != 0:
        raise WorkError(answer.stderr.strip())


def _order(command: list[str]) -> str | None:
    try:
        answer = _ask(command, QUERY_SECONDS)
    except WorkError as error:
        return str(error)
    return None if answer.returncode == 0 else answer.stderr.strip() or "it did not say why"


def _words(
    command: list[str], patience: float = PATIENCE_IN_A_JOB_SECONDS, **variables: str
) -> str:
    """What a program prints; nothing if it is missing, slow or unhappy."""
    try:
        answer = _ask(command, patience, **variables)
    except WorkError:
        return ""
    return answer.stdout if answer.returncode == 0 else ""


def _ask(
    command: list[str], patience: float | None, text: str | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            input=text,
            stdin=None if text is not None else subprocess.DEVNULL,
            env=clean_environment() | variables,
            capture_output=True,
            text=True,
            errors="surrogateescape",  # squeue prints the folders of all jobs of a user
            timeout=patience,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise WorkError(f"{' '.join(command[:2])} did not answer within {patience:.0f} s") from None
    except OSError as error:
        raise WorkError(f"{command[0]}: {error.strerror}") from None
