"""Checks of what Slurm itself says: its configuration, its partitions, its accounting."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass

from configs.cluster import Cluster
from jobs import controller, provenance
from jobs.deadline import KILL_WAIT_SECONDS
from jobs.finding import Finding, failed, passed, warned

# A save over a slow network, and what comes after it; jobs/deadline.py reckons with as much.
LEAST_KILL_WAIT_SECONDS = 15
UP = "UP"


@dataclass(frozen=True)
class Partition:
    """A partition as Slurm describes it; an absent field is empty."""

    name: str
    fields: dict[str, str]

    @property
    def max_seconds(self) -> int | None:
        """The longest time limit of a job; None: there is none, or nobody says."""
        return seconds(self.fields.get("MaxTime", ""))

    @property
    def is_default(self) -> bool:
        """Whether jobs go there that name none."""
        return self.fields.get("Default") == "YES"


def all_partitions() -> list[Partition]:
    """The partitions that you may see; none where Slurm is silent."""
    found = []
    for line in controller.partitions().splitlines():
        fields = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if "PartitionName" in fields:
            found.append(Partition(fields["PartitionName"], fields))
    return found


def all_settings() -> dict[str, str]:
    """Slurm's configuration, name by name; empty where Slurm is silent."""
    lines = (line.split("=", 1) for line in controller.configuration().splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, value in lines}


def chosen_partitions(cluster: Cluster, partitions: list[Partition]) -> list[Partition]:
    """The partitions that a job may go to; those that are unknown to Slurm are left out."""
    asked = cluster.sbatch.get("partition", cluster.partition)
    names = str(asked).split(",") if asked else []
    return [each for each in partitions if each.name in names or (not names and each.is_default)]


def is_one_machine(cluster: Cluster, partitions: list[Partition]) -> bool:
    """Whether all nodes that a job may run on are this machine."""
    chosen = chosen_partitions(cluster, partitions) or partitions
    hosts = {row[0] for each in chosen for row in controller.nodes(each.name, "n")}
    return bool(hosts) and hosts <= {socket.gethostname(), socket.gethostname().partition(".")[0]}


def check_partition(cluster: Cluster, partitions: list[Partition]) -> list[Finding]:
    """Limits of the partition that Slurm does not hold against a job when it is queued.

    Without EnforcePartLimits, Slurm takes such a job and lets it wait for ever.
    """
    chosen = chosen_partitions(cluster, partitions)
    if not chosen:
        return []  # sbatch says what is wrong with the name
    each = max(chosen, key=lambda one: one.max_seconds or float("inf"))
    limit = each.max_seconds
    if limit is not None and cluster.time_limit_seconds > limit:
        longer = [
            other.name
            for other in partitions
            if (other.max_seconds or float("inf")) >= cluster.time_limit_seconds
        ]
        others = f", or take the partition {' or '.join(longer)}" if longer else ""
        return [
            failed(
                f"{cluster.time_limit} is over the {each.fields['MaxTime']} of partition "
                f"{each.name}: the job would wait for ever",
                f"set it to {each.fields['MaxTime']} or less, for a run goes on in further "
                f"attempts{others}",
                "cluster.time_limit",
            )
        ]
    most = each.fields.get("MaxNodes", "")
    if most.isdecimal() and cluster.nodes > int(most):
        text = f"{cluster.nodes} are over the {most} that a job in partition {each.name} may have"
        return [failed(text, f"set it to {most} or less", "cluster.nodes")]
    state = each.fields.get("State", UP)
    if state != UP:
        text = f"partition {each.name} is {state}: jobs wait until it is {UP}"
        remedy = f"ask its administrators, or take another: {_names(partitions)}"
        return [warned(text, remedy, "cluster.partition")]
    return [passed(f"{each.name}, time limit {each.fields.get('MaxTime', 'unknown').lower()}")]


def check_nodes(cluster: Cluster, partitions: list[Partition]) -> list[Finding]:
    """What the nodes of the partition have; sbatch compares it with what is asked for."""
    chosen = chosen_partitions(cluster, partitions)
    return [passed(_sizes(chosen))] if chosen else []


def check_account(cluster: Cluster, settings: dict[str, str]) -> list[Finding]:
    """Whether accounting knows the account and the quality of service."""
    own = controller.associations(provenance.user_name())
    known = controller.qualities()
    if own is None and known is None:
        return [passed("not checked: sacctmgr does not answer")] if cluster.account else []
    enforced = settings.get("AccountingStorageEnforce", "").split(",")
    findings = []
    accounts = sorted({row[0] for row in own or []})
    if cluster.account and own is not None and cluster.account not in accounts:
        tell = failed if "associations" in enforced else warned
        remedy = f"accounts of yours: {', '.join(accounts)}; or ask for this one"
        text = f"accounting knows no account {cluster.account} of yours"
        findings.append(tell(text, remedy, "cluster.account"))
    limits = {row[0]: row[1] for row in known or []}
    if cluster.qos and limits and cluster.qos not in limits:
        tell = failed if "qos" in enforced else warned
        remedy = f"there are {', '.join(sorted(limits))}"
        text = f"accounting knows no quality of service {cluster.qos}"
        findings.append(tell(text, remedy, "cluster.qos"))
    longest = seconds(limits.get(cluster.qos or "", ""))
    if longest is not None and cluster.time_limit_seconds > longest:
        text = f"{cluster.time_limit} is over the {limits[cluster.qos or '']} of QOS {cluster.qos}"
        findings.append(failed(text, "ask for less", "cluster.time_limit"))
    return findings or [passed(f"{cluster.account or 'your default account'}")]


def check_stopping(
    cluster: Cluster, settings: dict[str, str], partitions: list[Partition]
) -> list[Finding]:
    """Whether a run that Slurm stops has the time to save and is started again."""
    if not settings:
        return [warned("scontrol show config says nothing", "look whether scontrol works here")]
    findings = []
    if settings.get("JobRequeue") == "0":
        findings.append(
            warned(
                "JobRequeue is 0: Slurm starts only those jobs again that ask for it, as these do",
                "if a run does not go on by itself after its time limit, ask the administrators "
                "whether they allow --requeue; launch.py resume goes on by hand",
            )
        )
    kill_wait = seconds_in(settings.get("KillWait", f"{KILL_WAIT_SECONDS:.0f}"))
    if kill_wait is not None and kill_wait < LEAST_KILL_WAIT_SECONDS:
        findings.append(
            warned(
                f"KillWait is {kill_wait} s: a job that Slurm ends without a warning has no more "
                "to save in",
                f"ask the administrators for KillWait={KILL_WAIT_SECONDS:.0f}; until then save "
                "often (checkpoint.every_epochs), for what comes after a save may be lost",
            )
        )
    findings += _check_preemption(cluster, settings, partitions)
    if settings.get("MaxArraySize") in ("0", "1"):
        text = f"MaxArraySize is {settings['MaxArraySize']}: this cluster has no job arrays"
        findings.append(warned(text, "start the runs of a sweep one by one"))
    return findings or [
        passed(f"saves and goes on: KillWait {kill_wait} s, arrays to {settings['MaxArraySize']}")
    ]


def _check_preemption(
    cluster: Cluster, settings: dict[str, str], partitions: list[Partition]
) -> list[Finding]:
    if settings.get("PreemptType", "preempt/none") == "preempt/none":
        return []
    findings = []
    for each in chosen_partitions(cluster, partitions):
        mode = each.fields.get("PreemptMode", settings.get("PreemptMode", ""))
        if "CANCEL" in mode or "SUSPEND" in mode:
            what = "ends jobs for good" if "CANCEL" in mode else "stops jobs while they hold GPUs"
            others = [
                other.name
                for other in partitions
                if not re.search("CANCEL|SUSPEND", other.fields.get("PreemptMode", ""))
            ]
            take = f"take the partition {' or '.join(others)}, or " if others else ""
            findings.append(
                warned(
                    f"PreemptMode of partition {each.name} is {mode}: it {what} when others need "
                    "their place",
                    f"{take}go on with launch.py resume after a preemption",
                    "cluster.partition",
                )
            )
    return findings


def hint(key: str, cluster: Cluster, partitions: list[Partition]) -> str:
    """What there is to have here of what `key` asks for; empty if Slurm does not say."""
    name = key.removeprefix("cluster.")
    chosen = chosen_partitions(cluster, partitions)
    if name == "partition":
        return f"there are {_names(partitions)}" if partitions else ""
    if name in ("nodes", "gpus_per_node", "cpus_per_gpu", "mem_gb", "constraint") and chosen:
        return f"partition {' and '.join(each.name for each in chosen)} has {_sizes(chosen)}"
    if name == "time_limit" and chosen:
        return f"partition {chosen[0].name} has a limit of {chosen[0].fields.get('MaxTime')}"
    if name == "account":
        rows = controller.associations(provenance.user_name()) or []
        return f"accounts of yours: {', '.join(sorted({row[0] for row in rows}))}" if rows else ""
    if name == "qos":
        rows = controller.qualities() or []
        return f"there are {', '.join(sorted({row[0] for row in rows}))}" if rows else ""
    return ""


def seconds(text: str) -> int | None:
    """A time as Slurm writes limits: [days-]hours:minutes:seconds or minutes:seconds; else None."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if not match:
        return None
    days, hours, minutes, rest = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


def seconds_in(text: str) -> int | None:
    """The number of `30 sec`; None where there is none."""
    match = re.match(r"\d+", text)
    return int(match.group()) if match else None


def _names(partitions: list[Partition]) -> str:
    return ", ".join(each.name + " (default)" * each.is_default for each in partitions)


def _sizes(partitions: list[Partition]) -> str:
    """What the nodes have, such as `3 nodes with gpu:4, 8 CPUs, 64 GB`."""
    kinds = []
    for each in partitions:
        for number, gres, cpus, megabytes in controller.nodes(each.name, "DGcm"):
            gpus = "no GPUs" if gres in ("(null)", "") else re.sub(r"\(.*?\)", "", gres)
            memory = (seconds_in(megabytes) or 0) // 1000
            nodes = "1 node" if number == "1" else f"{number} nodes"
            kinds.append(f"{nodes} with {gpus}, {cpus} CPUs, {memory} GB")
    return "; ".join(kinds) or "nodes that Slurm does not describe"
