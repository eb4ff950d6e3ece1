"""What Slurm's words in a job's log say about its end."""

from __future__ import annotations

import pytest

from jobs.told import interpret

ENDED = "slurmstepd: error: *** JOB 12 ON node1 CANCELLED AT 2026-11-23T12:00:00"
STEP_ENDED = "slurmstepd: error: *** STEP 12.0 ON node1 CANCELLED AT 2026-11-23T12:00:00"


@pytest.mark.parametrize(
    ("cause", "told"),
    [
        ("", "cancelled"),
        (" DUE TO TIME LIMIT", "time limit"),
        (" DUE TO PREEMPTION", "preemption"),
        (" DUE TO JOB REQUEUE", "requeued"),
        (" DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS", "node failure"),
        (" DUE TO A REASON OF LATER RELEASES", None),
    ],
)
def test_each_cause_that_slurm_gives_is_known(cause: str, told: str | None) -> None:
    assert interpret(f"{STEP_ENDED} ***\n{ENDED}{cause} ***\n") == told


def test_of_two_causes_the_first_one_counts() -> None:
    lines = [f"{ENDED} DUE TO {cause} ***" for cause in ("PREEMPTION", "TIME LIMIT")]

    assert interpret("\n".join(lines)) == "preemption"


def test_the_end_of_a_step_is_no_cause() -> None:
    assert interpret(f"{STEP_ENDED} DUE TO TIME LIMIT ***\n") is None
