"""Why Slurm lets a job wait, in words.

Slurm's own list, "Job Reason Codes", has some two hundred entries. Most of them are combinations
(whose limit, on what, on how much of it), and so are their words here.
"""

from __future__ import annotations

import re

WORDS = {
    "None": "waits for the scheduler to look at it",
    "WaitingForScheduling": "waits for the scheduler to look at it",
    "SchedDefer": "waits for the scheduler to look at it",
    "Resources": "waits for free nodes",
    "Priority": "waits behind jobs of higher priority",
    "BeginTime": "held back until its start time, after a requeue for two minutes",
    "Cleaning": "waits until its last start is cleaned up",
    "Prolog": "its nodes are being prepared",
    "JobArrayTaskLimit": "waits its turn in the sweep (cluster.array_parallelism)",
    "Dependency": "waits for another job",
    "DependencyNeverSatisfied": "waits for a job that did not end as asked; cancel it",
    "Licenses": "waits for a license",
    "Reservation": "waits for its reservation to begin",
    "ReservationDeleted": "its reservation was deleted; cancel it and ask for another",
    "ReservationInvalid": "its reservation cannot be used; cancel it and ask for another",
    "BurstBufferResources": "waits for room in the burst buffer",
    "BurstBufferStageIn": "waits for its files to reach the burst buffer",
    "BurstBufferOperation": "the burst buffer failed; ask an administrator",
    "FedJobLock": "waits for the other clusters of the federation",
    "MpiPortsBusy": "waits for free MPI ports",
    "MaxPoweredUpNodes": "waits: as many nodes are powered up as the site allows",
    "PowerNotAvail": "waits for electric power",
    "PowerReserved": "waits for electric power that is reserved",
    "ReqNodeNotAvail": "a node that it needs is down or reserved",
    "Nodes required for job are DOWN": "waits for nodes that are down or reserved for others",
    "NodeDown": "a node that it needs is down",
    "FrontEndDown": "no front-end node is up",
    "PartitionDown": "its partition takes no jobs for now",
    "PartitionInactive": "its partition starts no jobs for now",
    "PartitionNodeLimit": "asks for more nodes than its partition has or allows",
    "PartitionTimeLimit": "its time limit is over the partition's; cancel it and ask for less",
    "PartitionConfig": "its partition does not allow what it asks for; cancel it and change that",
    "BadConstraints": "no node has what it asks for; cancel it and ask for less",
    "Constraints": "no node has what it asks for; cancel it and ask for less",
    "DeadLine": "cannot end before its deadline",
    "JobHeldUser": "held; release it with scontrol release",
    "JobHeldAdmin": "held by an administrator",
    "JobHoldMaxRequeue": "held after too many requeues; release it with scontrol release",
    "launch failed requeued held": "could not be started on its nodes and is held; "
    "release it with scontrol release",
    "JobLaunchFailure": "could not be started on its nodes",
    "SystemFailure": "Slurm or a file system failed",
    "InactiveLimit": "the site's limit for inactive jobs was reached",
    "NonZeroExitCode": "ended with an error",
    "RaisedSignal": "was ended by a signal",
    "TimeLimit": "reached its time limit",
    "OutOfMemory": "ran out of memory",
    "AccountNotAllowed": "its partition does not allow the account; cancel it and use another",
    "InvalidAccount": "its account is not valid; cancel it and use another",
    "AccountingPolicy": "waits: a limit of the account or the QOS is reached",
    "AssociationJobLimit": "waits: too many jobs of the account run",
    "AssociationResourceLimit": "waits: a limit of the account is reached",
    "AssociationTimeLimit": "waits: the account's limit on time is reached",
    "InvalidQOS": "its QOS is not valid; cancel it and use another",
    "QOSNotAllowed": "its partition does not allow the QOS; cancel it and use another",
    "QOSJobLimit": "waits: too many jobs of the QOS run",
    "QOSResourceLimit": "waits: a limit of the QOS is reached",
    "QOSTimeLimit": "waits: the QOS's limit on time is reached",
    "QOSUsageThreshold": "waits: the account has used too much for the QOS",
    "QOSMaxJobsPerUserLimit": "waits: too many jobs of yours run",
    "MaxMemPerLimit": "asks for more memory of a node or core than the site allows",
}
WHOSE = {"Assoc": "the account's", "QOS": "the QOS's", "": "the QOS's"}
WHAT = {
    "cpu": "CPUs",
    "mem": "memory",
    "memory": "memory",
    "node": "nodes",
    "gres": "GPUs",
    "energy": "energy",
    "license": "licenses",
    "bb": "burst buffer",
    "billing": "billing units",
    "unknown": "some resource",
    "job": "running jobs",
    "submitjob": "submitted jobs",
    "wall": "time",
    "wallduration": "time",
}
SPAN = {"": "{}", "minutes": "minutes of {}", "runminutes": "minutes of {} in running jobs"}
LIMIT = re.compile(
    r"(?P<whose>Assoc|QOS|)(?P<kind>Grp|Max|Min)"
    rf"(?P<what>{'|'.join(sorted(WHAT, key=len, reverse=True))})s?"
    r"(?P<span>(?:Run)?Min(?:ute)?s|)(?:Per(?P<per>Job|Node|User|Account))?"
    r"(?:Limit|NotSatisfied)?",
    re.IGNORECASE,
)


def explain(reason: str) -> str:
    """Slurm's reason in words; one that is not known here as it is."""
    said = reason.replace("_", " ").strip()
    # What follows a comma names nodes: "ReqNodeNotAvail, UnavailableNodes:node2".
    name, _, detail = said.partition(",")
    words = WORDS.get(name) or _explain_limit(name) or name
    nodes = re.search(r"UnavailableNodes:(\S+)", detail)
    if nodes:
        return f"{words} ({nodes[1]})"
    return words if words != name else said


def _explain_limit(name: str) -> str | None:
    match = LIMIT.fullmatch(name)
    if match is None:
        return None
    span = SPAN[match["span"].lower().replace("mins", "minutes")]
    what = span.format(WHAT[match["what"].lower()])
    whose, per = WHOSE[match["whose"]], (match["per"] or "").lower()
    if match["kind"] == "Min":
        return f"{whose} limit demands more {what}; cancel it and ask for more"
    if match["kind"] == "Max" and (per in ("job", "node") or what == "time"):
        each = " on each node" if per == "node" else ""
        return f"asks for more {what}{each} than {whose} limit; cancel it and ask for less"
    of_one = f" of one {per}" if per else ""
    return f"waits: {whose} limit on {what}{of_one} is reached"
