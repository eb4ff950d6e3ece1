"""A GPU always has a step to go on with, and the host is never far ahead of it."""

from __future__ import annotations

import pytest
import torch

from train.pace import STEPS_AHEAD, Pace

CYCLES = 200_000_000  # a tenth of a second


@pytest.mark.gpu
def test_the_host_is_two_steps_ahead_of_a_gpu_and_no_more(gpu: torch.device) -> None:
    pace = Pace(gpu)
    ends = []
    torch.cuda.synchronize()
    for _ in range(6):
        torch.cuda._sleep(CYCLES)
        ends.append(torch.cuda.current_stream().record_event())
        pace.keep()

        behind, ahead = ends[:-STEPS_AHEAD], ends[-STEPS_AHEAD:]
        assert all(end.query() for end in behind)
        assert not ahead[-1].query()


def test_on_a_cpu_nothing_is_waited_for() -> None:
    pace = Pace(torch.device("cpu"))

    for _ in range(2 * STEPS_AHEAD):
        pace.keep()
