"""The process group: who this worker is, and the few things that workers do together."""

from __future__ import annotations

import inspect
import ipaddress
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from configs.schema import Train
from train.errors import RequestError

T = TypeVar("T")

RENDEZVOUS_VARIABLES = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
)


@dataclass(frozen=True)
class Ranks:
    """This worker's place among all workers, and its device."""

    rank: int
    local_rank: int
    world_size: int
    local_world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this worker is the one that writes."""
        return self.rank == 0

    def all_reduce(self, tensor: Tensor, op: dist.ReduceOp.RedOpType = dist.ReduceOp.SUM) -> Tensor:
        """`tensor` reduced over all ranks, in place."""
        if self.world_size > 1:
            dist.all_reduce(tensor, op)
        return tensor

    def together(self, work: Callable[[], T]) -> T:
        """Do `work` on every rank; if one rank is refused, every rank raises that refusal.

        Without this, one rank would leave with a clear error and the others with a broken
        connection, and the person would have to find the one that matters.

        Raises:
            RequestError: the refusal of the lowest rank that has one.
        """
        result, refusal = None, None
        try:
            result = work()
        except RequestError as error:
            refusal = str(error)
        refusals: list[str | None] = [refusal]
        if self.world_size > 1:
            refusals = [None] * self.world_size
            dist.all_gather_object(refusals, refusal)
        for refusal in refusals:
            if refusal is not None:
                raise RequestError(refusal)
        return result  # type: ignore[return-value]  # set, for nobody was refused


@contextmanager
def process_group(train: Train) -> Iterator[Ranks]:
    """This worker's `Ranks`, inside an initialised process group when there are several workers.

    Reads the torchrun variables and nothing else of the environment's idea of a cluster.

    Raises:
        RequestError: some but not all torchrun variables are set, or `train.device` is missing.
    """
    place = read_place(dict(os.environ))
    device = choose_device(train, place["LOCAL_RANK"])
    set_threads(place["LOCAL_WORLD_SIZE"])
    ranks = Ranks(
        rank=place["RANK"],
        local_rank=place["LOCAL_RANK"],
        world_size=place["WORLD_SIZE"],
        local_world_size=place["LOCAL_WORLD_SIZE"],
        device=device,
    )
    if ranks.world_size == 1:
        yield ranks
        return

    if is_loopback(os.environ["MASTER_ADDR"]):
        # All workers share this machine, whose own name may not resolve.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    options: dict[str, Any] = {"device_id": device} if device.type == "cuda" else {}
    dist.init_process_group(
        # gloo carries what lives on the CPU (refusals, the stop flag) without a device's stream.
        backend="cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        timeout=timedelta(minutes=10),
        **options,
    )
    try:
        yield ranks
    finally:
        dist.destroy_process_group()


def read_place(environment: dict[str, str]) -> dict[str, int]:
    """The torchrun variables that are numbers; one lone process where none is set.

    Raises:
        RequestError: some of the six are set and some are not, or one is no number.
    """
    missing = [name for name in RENDEZVOUS_VARIABLES if name not in environment]
    numbers = RENDEZVOUS_VARIABLES[:4]
    if len(missing) == len(RENDEZVOUS_VARIABLES):
        return dict(zip(numbers, (0, 0, 1, 1), strict=True))
    if missing:
        raise RequestError(
            f"the environment sets some of torchrun's variables but not {', '.join(missing)}: "
            "start the worker with torchrun, with launch.py, or with none of them set"
        )
    try:
        return {name: int(environment[name]) for name in numbers}
    except ValueError:
        values = ", ".join(f"{name}={environment[name]}" for name in numbers)
        raise RequestError(f"torchrun's variables must be whole numbers: {values}") from None


def choose_device(train: Train, local_rank: int) -> torch.device:
    """The device of this worker by `train.device`.

    Slurm may have narrowed what is visible to one GPU a task or not at all: both are right.

    Raises:
        RequestError: `train.device` is cuda and no GPU answers.
    """
    if train.device == "cpu" or not torch.cuda.is_available():
        if train.device == "cuda":
            raise RequestError(
                "train.device is cuda, but torch sees no GPU here "
                f"(torch {torch.__version__}, CUDA build {torch.version.cuda}, "
                f"CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', 'not set')}): "
                "ask for a GPU node, or set train.device to auto"
            )
        return torch.device("cpu")
    device = torch.device("cuda", local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def set_threads(local_world_size: int) -> None:
    """Give torch as many threads as this worker really has cores.

    More threads than cores wait for each other actively and slow everything down many times.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    share = max(1, (cores or 1) // local_world_size)
    asked = os.environ.get("OMP_NUM_THREADS", "")
    torch.set_num_threads(min(int(asked), cores or 1) if asked.isdigit() and int(asked) else share)


def is_loopback(address: str) -> bool:
    """Whether `address` can only mean this machine."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def wrap(model: nn.Module, ranks: Ranks) -> nn.Module:
    """`model` under DistributedDataParallel, or itself for one worker.

    Batch-norm statistics are not sent around at each step: `average_buffers` makes them equal
    when they are needed.
    """
    if ranks.world_size == 1:
        return model
    # torch 2.13 renamed the switch and warns about the old one.
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    switch = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    return DistributedDataParallel(
        model,
        device_ids=[ranks.device] if ranks.device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        **{switch: False},
    )


@torch.no_grad()
def average_buffers(model: nn.Module, ranks: Ranks) -> None:
    """Replace every rank's batch-norm statistics by their mean over ranks, in one reduction."""
    if ranks.world_size == 1:
        return
    buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    flat = ranks.all_reduce(torch.cat([buffer.flatten() for buffer in buffers]))
    flat /= ranks.world_size
    parts = flat.split([buffer.numel() for buffer in buffers])
    for buffer, part in zip(buffers, parts, strict=True):
        buffer.copy_(part.view_as(buffer))
