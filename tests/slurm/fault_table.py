"""The faults that doctor has to find, one by one, with the level and the remedy."""

from __future__ import annotations

from dataclasses import dataclass

from tests.slurm.faults import (
    Plant,
    configured,
    cpu_build,
    disk,
    no_weights,
    nodes_elsewhere,
    nothing,
    open_to_all,
    other_weights,
    partition,
    short_qos,
    silent_controller,
    truncated_archive,
    unreadable_archive,
    unreadable_weights,
)


@dataclass(frozen=True)
class Fault:
    """What is wrong, as a setting or a change of the site, and what doctor is to say of it.

    `remedy`: what its remedy names.
    """

    level: str
    row: str
    text: str
    remedy: str
    settings: tuple[str, ...] = ()
    plant: Plant = nothing


FAULTS = {
    "archive missing": Fault(
        "fail", "archive", "is missing", "download https://", ("data.root=elsewhere",)
    ),
    "archive truncated": Fault(
        "fail", "MD5", "is truncated or damaged", "bring it again", plant=truncated_archive
    ),
    "archive of another size": Fault(
        "fail",
        "archive",
        "the official archive 170,498,071",
        "set data.md5",
        ("data.md5=official",),
    ),
    "milestone beyond the end": Fault(
        "warn",
        "settings",
        "schedule.milestones has [150], but the run ends",
        "raise schedule.epochs",
        ("data.train_images=64", "schedule.milestones=[1, 150]"),
    ),
    "archive with another sum": Fault(
        "fail", "MD5", "data.md5 asks for 0000", "bring it again", (f"data.md5='{'0' * 32}'",)
    ),
    "archive unreadable": Fault(
        "fail", "archive", "cannot be read (Permission denied)", "right", plant=unreadable_archive
    ),
    "weights missing": Fault("fail", "weights", "is missing", "name another", plant=no_weights),
    "weights unreadable": Fault(
        "fail", "weights", "cannot be read (Permission denied)", "right", plant=unreadable_weights
    ),
    "weights that belie their name": Fault(
        "fail", "SHA-256", "of its name", "rename it", plant=other_weights
    ),
    "run root full": Fault("fail", "space", "free", "run.root", plant=disk("logs", "size=8m")),
    "run root too small": Fault(
        "warn", "space", "the run keeps 0.8 GB", "run.root", plant=disk("logs", "size=400m")
    ),
    "run root without inodes": Fault(
        "fail", "space", "more files", "run.root", plant=disk("logs", "size=2g,nr_inodes=100")
    ),
    "run root read-only": Fault(
        "fail", "run root", "cannot be written", "name a folder", plant=disk("logs", "size=2g,ro")
    ),
    "run root below a file": Fault(
        "fail", "run root", "launch.py is not a folder", "name a folder", ("run.root=launch.py/x",)
    ),
    "run root open to all": Fault(
        "warn", "run root", "can be written by everyone", "chmod o-w", plant=open_to_all
    ),
    "home full": Fault("warn", "home", "it is full", "make room", plant=disk("home", "size=1m")),
    "all on a local disk": Fault(
        "warn",
        "storage",
        "run.root, data.root, model.weights",
        "cluster.shared",
        plant=nodes_elsewhere,
    ),
    "environment on a local disk": Fault(
        "warn",
        "storage",
        "the Python environment",
        "storage that every node mounts",
        ("cluster.shared=[PROJECT]",),
        nodes_elsewhere,
    ),
    "unknown partition": Fault(
        "fail", "sbatch", "cluster.partition", "gpu (default), low", ("cluster.partition=gpus",)
    ),
    "too many GPUs": Fault(
        "fail",
        "sbatch",
        "cluster.gpus_per_node: Slurm refuses 8",
        "3 nodes with gpu:4",
        ("cluster.gpus_per_node=8",),
    ),
    "too many nodes": Fault(
        "fail", "sbatch", "cluster.nodes: Slurm refuses 4", "has 3 nodes", ("cluster.nodes=4",)
    ),
    "time over the partition's limit": Fault(
        "fail",
        "partition",
        "cluster.time_limit: 00:30:00 is over the 00:10:00",
        "set it to 00:10:00 or less",
        ("cluster.partition=low",),
        partition("low", "MaxTime=00:10:00", "MaxTime=UNLIMITED"),
    ),
    "nodes over the partition's limit": Fault(
        "fail",
        "partition",
        "cluster.nodes: 2 are over the 1",
        "set it to 1",
        ("cluster.partition=low",),
        partition("low", "MaxNodes=1", "MaxNodes=UNLIMITED"),
    ),
    "partition down": Fault(
        "warn",
        "partition",
        "is DOWN",
        "gpu (default), low",
        ("cluster.partition=low",),
        partition("low", "State=DOWN", "State=UP"),
    ),
    "unknown account, not enforced": Fault(
        "warn", "account", "no account vision", "research", ("cluster.account=vision",)
    ),
    "unknown account, enforced": Fault(
        "fail",
        "account",
        "no account vision",
        "research",
        ("cluster.account=vision",),
        configured("AccountingStorageEnforce=associations"),
    ),
    "unknown QOS": Fault("warn", "account", "quality of service", "normal", ("cluster.qos=fast",)),
    "time over the QOS's limit": Fault(
        "fail", "account", "cluster.time_limit", "ask for less", ("cluster.qos=short",), short_qos
    ),
    "requeue disabled": Fault(
        "warn", "requeue", "JobRequeue is 0", "resume", plant=configured("JobRequeue=0")
    ),
    "KillWait too short": Fault(
        "warn", "requeue", "KillWait is 5 s", "KillWait=30", plant=configured("KillWait=5")
    ),
    "no job arrays": Fault(
        "warn", "requeue", "MaxArraySize is 1", "one by one", plant=configured("MaxArraySize=1")
    ),
    "preemption that cancels": Fault(
        "warn",
        "requeue",
        "PreemptMode of partition low is CANCEL",
        "take the partition gpu",
        ("cluster.partition=low",),
        partition("low", "PreemptMode=CANCEL", "PreemptMode=REQUEUE"),
    ),
    "CPU build of torch": Fault(
        "fail",
        "torch",
        "torch 2.9.0+cpu is a build for CPUs",
        "install a CUDA build",
        ("train.device=auto",),
        cpu_build,
    ),
    "batch that cannot be shared": Fault(
        "fail", "workers", "train.batch_size: 33 images", "32 and 36", ("train.batch_size=33",)
    ),
    "option that is the launcher's": Fault(
        "fail", "workers", "cluster.sbatch.output", "remove it", ("cluster.sbatch.output=x",)
    ),
    "silent controller": Fault(
        "fail", "engine", "did not answer", "administrators", plant=silent_controller
    ),
}
