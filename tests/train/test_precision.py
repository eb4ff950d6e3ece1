"""One precision for all workers, whatever GPUs they have."""

from __future__ import annotations

from typing import Any

import pytest

from configs.schema import Train
from tests.train.conftest import in_processes
from train import distributed


def _has_bf16(rank: int, able: list[bool]) -> bool:
    """What a rank is told of all, where it knows this of itself."""
    distributed.has_bf16 = lambda _: able[rank]
    with distributed.process_group(Train(device="cpu")) as ranks:
        ranks.barrier()
        return ranks.has_bf16


@pytest.mark.parametrize(("able", "told"), [([True, False], False), ([True, True], True)])
def test_bf16_is_for_all_workers_or_for_none(workers: Any, able: list[bool], told: bool) -> None:
    assert in_processes(workers, 2, _has_bf16, able) == [told, told]


def test_one_worker_alone_knows_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "has_bf16", lambda _: True)

    with distributed.process_group(Train(device="cpu")) as ranks:
        assert ranks.has_bf16
