"""The profiler's trace of a few steps: where it is, what is in it, and that it changes nothing."""

from __future__ import annotations

import errno
import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from configs.schema import Recipe
from tests.train.runs import changed, results
from tests.train.test_step import step_on
from train.profiling import Tracer, check_is_whole, first_traced_step, make_tracer
from train.step import make_step

Attempt = Callable[..., bool]
# The names by which torch-tb-profiler knows a trace, and its worker.
PLUGIN_PATTERN = re.compile(r"^(.*?)(\.\d+)?\.pt\.trace\.json(?:\.gz)?$")


@pytest.fixture
def recipe(recipe: Recipe) -> Recipe:
    """One epoch of five steps."""
    recipe = changed(changed(recipe, "schedule", epochs=1), "logging", profile_steps=2)
    return changed(recipe, "data", train_images=40, test_images=4)


def events(trace: Path) -> list[dict[str, Any]]:
    return json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]


def test_a_profiled_run_has_a_trace_of_each_rank_and_the_weights_of_an_unprofiled_one(
    recipe: Recipe, make_run: Callable[..., Path], attempt: Attempt
) -> None:
    run_dir, plain = (
        make_run(recipe),
        make_run(changed(recipe, "logging", profile_steps=0), "plain"),
    )
    assert attempt(run_dir, 2)
    assert attempt(plain, 2)

    assert results(run_dir)["weights_sha256"] == results(plain)["weights_sha256"]
    assert not (plain / "profile").exists()
    traces = sorted((run_dir / "profile").iterdir())
    assert [PLUGIN_PATTERN.match(trace.name)[1] for trace in traces] == ["rank-000", "rank-001"]
    for rank, trace in enumerate(traces):
        named = [event.get("name", "") for event in events(trace)]
        steps = [name for name in named if name.startswith("ProfilerStep#")]
        assert sorted(steps) == ["ProfilerStep#1", "ProfilerStep#2"]
        assert sum(name.startswith("Optimizer.step#SGD") for name in named) == 2
        assert named.count("DistributedDataParallel.forward") == 2
        log = (run_dir / f"rank-{rank}.log").read_text()
        assert f"profile: steps 4 to 5 are in {trace}: open it at https://ui.perfetto.dev" in log


def test_an_interrupted_trace_is_made_by_the_next_attempt_and_a_whole_one_never_again(
    recipe: Recipe, make_run: Callable[..., Path], attempt: Attempt
) -> None:
    recipe = changed(changed(recipe, "schedule", epochs=2), "logging", profile_steps=1)
    run_dir = make_run(recipe)
    trace = run_dir / "profile" / "rank-000.pt.trace.json.gz"
    assert not attempt(run_dir, looks=3)  # with the profiler already started
    assert not trace.exists()
    assert not attempt(run_dir, looks=5)
    made = trace.read_bytes()
    assert attempt(run_dir)

    assert trace.read_bytes() == made
    log = (run_dir / "rank-0.log").read_text()
    assert log.count("profile: steps 7 to 7 are in") == 1
    assert log.count("profile: steps") == 1
    assert f"profile: there is one from an earlier attempt: {trace}" in log


def always(resolution: int) -> Callable[[int], int]:
    return lambda step: resolution


@pytest.mark.parametrize(
    ("first", "total", "epoch", "resolution", "count", "begin"),
    [
        (0, 100, 100, always(64), 5, 3),
        (7, 100, 100, always(64), 5, 10),
        (0, 8, 100, always(64), 5, 3),
        (0, 7, 100, always(64), 5, None),
        (0, 100, 5, always(64), 3, 5),  # not 3, 4, 5: an evaluation comes before the last
        (0, 100, 2, always(64), 3, 3),  # one comes anyway
        (0, 100, 100, lambda step: 64 if step < 5 else 128, 3, 8),  # not 3, 4, 5
        (0, 100, 100, lambda step: 64 if step < 5 else 128, 2, 3),
        (0, 10, 10, lambda step: step, 1, None),
    ],
)
def test_traced_steps_are_warm_alike_and_without_an_evaluation(
    first: int,
    total: int,
    epoch: int,
    resolution: Callable[[int], int],
    count: int,
    begin: int | None,
) -> None:
    batches = SimpleNamespace(steps_per_epoch=epoch, resolution=resolution)
    session = SimpleNamespace(batches=batches, first_step=first, total_steps=total)

    assert first_traced_step(session, count) == begin


@pytest.mark.parametrize(
    ("count", "taken", "words"),
    [(0, 0, []), (2, 4, []), (2, 0, ["warning: logging.profile_steps is 2, but after a warm-up"])],
)
def test_a_run_of_four_steps_has_none_to_trace_and_says_so_if_it_was_asked(
    recipe: Recipe, tmp_path: Path, count: int, taken: int, words: list[str]
) -> None:
    said: list[str] = []
    session = SimpleNamespace(
        recipe=changed(recipe, "logging", profile_steps=count),
        batches=SimpleNamespace(steps_per_epoch=100, resolution=always(32)),
        ranks=SimpleNamespace(rank=0),
        state=SimpleNamespace(step=taken),
        journal=SimpleNamespace(say=said.append),
        first_step=taken,
        total_steps=4,
    )

    assert make_tracer(tmp_path, session) is None
    assert [text[: len(word)] for text, word in zip(said, words, strict=True)] == words
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.gpu
def test_the_kernels_of_recorded_steps_are_in_the_trace_and_replays_go_on(tmp_path: Path) -> None:
    step = make_step(step_on(torch.device("cuda", 0)), lambda _: None)
    tracer = Tracer(tmp_path / "profile" / "trace.json.gz", begin=3, count=2)
    for number in range(8):
        step(number, 0.01)
        tracer.step(number + 1)
    torch.cuda.synchronize()

    kernels = [event for event in events(tracer.path) if event.get("cat") == "kernel"]
    assert len(kernels) > 2 * 53  # the convolutions alone, in each step


@pytest.mark.parametrize("text", ['{"traceEvents": [', "", None])
def test_a_trace_that_torch_could_not_write_whole_is_found_out(
    tmp_path: Path, text: str | None
) -> None:
    trace = tmp_path / "trace.json"
    if text is not None:
        trace.write_text(text)
    with pytest.raises(OSError, match="No space left on device") as caught:
        check_is_whole(trace)

    assert caught.value.errno == errno.ENOSPC
