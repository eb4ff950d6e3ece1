"""A step, recorded and replayed: the same as the eager one, and nothing waits for the GPU.

The tests on a GPU are all of the engine that a machine without one cannot try:
`python -m pytest -m gpu`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from configs.schema import Data, Model, Optimizer, Recipe, Run, Schedule, Train
from tests.train.steps import waiting_refused
from train.batches import TrainBatches
from train.cache import Split
from train.compilation import compile_model
from train.distributed import Ranks
from train.images import to_input
from train.model import build_model
from train.optim import make_optimizer
from train.state import Interval, TrainState
from train.step import GraphedStep, Step, make_step, restore

CPU = torch.device("cpu")
RECIPE = Recipe(
    run=Run(seed=3),
    data=Data(resolution=64),
    optimizer=Optimizer(lr=0.01, nesterov=True),
    train=Train(batch_size=16, label_smoothing=0.1),
)


@pytest.fixture
def nccl(gpu: torch.device) -> Iterator[None]:
    """A process group of this process alone."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}
    dist.init_process_group("nccl", rank=0, world_size=1, device_id=gpu)
    yield
    dist.destroy_process_group()


def step_on(
    device: torch.device,
    recipe: Recipe = RECIPE,
    autocast: AbstractContextManager[None] | None = None,
) -> Step:
    """A step of a fresh state on 64 random images."""
    source = torch.Generator().manual_seed(1)
    pixels = torch.randint(256, (64, 32, 32, 3), dtype=torch.uint8, generator=source)
    split = Split(pixels.to(device), (torch.arange(64) % 10).to(device))
    batches = TrainBatches(split, recipe, rank=0, world_size=1)
    model = build_model(Model(zero_init_residual=False), seed=0).to(device)
    optimizer = make_optimizer(model, recipe.optimizer)
    state = TrainState(model, optimizer, Interval.empty(device))
    ranks = Ranks(rank=0, local_rank=0, world_size=1, local_world_size=1, device=device)
    return Step(recipe, ranks, batches, state, model, autocast or contextlib.nullcontext())


def values(step: Step) -> list[torch.Tensor]:
    return [tensor.detach().clone() for tensor in step.state.tensors()]


def test_all_that_a_step_changes_is_listed_and_restored() -> None:
    """Also after the very first step, which makes the momentum."""
    step = step_on(CPU)
    before = values(step)
    step(0, 0.01)
    first = values(step)
    assert len(first) == len(before) + len(list(step.state.model.parameters()))

    restore(step.state.tensors(), before)
    step.state.interval.reset()
    step(0, 0.01)
    assert all(map(torch.equal, values(step), first))

    step(1, 0.02)
    assert not any(map(torch.equal, step.state.model.parameters(), first))
    restore(step.state.tensors(), first)
    assert all(map(torch.equal, values(step), first))


def test_the_log_says_why_steps_are_eager() -> None:
    said: list[str] = []
    step = step_on(CPU)

    assert make_step(step, said.append) is step
    assert said == ["steps are eager, not one CUDA graph: the device is a CPU"]


def test_of_a_failed_recording_the_cause_is_told_not_what_followed_from_it() -> None:
    class Recording:
        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None:
            raise RuntimeError("operation failed due to a previous error\nmore of it")

    def record() -> None:
        with Recording():
            raise AssertionError("the cause\nand where")  # torch has some of these

    graphed = GraphedStep(step_on(CPU), print)

    assert graphed._problem_of_any(record) == "the cause"


def test_what_is_compiled_is_kept_in_a_folder_of_this_user_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", "/chosen/by/hand")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    model = torch.nn.Linear(2, 2)

    compiled = compile_model(model, tmp_path)

    [folder] = tmp_path.iterdir()
    assert (folder.name, folder.stat().st_mode & 0o777) == (f".compiled-{os.getuid()}", 0o700)
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(folder / "inductor")
    assert os.environ["TRITON_CACHE_DIR"] == "/chosen/by/hand"
    assert {id(value) for value in compiled.parameters()} == {id(v) for v in model.parameters()}


@pytest.mark.gpu
@pytest.mark.parametrize("micro_batch_size", [None, 8])
def test_replayed_steps_follow_the_eager_ones(
    gpu: torch.device, micro_batch_size: int | None
) -> None:
    """Over many steps and a changing learning rate; in fp32, where sums differ least."""
    train = RECIPE.train.model_copy(update={"micro_batch_size": micro_batch_size})
    recipe = RECIPE.model_copy(update={"train": train})
    eager, said = step_on(gpu, recipe), list[str]()
    recorded = step_on(gpu, recipe)
    graphed = make_step(recorded, said.append)
    assert isinstance(graphed, GraphedStep)

    for step in range(8):
        for each in (eager, graphed):
            each(step, 0.01 * (step + 1) / 8)

    assert said[0].startswith("steps of 64 px: one CUDA graph"), said
    losses = [float(each.state.interval.loss_sum) for each in (eager, recorded)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert recorded.state.interval.images == eager.state.interval.images == 8 * 16
    assert int(recorded.state.model.bn1.num_batches_tracked) == 8 * (16 // (micro_batch_size or 16))


@pytest.mark.gpu
def test_replayed_steps_mix_images_and_change_the_resolution_as_the_eager_ones(
    gpu: torch.device,
) -> None:
    """Four steps of 32 px, then four of 64; the first six are mixed."""
    recipe = RECIPE.model_copy(
        update={
            "data": Data(resolution=64, mixup=0.2, cutmix=1.0, mix_until=0.75),
            "schedule": Schedule(epochs=2, resolution=[(0.5, 32)]),
        }
    )
    eager, said = step_on(gpu, recipe), list[str]()
    recorded = step_on(gpu, recipe)
    graphed = make_step(recorded, said.append)
    for step in range(8):
        for each in (eager, graphed):
            each(step, 0.005)

    assert [text.partition(":")[0] for text in said] == ["steps of 32 px", "steps of 64 px"], said
    losses = [float(each.state.interval.loss_sum) for each in (eager, recorded)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.gpu
def test_recorded_steps_reduce_with_nccl(gpu: torch.device, nccl: None) -> None:
    step, said = step_on(gpu), list[str]()
    step.wrapped = DistributedDataParallel(
        step.state.model, device_ids=[gpu], gradient_as_bucket_view=True, static_graph=True
    )
    graphed = make_step(step, said.append)

    for number in range(4):
        graphed(number, 0.01)
    graphed.close()

    assert said[0].startswith("steps of 64 px: one CUDA graph"), said


@pytest.mark.gpu
def test_no_step_waits_for_the_gpu(gpu: torch.device) -> None:
    """Eager and replayed, in bf16, from the draw to the sums of the log."""
    autocast = torch.autocast("cuda", torch.bfloat16)
    eager = step_on(gpu, autocast=autocast)
    graphed = make_step(step_on(gpu, autocast=autocast), print)
    for each in (eager, graphed):
        for number in range(2):
            each(number, 0.01)
    with waiting_refused():
        for each in (eager, graphed):
            for number in range(2, 6):
                each(number, 0.01)


@pytest.mark.gpu
def test_a_step_that_cannot_be_recorded_is_eager_and_the_log_says_so(gpu: torch.device) -> None:
    class Asking(torch.nn.Module):
        def __init__(self, inner: torch.nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            assert float(images.mean()) < 1e9  # waits for the device, which no graph can
            return self.inner(images)

    step, said = step_on(gpu), list[str]()
    step.wrapped = Asking(step.state.model)
    before = values(step)
    graphed = make_step(step, said.append)
    graphed(0, 0.01)

    assert said[0].startswith("warning: steps are eager"), said
    assert step.state.interval.steps == 1
    assert not torch.equal(values(step)[0], before[0])


@pytest.mark.gpu
def test_images_are_made_in_under_a_hundredth_of_a_step(gpu: torch.device) -> None:
    """At 224 px, in bf16, replayed: the time of the two by the device's clock."""
    recipe = RECIPE.model_copy(
        update={"data": Data(resolution=224), "train": Train(batch_size=256)}
    )
    step = step_on(gpu, recipe, torch.autocast("cuda", torch.bfloat16))
    graphed = make_step(step, print)
    draw = step.batches.share(0).to(gpu)

    def milliseconds(work: object, times: int) -> float:
        assert callable(work)
        work()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(times):
            work()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / times

    whole = milliseconds(lambda: graphed(0, 1e-6), 20)
    images = milliseconds(lambda: step.batches.render(draw, 224), 20)
    print(f"a step {whole:.2f} ms, of which its images {images:.3f} ms")
    assert images < 0.01 * whole
    assert to_input(step.batches.split.images[:2], recipe.data, 224).shape == (2, 3, 224, 224)
