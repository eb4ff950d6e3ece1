"""The process group: who this worker is, and the few things that workers do together."""

from __future__ import annotations

import inspect
import ipaddress
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import distributed_c10d
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from configs.schema import Train
from train.errors import RequestError

T = TypeVar("T")

# The first step waits for compilers, caches and slow nodes. Later a rank that keeps the others
# waiting for so long is dead.
START_TIMEOUT_SECONDS = 600.0
STEP_TIMEOUT_SECONDS = 120.0

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
    """This worker's place among all workers, and its device.

    `trouble`: what is wrong with the device. `has_bf16`: whether all workers have GPUs that compute
    in bf16 by themselves; if one has not, none is to use it, for scores would depend on who gave
    them. `some_have_bf16`: whether any does.
    """

    rank: int
    local_rank: int
    world_size: int
    local_world_size: int
    device: torch.device
    trouble: str | None = None
    has_bf16: bool = False
    some_have_bf16: bool = False

    @property
    def is_main(self) -> bool:
        """Whether this worker is the one that writes."""
        return self.rank == 0

    def all_reduce(self, tensor: Tensor, op: dist.ReduceOp.RedOpType = dist.ReduceOp.SUM) -> Tensor:
        """`tensor` reduced over all ranks, in place."""
        if self.world_size > 1:
            dist.all_reduce(tensor, op)
        return tensor

    def all_gather(self, tensor: Tensor) -> Tensor:
        """Every rank's `tensor` (n,), which have one shape, as rows (ranks, n) by rank."""
        if self.world_size == 1:
            return tensor[None]
        rows = [torch.empty_like(tensor) for _ in range(self.world_size)]
        dist.all_gather(rows, tensor)
        return torch.stack(rows)

    def gather_objects(self, value: T) -> list[T]:
        """Every rank's `value`, by rank."""
        values: list[Any] = [value]
        if self.world_size > 1:
            values = [None] * self.world_size
            dist.all_gather_object(values, value)
        return values

    def from_main(self, work: Callable[[], T]) -> T:
        """What `work` gives on rank 0, on every rank.

        Raises:
            RequestError: rank 0 was refused.
        """
        return self.gather_objects(self.together(lambda: work() if self.is_main else None))[0]  # type: ignore[return-value]

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
        for text in self.gather_objects(refusal):
            if text is not None:
                raise RequestError(text)
        return result  # type: ignore[return-value]  # set, for nobody was refused

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.world_size > 1:
            dist.barrier()

    def set_timeout(self, seconds: float) -> None:
        """How long a collective call may take from now on before the process group gives up."""
        if self.world_size > 1:
            # Private until torch 2.15.
            change = getattr(dist, "set_timeout", None) or distributed_c10d._set_pg_timeout
            change(timedelta(seconds=seconds))


@contextmanager
def process_group(train: Train) -> Iterator[Ranks]:
    """This worker's `Ranks`, inside an initialised process group when there are several workers.

    Reads the torchrun variables and nothing else of the environment's idea of a cluster.

    Raises:
        RequestError: torchrun's variables are set in part, or make no sense together.
    """
    place = read_place(dict(os.environ))
    device, trouble = choose_device(train, place["LOCAL_RANK"])
    set_threads(place["LOCAL_WORLD_SIZE"])
    ranks = Ranks(
        rank=place["RANK"],
        local_rank=place["LOCAL_RANK"],
        world_size=place["WORLD_SIZE"],
        local_world_size=place["LOCAL_WORLD_SIZE"],
        device=device,
        trouble=trouble,
        has_bf16=has_bf16(device),
    )
    if ranks.world_size == 1:
        yield ranks
        return

    if is_loopback(os.environ["MASTER_ADDR"]) and sys.platform == "linux":
        # All workers share this machine, whose own name may not resolve.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    timeout = timedelta(seconds=START_TIMEOUT_SECONDS)
    store, _, _ = next(rendezvous("env://", timeout=timeout))
    gpus = exchange(store, ranks, "gpu", gpu_uuid(device) or "none")
    able = exchange(store, ranks, "bf16", "yes" if ranks.has_bf16 else "no")
    ranks = replace(ranks, has_bf16="no" not in able, some_have_bf16="yes" in able)
    options: dict[str, Any] = {}
    if "none" not in gpus and len(set(gpus)) == ranks.world_size:
        # gloo carries what lives on the CPU (refusals, the stop flag) without a device's stream.
        options = {"backend": "cpu:gloo,cuda:nccl", "device_id": device}
    else:
        # Also where some worker has no GPU of its own: NCCL would hang before anybody could say so.
        options = {"backend": "gloo"}
    dist.init_process_group(
        store=store, rank=ranks.rank, world_size=ranks.world_size, timeout=timeout, **options
    )
    yield ranks
    # Not after an exception: NCCL would wait here for peers that wait for this rank, and the
    # traceback would come when they give up.
    dist.destroy_process_group()


def exchange(store: Any, ranks: Ranks, about: str, word: str) -> list[str]:
    """Every rank's `word`, by rank, before there is a process group."""
    store.set(f"{about}/{ranks.rank}", word)
    return [store.get(f"{about}/{rank}").decode() for rank in range(ranks.world_size)]


def has_bf16(device: torch.device) -> bool:
    """Whether a device is a GPU that computes in bf16 by itself."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def gpu_uuid(device: torch.device) -> str | None:
    """What no two GPUs have in common, on whatever nodes; None for a CPU."""
    if device.type != "cuda":
        return None
    return str(torch.cuda.get_device_properties(device).uuid)


def read_place(environment: dict[str, str]) -> dict[str, int]:
    """The torchrun variables that are numbers; one lone process where none is set.

    Raises:
        RequestError: some of the six are set and some are not, or they contradict each other.
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
        place = {name: int(environment[name]) for name in numbers}
        int(environment["MASTER_PORT"])
    except ValueError:
        place = {}
    if not place or not (
        0 <= place["LOCAL_RANK"] < place["LOCAL_WORLD_SIZE"] <= place["WORLD_SIZE"]
        and 0 <= place["RANK"] < place["WORLD_SIZE"]
    ):
        values = ", ".join(f"{name}={environment[name]}" for name in RENDEZVOUS_VARIABLES)
        raise RequestError(f"torchrun's variables make no sense together: {values}")
    return place


def choose_device(train: Train, local_rank: int) -> tuple[torch.device, str | None]:
    """The device of this worker by `train.device`, and what is wrong with it, if anything.

    Slurm may have narrowed what is visible to one GPU a task or not at all: both are right. A GPU
    that does not answer is not refused here: the start-up check knows whether other nodes have one.
    """
    cpu = torch.device("cpu")
    if train.device == "cpu":
        return cpu, None
    if torch.cuda.is_available():
        device = torch.device("cuda", local_rank % torch.cuda.device_count())
        try:
            torch.cuda.set_device(device)
            # One stream for all that this process does, and not the default one, which no CUDA
            # graph can hold: DDP binds its gradients to the stream that it is made in.
            torch.cuda.set_stream(torch.cuda.Stream(device))
            torch.zeros(1, device=device)
        except RuntimeError as error:
            return cpu, f"has a GPU that fails ({str(error).splitlines()[0]})"
        return device, None
    if train.device == "auto":
        return cpu, None
    return cpu, (
        f"has no GPU that answers, but train.device is cuda (torch {torch.__version__}, CUDA build "
        f"{torch.version.cuda}, CUDA_VISIBLE_DEVICES="
        f"{os.environ.get('CUDA_VISIBLE_DEVICES', 'not set')})"
    )


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


def wrap(
    model: nn.Module, ranks: Ranks, example: Tensor, gradients: Literal["fp32", "bf16"] = "fp32"
) -> nn.Module:
    """`model` under DistributedDataParallel, or itself for one worker.

    Batch-norm statistics are not sent around at each step: `average_buffers` makes them equal
    when they are needed.

    `example` is any input (2 or more, 3, height, width); the model is as before after it.
    `gradients` is the type in which they travel.
    """
    if ranks.world_size == 1:
        return model
    # torch 2.13 renamed the switch and warns about the old one.
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    switch = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    # Copied before DDP gives every rank the statistics of rank 0.
    before = [buffer.clone() for buffer in model.buffers()]
    wrapped = DistributedDataParallel(
        model,
        device_ids=[ranks.device] if ranks.device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        static_graph=True,  # every step uses every parameter, so DDP need not look each time
        **{switch: False},
    )
    if gradients == "bf16":
        wrapped.register_comm_hook(dist.group.WORLD, bf16_compress_hook)
    # After its first backward pass DDP groups the gradients anew, by the order in which they came,
    # and sums in groups differ in their last bits. Two passes that change nothing bring every
    # attempt to the lasting groups before its first step, so that resuming is exact.
    for _ in range(2):
        wrapped(example).sum().backward()
    for buffer, value in zip(model.buffers(), before, strict=True):
        buffer.copy_(value)
    model.zero_grad(set_to_none=True)
    return wrapped


@torch.no_grad()
def average_buffers(model: nn.Module, ranks: Ranks) -> None:
    """Replace every rank's batch-norm statistics by their mean over ranks, in one reduction.

    Those of frozen norms are equal, and stay as they are to the last bit.
    """
    moving = [
        module
        for module in model.modules()
        if any(parameter.requires_grad for parameter in module.parameters(recurse=False))
    ]
    found = (buffer for module in moving for buffer in module.buffers(recurse=False))
    buffers = [buffer for buffer in found if buffer.is_floating_point()]
    if ranks.world_size == 1 or not buffers:
        return
    flat = ranks.all_reduce(torch.cat([buffer.flatten() for buffer in buffers]))
    flat /= ranks.world_size
    parts = flat.split([buffer.numel() for buffer in buffers])
    for buffer, part in zip(buffers, parts, strict=True):
        buffer.copy_(part.view_as(buffer))
