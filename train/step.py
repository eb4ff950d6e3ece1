"""One optimizer step on this rank: run as it is, or recorded once as a CUDA graph and replayed.

A ResNet-50 step is some 1,500 short GPU kernels. Started one by one from Python they take longer
than they run on a fast GPU; a graph starts them all with one call.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor, nn

from configs import Recipe
from configs.steps import tail_steps
from train.batches import Draw, TrainBatches
from train.distributed import Ranks
from train.errors import RequestError
from train.loss import smoothed_cross_entropy
from train.optim import set_learning_rate
from train.state import TrainState
from train.stopwatch import Stopwatch, step_text

# DDP reads its timers in its first ten passes, which nothing may do while a graph is recorded; one
# more and it is done (https://docs.pytorch.org/docs/stable/notes/cuda.html, "CUDA Graphs").
WARM_UP_STEPS = 11

# The last of these, which libraries have done preparing, say where an eager step's time goes.
TIMED_STEPS = 5

# A replayed step must move the weights as the eager one does, up to the rounding of sums whose
# order on a GPU changes from run to run.
TOLERANCE = 0.05


@dataclass
class Step:
    """One optimizer step on this rank's share of a batch, micro-batch by micro-batch.

    `wrapped` is `state.model` as it is called, under DDP when there are several ranks.
    """

    recipe: Recipe
    ranks: Ranks
    batches: TrainBatches
    state: TrainState
    wrapped: nn.Module
    autocast: AbstractContextManager[None]
    stopwatch: Stopwatch = field(init=False)

    def __post_init__(self) -> None:
        self.stopwatch = Stopwatch(self.ranks.device)
        if self.ranks.world_size > 1:
            # The first layer's gradient is the last one: from there on a step only waits until
            # the gradients of all ranks are added up.
            first = next(each for each in self.state.model.parameters() if each.requires_grad)
            first.register_hook(lambda _: self.stopwatch.lap("forward_backward"))

    def __call__(self, step: int, lr: float) -> None:
        """Take `step` (from 0) with the learning rate `lr`."""
        began = time.perf_counter()
        self.stopwatch.start()
        draw = self.batches.share(step).to(self.ranks.device)
        self.set_learning_rate(step, lr)
        self.state.interval.data_seconds += time.perf_counter() - began
        self.run(draw, self.batches.resolution(step))
        self.state.interval.count(len(draw.indices))

    def run(self, draw: Draw, resolution: int) -> None:
        """All that the device does in a step; nothing here waits for it or asks what it found.

        Args:
            draw: of this rank, on its device.
            resolution: side in pixels of the images that the network sees.
        """
        began = time.perf_counter()
        images, labels = self.batches.render(draw, resolution)
        self.state.interval.data_seconds += time.perf_counter() - began
        self.stopwatch.lap("data")
        size = self.recipe.train.micro_batch_size or len(images)
        parts = list(zip(images.split(size), labels.split(size), strict=True))
        self.state.optimizer.zero_grad(set_to_none=True)
        for number, (part, targets) in enumerate(parts, start=1):
            # Gradients add up on each rank and travel once, with the last micro-batch.
            waits = number < len(parts) and self.ranks.world_size > 1
            with self.wrapped.no_sync() if waits else contextlib.nullcontext():
                with self.autocast:
                    logits = self.wrapped(part)
                loss = smoothed_cross_entropy(logits, targets, self.recipe.train.label_smoothing)
                (loss / len(parts)).backward()
                alone = self.ranks.world_size == 1
                self.stopwatch.lap("forward_backward" if alone else "all_reduce")
            self.state.interval.add(loss, len(part), draw.step)
        self.state.optimizer.step()
        if self.state.average:
            self.state.average.update(draw.step)
        self.stopwatch.lap("optimizer")

    def close(self) -> None:
        """Nothing: an eager step holds nothing that outlives it."""

    def set_learning_rate(self, step: int, lr: float) -> None:
        """Have `step` (from 0) taken with the learning rate `lr` by all that it trains."""
        total = self.batches.total_steps
        in_tail = step >= total - tail_steps(self.recipe.schedule, total)
        set_learning_rate(self.state.optimizer, lr, in_tail=in_tail)


class GraphedStep:
    """A `Step` that is recorded once for each resolution and then replayed.

    Every value that changes from step to step lies in a tensor that the graph reads: the draw, and
    the learning rate in the optimizer's groups. What a first replay does to the weights is compared
    with what the eager step does; where it differs, or nothing can be recorded, steps are eager.

    Args:
        step: the step, on a GPU and in a stream that is not the default one.
        say: takes a sentence for the log.

    Raises:
        RequestError: of several ranks, one cannot record a step. DDP is then left in the middle of
            it, so that no eager step can follow.
    """

    def __init__(self, step: Step, say: Callable[[str], None]) -> None:
        self._step = step
        self._say = say
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Draw]] = {}
        self._is_possible = True

    @property
    def stopwatch(self) -> Stopwatch:
        """The times of what is outside a graph, and of each graph as a whole."""
        return self._step.stopwatch

    def __call__(self, step: int, lr: float) -> None:
        """Take `step` (from 0) with the learning rate `lr`."""
        resolution = self._step.batches.resolution(step)
        self.stopwatch.start()
        if self._is_possible and resolution not in self._graphs:
            self._is_possible = self._record(step, resolution)
            self.stopwatch.lap("recording")
        if not self._is_possible:
            self._step(step, lr)
            return
        began = time.perf_counter()
        graph, inputs = self._graphs[resolution]
        draw = self._step.batches.share(step)
        inputs.fill(draw)
        self._step.set_learning_rate(step, lr)
        self._step.state.interval.data_seconds += time.perf_counter() - began
        self.stopwatch.lap("data")
        graph.replay()
        self.stopwatch.lap("replay")
        self._step.state.interval.count(len(draw.indices))

    def close(self) -> None:
        """Let the graphs go: NCCL ends no process group that one of them still refers to."""
        torch.cuda.synchronize()
        for graph, _ in self._graphs.values():
            graph.reset()
        self._graphs.clear()

    def _record(self, step: int, resolution: int) -> bool:
        """Record the graph of `resolution` and try it; the state is as before. Whether it holds."""
        began = time.perf_counter()
        ranks, state = self._step.ranks, self._step.state
        inputs = self._step.batches.share(step).to(ranks.device)
        # At its highest: late in a run a step is lost in the rounding of the weights.
        set_learning_rate(state.optimizer, self._step.recipe.optimizer.lr)
        data_seconds = state.interval.data_seconds
        stopwatch, self._step.stopwatch = self._step.stopwatch, Stopwatch(ranks.device)
        before = [tensor.detach().clone() for tensor in state.tensors()]
        graph, eager = torch.cuda.CUDAGraph(), list[Tensor]()

        def record() -> None:
            eager.append(self._warm_up(inputs, resolution, before))
            self._capture(graph, inputs, resolution)

        def replay() -> str | None:
            restore(state.tensors(), before)
            graph.replay()
            difference = float((eager[0] - self._moved(before)).norm() / eager[0].norm())
            if difference <= TOLERANCE:  # which no NaN is
                return None
            return f"its step differs from the eager one by {difference:.1%}"

        problem = self._problem_of_any(record)
        if problem and ranks.world_size > 1:
            raise RequestError(
                f"no CUDA graph can be recorded: {problem}: set train.cuda_graph to false"
            )
        # Not before all have one: a replayed all-reduce waits for the others without end.
        problem = problem or self._problem_of_any(replay)
        restore(state.tensors(), before)
        state.interval.data_seconds = data_seconds
        parts, self._step.stopwatch = self._step.stopwatch.read(), stopwatch
        state.optimizer.zero_grad(set_to_none=True)
        if problem:
            self._say(
                f"warning: steps are eager, for no CUDA graph can be recorded: {problem}: set "
                "train.cuda_graph to false, for the try may keep the memory that it has taken"
            )
            return False
        self._graphs[resolution] = (graph, inputs)
        seconds = time.perf_counter() - began
        self._say(
            f"steps of {resolution} px: one CUDA graph, recorded in {seconds:.1f} s; in the last "
            f"{TIMED_STEPS} steps before it the time went to {step_text(parts)}"
        )
        return True

    def _problem_of_any(self, work: Callable[[], str | None]) -> str | None:
        """Do `work` on all ranks; the problem that the first of those that have one has."""
        try:
            problem = work()
        except (RuntimeError, AssertionError) as error:
            # The end of a recording that has failed raises an error of its own over the cause.
            cause: BaseException = error
            while cause.__context__:
                cause = cause.__context__
            problem = (str(cause) or repr(cause)).splitlines()[0]
        return next(filter(None, self._step.ranks.gather_objects(problem)), None)

    def _warm_up(self, inputs: Draw, resolution: int, before: list[Tensor]) -> Tensor:
        """Let every library choose its kernels; what the first of these steps did to the weights.

        In the stream that the graph is recorded in, as recording demands of whatever ran before it.
        """
        self._step.run(inputs, resolution)
        moved = self._moved(before)
        for left in reversed(range(WARM_UP_STEPS - 1)):
            if left == TIMED_STEPS - 1:
                self.stopwatch.start()
            self._step.run(inputs, resolution)
        self.stopwatch.stop()  # for nothing may be timed while a graph is recorded
        return moved

    def _capture(self, graph: torch.cuda.CUDAGraph, inputs: Draw, resolution: int) -> None:
        # Graphs never run at the same time and keep nothing for each other, so they share memory.
        pool = next((other.pool() for other, _ in self._graphs.values()), None)
        self._step.state.optimizer.zero_grad(set_to_none=True)
        # Of this thread alone: NCCL and the saver call the driver from theirs meanwhile.
        with torch.cuda.graph(
            graph,
            pool=pool,
            stream=torch.cuda.current_stream(),
            capture_error_mode="thread_local",
        ):
            self._step.run(inputs, resolution)

    def _moved(self, before: list[Tensor]) -> Tensor:
        """How far every weight is from where it was: float32 (n,)."""
        parameters = list(self._step.state.model.parameters())
        # `tensors()` begins with the parameters, in this order.
        pairs = zip(parameters, before, strict=False)
        return torch.cat([(now.detach() - then).flatten() for now, then in pairs])


def restore(tensors: list[Tensor], values: list[Tensor]) -> None:
    """Give `tensors` their `values` again; those that came since then are zero again.

    A momentum that SGD has not made yet and one of zeros lead to the same step.
    """
    with torch.no_grad():
        for tensor, value in zip(tensors, values, strict=False):
            tensor.copy_(value)
        for tensor in tensors[len(values) :]:
            tensor.zero_()


def make_step(step: Step, say: Callable[[str], None]) -> Step | GraphedStep:
    """`step` as it is best taken on its device, said in one line."""
    reason = reason_for_eager(step)
    if reason is None:
        return GraphedStep(step, say)
    say(f"steps are eager, not one CUDA graph: {reason}")
    return step


def reason_for_eager(step: Step) -> str | None:
    """Why no CUDA graph is tried; None where one is."""
    if step.ranks.device.type != "cuda":
        return f"the device is a {step.ranks.device.type.upper()}"
    if not step.recipe.train.cuda_graph:
        return "train.cuda_graph is false"
    if step.ranks.world_size > 1 and "nccl" not in dist.get_backend_config():
        return "gradients travel through the host, for workers share a GPU or have none"
    return None
