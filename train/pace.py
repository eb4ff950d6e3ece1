"""How far the host runs ahead of a GPU."""

from __future__ import annotations

from collections import deque

import torch

STEPS_AHEAD = 2


class Pace:
    """Keeps the host close to the steps that it has given to a GPU; on a CPU it does nothing.

    A recorded step is one launch, of which the driver takes very many. The host would be through
    all steps up to the next line of the log at once and then wait for seconds in a call that no
    signal interrupts, so that a stop would come late. Instead it waits, once a step is given, for
    the end of the step two before it: the GPU is at the one between, or has this one to go on with.
    """

    def __init__(self, device: torch.device) -> None:
        self._is_on_gpu = device.type == "cuda"
        self._ends: deque[torch.cuda.Event] = deque()

    def keep(self) -> None:
        """To be called after each step is given to the device."""
        if not self._is_on_gpu:
            return
        # A blocking wait leaves the core to the threads that write and vote.
        self._ends.append(torch.cuda.current_stream().record_event(torch.cuda.Event(blocking=True)))
        if len(self._ends) > STEPS_AHEAD:
            self._ends.popleft().synchronize()
