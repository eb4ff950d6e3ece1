"""What a run says about its speed: where its time goes, and how near it is to the GPU's limit."""

from __future__ import annotations

from collections import Counter

import torch

from train.roofline import Tier, bytes_per_second, images_per_second_at_roofline
from train.session import Session
from train.stopwatch import step_text


def read_stopwatch(session: Session) -> None:
    """Add what the parts of the newest steps took to the interval's and to the run's account.

    Called where the host has waited for the device anyway.
    """
    interval, seconds = session.state.interval, session.state.seconds
    for part, value in session.take_step.stopwatch.read().items():
        interval.parts[part] = interval.parts.get(part, 0.0) + value
        name = f"train/{part}"
        seconds[name] = seconds.get(name, 0.0) + value


def tell_speed(session: Session, images_per_second: float) -> None:
    """Say, once for each resolution, what its steps spend their time on and how fast they are.

    Called at every training line. It waits for the second one of a resolution: the first steps of
    one are slow, for they prepare the others.

    Args:
        session: with the sums of the line's interval.
        images_per_second: of all ranks together in that interval.
    """
    interval, end = session.state.interval, session.state.step
    begin = end - interval.steps
    resolution = session.batches.resolution(end - 1)
    if begin < session.first_step or session.batches.resolution(begin) != resolution:
        return
    session.lines[resolution] += 1
    if session.lines[resolution] != 2 or not session.ranks.is_main or not interval.parts:
        return
    milliseconds = 1e3 * interval.seconds / interval.steps
    session.journal.say(
        f"steps of {resolution} px take {milliseconds:.1f} ms: {step_text(interval.parts)}"
    )
    speed = images_per_second / session.ranks.world_size
    text = roofline_text(session, resolution, speed)
    if text:
        session.journal.say(text)


def roofline_text(session: Session, resolution: int, speed: float) -> str | None:
    """How near `speed`, in images a second on one GPU, is to what its memory allows, if known."""
    limit, device = roofline(session, resolution), device_name(session)
    bandwidth = bytes_per_second(device)
    if limit is None or bandwidth is None:
        return None
    megabytes = bandwidth / limit / 1e6
    kind = "compiled" if tier_of(session) == "compiled" else "uncompiled"
    return (
        f"{speed:,.0f} images/s a GPU: {100 * speed / limit:.0f} % of its memory-bandwidth "
        f"roofline, the {limit:,.0f} at which {kind} steps of {resolution} px would "
        f"keep the memory of this {device} busy all the time ({megabytes:.0f} MB an image, "
        f"{bandwidth / 1e12:.3g} TB/s)"
    )


def speed_results(session: Session) -> dict[str, float]:
    """What results.json says about the whole run on GPUs of known bandwidth; elsewhere nothing."""
    state, ranks = session.state, session.ranks
    steps = Counter(map(session.batches.resolution, range(state.step)))
    limits = {resolution: roofline(session, resolution) for resolution in steps}
    images = session.recipe.train.batch_size / ranks.world_size  # of a step on one GPU
    least = 0.0
    for resolution, limit in limits.items():
        if limit is None:
            return {}
        least += steps[resolution] * images / limit
    seconds = state.seconds["train"]
    return {
        "images_per_second_per_gpu": state.step * images / seconds,
        "roofline_percent": 100 * least / seconds,
    }


def roofline(session: Session, resolution: int) -> float | None:
    """Images a second that one GPU's memory allows to steps as this run takes them.

    None where its bandwidth is not known, and where a part of the network is not trained.
    """
    model = session.recipe.model
    if model.freeze_stages is not None:
        return None
    device, tier = device_name(session), tier_of(session)
    return images_per_second_at_roofline(model.stem, resolution, device, dtype_of(session), tier)


def device_name(session: Session) -> str:
    """The name of the GPU, or 'cpu'."""
    device = session.ranks.device
    return "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device)


def dtype_of(session: Session) -> torch.dtype:
    """Of the activations."""
    return torch.bfloat16 if isinstance(session.autocast, torch.autocast) else torch.float32


def tier_of(session: Session) -> Tier:
    """How the layers' kernels divide a step among them."""
    return "compiled" if session.recipe.train.compile else "eager"
