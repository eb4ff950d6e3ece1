"""Slurm's reasons in words: every one that it documents, and the others as they are."""

from __future__ import annotations

import itertools

import pytest

from jobs import reasons

# From Slurm's page "Job Reason Codes", but for the limits, which are combined below.
DOCUMENTED = """
    AccountNotAllowed AccountingPolicy AssocGrpJobsLimit AssocGrpSubmitJobsLimit AssocGrpWallLimit
    AssocMaxJobsLimit AssocMaxSubmitJobLimit AssocMaxWallDurationPerJobLimit AssociationJobLimit
    AssociationResourceLimit AssociationTimeLimit BadConstraints BeginTime BurstBufferOperation
    BurstBufferResources BurstBufferStageIn Cleaning Constraints DeadLine Dependency
    DependencyNeverSatisfied FedJobLock FrontEndDown InactiveLimit InvalidAccount InvalidQOS
    JobArrayTaskLimit JobHeldAdmin JobHeldUser JobHoldMaxRequeue JobLaunchFailure Licenses
    MaxJobsPerAccount MaxMemPerLimit MaxPoweredUpNodes MaxSubmitJobsPerAccount MpiPortsBusy
    NodeDown NonZeroExitCode None OutOfMemory PartitionConfig PartitionDown PartitionInactive
    PartitionNodeLimit PartitionTimeLimit Priority Prolog QOSGrpJobsLimit QOSGrpSubmitJobsLimit
    QOSGrpWallLimit QOSJobLimit QOSMaxJobsPerUserLimit QOSMaxSubmitJobPerUserLimit
    QOSMaxWallDurationPerJobLimit QOSMinCpuNotSatisfied QOSNotAllowed QOSResourceLimit QOSTimeLimit
    QOSUsageThreshold RaisedSignal ReqNodeNotAvail Reservation ReservationDeleted ReservationInvalid
    Resources SchedDefer SystemFailure TimeLimit
    AssocGrpCPUMinutesLimit AssocGrpCPURunMinutesLimit QOSMaxCpuMinutesPerJobLimit
    QOSGrpMemoryRunMinutes MaxGRESRunMinsPerAccount MaxCpuRunMinsPerUser
"""
AMOUNTS = ("BB", "Billing", "Cpu", "Energy", "GRES", "License", "Mem", "Memory", "Node", "Unknown")
LIMITS = [
    "".join(parts)
    for parts in itertools.chain(
        itertools.product(("AssocGrp", "QOSGrp"), AMOUNTS, ("", "Minutes", "RunMinutes")),
        itertools.product(
            ("AssocMax", "QOSMax"), AMOUNTS, ("PerJob", "PerNode", "PerUser", "MinutesPerJob")
        ),
        itertools.product(("Max",), AMOUNTS, ("PerAccount", "RunMinsPerAccount")),
        itertools.product(("QOSMin",), AMOUNTS),
    )
]


@pytest.mark.parametrize("reason", [*DOCUMENTED.split(), *LIMITS])
def test_every_documented_reason_has_words(reason: str) -> None:
    words = reasons.explain(reason)

    assert " " in words
    assert reason not in words


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("AssocGrpGRES", "waits: the account's limit on GPUs is reached"),
        ("QOSMaxGRESPerUser", "waits: the QOS's limit on GPUs of one user is reached"),
        ("MaxNodePerAccount", "waits: the QOS's limit on nodes of one account is reached"),
        ("AssocGrpCPURunMinutesLimit",
         "waits: the account's limit on minutes of CPUs in running jobs is reached"),
        ("QOSMaxGRESPerJob", "asks for more GPUs than the QOS's limit; cancel it and ask for less"),
        ("QOSMaxWallDurationPerJobLimit",
         "asks for more time than the QOS's limit; cancel it and ask for less"),
        ("QOSMinGRES", "the QOS's limit demands more GPUs; cancel it and ask for more"),
        ("AssocMaxMemPerNode",
         "asks for more memory on each node than the account's limit; cancel it and ask for less"),
    ],
)  # fmt: skip
def test_a_limit_says_whose_it_is_and_what_to_do(reason: str, words: str) -> None:
    assert reasons.explain(reason) == words


def test_nodes_that_are_missing_are_named() -> None:
    for reason in (
        "ReqNodeNotAvail, UnavailableNodes:node[1-2]",
        "ReqNodeNotAvail,_UnavailableNodes:node[1-2]",
    ):
        expected = "a node that it needs is down or reserved (node[1-2])"
        assert reasons.explain(reason) == expected


@pytest.mark.parametrize("reason", ["SiteSaysNo", "licence server, ask Ann", ""])
def test_an_unknown_reason_is_shown_as_it_is(reason: str) -> None:
    assert reasons.explain(reason) == reason
