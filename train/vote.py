"""The ranks' common decision to stop."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from train.distributed import Ranks
from train.stop import StopFlag


class StopVote:
    """Whether any rank was asked to stop, with the same answer on all ranks at the same call.

    One rank leaving alone would hang the others in their next reduction. The flags of one call
    travel on the CPU while the step runs and are looked at in the next call, so that no step waits
    for them.
    """

    def __init__(self, flag: StopFlag, ranks: Ranks) -> None:
        self._flag = flag
        self._ranks = ranks
        self._cast: tuple[Tensor, Any] | None = None
        self.has_agreed = False

    def is_agreed(self) -> bool:
        """Whether to stop here; every rank calls this equally often, until it is true."""
        self.close()
        if self._ranks.world_size == 1:
            self.has_agreed = self._flag.is_set
        elif not self.has_agreed:
            asked = torch.tensor(int(self._flag.is_set))
            self._cast = (asked, dist.all_reduce(asked, dist.ReduceOp.MAX, async_op=True))
        return self.has_agreed

    def close(self) -> None:
        """Wait for the flags that are on their way."""
        if self._cast:
            asked, work = self._cast
            work.wait()
            self.has_agreed = bool(asked)
            self._cast = None
