"""What a run says about its speed."""

from __future__ import annotations

import contextlib
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from configs.schema import Recipe
from tests.train.runs import changed
from train import speed
from train.roofline import images_per_second_at_roofline
from train.session import Session

H200 = "NVIDIA H200"


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def session(said: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Step 600 of a run on two H200: 300 steps of 128 px, then 224 px."""
    monkeypatch.setattr(speed, "device_name", lambda _: H200)
    parts = {"data": 0.5, "forward_backward": 9.0, "optimizer": 0.5}
    interval = SimpleNamespace(steps=100, seconds=10.0, parts=parts)
    return SimpleNamespace(
        recipe=changed(Recipe(), "train", batch_size=1000),
        ranks=SimpleNamespace(world_size=2, is_main=True),
        batches=SimpleNamespace(resolution=lambda step: 128 if step < 300 else 224),
        state=SimpleNamespace(step=600, interval=interval, seconds={"train": 40.0}),
        autocast=torch.autocast("cpu", torch.bfloat16),
        journal=SimpleNamespace(say=said.append),
        first_step=0,
        lines=Counter(),
    )


def lines_until(session: Session, last: int) -> None:
    for step in range(100, last + 1, 100):
        session.state.step = step
        speed.tell_speed(session, 10_000.0)


def test_speed_is_told_at_the_second_line_of_each_resolution(
    session: Session, said: list[str]
) -> None:
    lines_until(session, 600)

    assert said == [
        "steps of 128 px take 100.0 ms: data 5.0 %, forward and backward 90.0 %, optimizer 5.0 %",
        "5,000 images/s a GPU: 16 % of its memory-bandwidth roofline, the 31,017 at which "
        "uncompiled steps of 128 px would keep the memory of this NVIDIA H200 busy all the time "
        "(155 MB an image, 4.8 TB/s)",
        "steps of 224 px take 100.0 ms: data 5.0 %, forward and backward 90.0 %, optimizer 5.0 %",
        "5,000 images/s a GPU: 49 % of its memory-bandwidth roofline, the 10,128 at which "
        "uncompiled steps of 224 px would keep the memory of this NVIDIA H200 busy all the time "
        "(474 MB an image, 4.8 TB/s)",
    ]


def test_an_interval_with_two_resolutions_or_two_attempts_is_let_pass(
    session: Session, said: list[str]
) -> None:
    session.first_step = 50
    session.batches.resolution = lambda step: 128 if step < 350 else 224
    lines_until(session, 300)
    assert [text[:15] for text in said] == ["steps of 128 px", "5,000 images/s "]
    assert session.lines == {128: 2}
    lines_until(session, 400)
    assert 224 not in session.lines


def test_results_weigh_each_resolution_by_its_steps(session: Session) -> None:
    small, large = (images_per_second_at_roofline("imagenet", side, H200) for side in (128, 224))
    least = 300 * 500 / small + 300 * 500 / large

    assert speed.speed_results(session) == {
        "images_per_second_per_gpu": 7500.0,
        "roofline_percent": pytest.approx(100 * least / 40),
    }


def test_compiled_steps_and_fp32_have_their_own_rooflines(session: Session) -> None:
    eager = speed.roofline(session, 224)
    session.recipe = changed(session.recipe, "train", compile=True)
    compiled = speed.roofline(session, 224)
    session.autocast = contextlib.nullcontext()

    assert eager < compiled == 2 * speed.roofline(session, 224)


@pytest.mark.parametrize("reason", ["frozen stages", "an unknown device"])
def test_nothing_is_said_where_the_roofline_is_not_known(
    session: Session, said: list[str], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason == "frozen stages":
        session.recipe = changed(session.recipe, "model", freeze_stages=1)
    else:
        monkeypatch.setattr(speed, "device_name", lambda _: "cpu")
    lines_until(session, 200)

    assert [text[:15] for text in said] == ["steps of 128 px"]
    assert speed.speed_results(session) == {}
