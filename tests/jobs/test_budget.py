"""When a run may go on by itself, from the ledger alone."""

from __future__ import annotations

import pytest

from jobs import budget
from jobs.ledger import Attempt, Reason


def attempts(*ends: tuple[Reason, int | None], afresh: tuple[int, ...] = (0,)) -> list[Attempt]:
    """Ended attempts by their reasons and the steps they had saved."""
    return [
        Attempt(
            number + 1, "7", number, ["n"], "", end="", reason=reason, workers=1,
            saved_step=saved, afresh=number in afresh,
        )
        for number, (reason, saved) in enumerate(ends)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([], None),
        (attempts(("crash", 1), ("crash", 2)), None),
        (attempts(("crash", 1), ("crash", 2), ("out of memory", 3)), "3 crashes"),
        (attempts(("crash", 1), ("preemption", 2), ("crash", 3), ("lost", 4)), "3 crashes"),
        (attempts(*[("time limit", step) for step in range(1, 50)]), None),
        (attempts(("time limit", 5), ("preemption", 5)), None),
        (attempts(("time limit", 5), ("preemption", 5), ("node failure", 5)), "no progress"),
        (attempts(("preemption", None), ("preemption", None)), "nothing was saved"),
        (attempts(("unfit node", None)), None),
        (attempts(("unfit node", None), ("unfit node", None)), "unfit a second time"),
        (attempts(("configuration error", None)), "request is wrong"),
        (attempts(("cancelled", 4)), "cancelled"),
    ],
)
def test_a_run_ends_when_its_budget_is_used_up(
    entries: list[Attempt], expected: str | None
) -> None:
    objection = budget.objection(entries, max_crashes=3)

    assert (objection is None) == (expected is None)
    assert expected is None or expected in str(objection)


def test_budgets_count_from_the_attempt_that_a_person_started() -> None:
    ends: list[tuple[Reason, int | None]] = [("crash", 1), ("crash", 1), ("crash", 1), ("crash", 1)]

    assert budget.objection(attempts(*ends[:3]), 3)
    assert budget.objection(attempts(*ends, afresh=(0, 3)), 3) is None


def test_lines_of_an_older_launcher_count_as_progress() -> None:
    old = Attempt(1, "7", 0, ["n"], "", end="", reason="lost")

    assert budget.objection([old, old], max_crashes=3) is None
