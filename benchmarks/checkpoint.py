"""What a save costs training, when the file is on the disk, and what a resume takes.

    python -m benchmarks.checkpoint [--resolution 224] [--batch-size 32] [--folder DIR]
        [--output benchmarks/results/checkpoint.json]

ResNet-50 with its momentum, saved as a run does: training waits for a copy in memory, a thread
writes that, with fsync and SHA-256, while the next steps run. Beside it the same state by a bare
torch.save, for which training waits and which is not on the disk when it returns: the way of
torchvision's and timm's loops. A resume finds the newest checkpoint, checks its SHA-256, and makes
model and optimizer from it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import ours, record
from train import worker
from train.session import Session, save

WORDS = {
    "step": "one step, nothing being saved",
    "pause": "training waits for a save",
    "step while writing": "one step, begun while the file is written",
    "on the disk": "from the save until the file is on the disk, steps going on",
    "on the disk, alone": "the same, no steps going on",
    "torch.save": "training would wait for a bare torch.save",
    "find": "a resume finds the checkpoint and checks it",
    "load": "a resume makes model and optimizer from it",
}


def clock(work: Any, device: torch.device) -> float:
    """Seconds of `work`, from nothing to do in this stream to nothing to do in it."""
    # Not on the whole device: the saver's stream goes on beside the next steps.
    wait = torch.cuda.current_stream(device).synchronize if device.type == "cuda" else lambda: None
    wait()
    began = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - began


def next_save(session: Session) -> None:
    """Save as after another step."""
    session.state.step += 1
    save(session)


def one_round(step: ours.OurStep, folder: Path, taken: dict[str, list[float]], steps: int) -> None:
    """Time everything once."""
    session = step.session
    device, saver = session.ranks.device, session.saver
    assert saver, "one rank, which writes"
    taken["step"] += [clock(step, device) for _ in range(steps)]

    began_at = time.time()
    pause = clock(lambda: next_save(session), device)
    while saver.is_busy:
        taken["step while writing"].append(clock(step, device))
    warning = saver.collect()
    assert warning is None, warning
    taken["pause"].append(pause)
    manifest = folder / "checkpoints" / f"step-{saver.written_step:08d}.json"
    renamed_at = manifest.stat().st_ctime  # with which the checkpoint is complete
    taken["on the disk"].append(renamed_at - began_at)

    began = time.perf_counter()
    next_save(session)
    saver.collect()
    taken["on the disk, alone"].append(time.perf_counter() - began)

    state = session.state.state_dict(session.ranks)
    bare = folder / "bare.pt"
    taken["torch.save"].append(clock(lambda: torch.save(state, bare), device))
    bare.unlink()


def resume(step: ours.OurStep, folder: Path, taken: dict[str, list[float]]) -> int:
    """Time a resume; the size of the checkpoint in bytes."""
    session = step.session
    began = time.perf_counter()
    manifest, _ = worker.find_checkpoint(folder / "checkpoints")
    taken["find"].append(time.perf_counter() - began)
    assert manifest, "one was written"

    def load() -> None:
        worker.make_state(
            folder / "checkpoints",
            session.recipe,
            session.ranks,
            manifest,
            session.batches.steps_per_epoch,
        )

    taken["load"].append(clock(load, session.ranks.device))
    return manifest.size


def main() -> None:
    """Measure, and print and write the table."""
    on_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--resolution", type=int, default=224 if on_gpu else 64)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--folder", type=Path, help="on the disk that is to be measured")
    parser.add_argument("--steps", type=int, default=20 if on_gpu else 3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()

    sizes = [f"data.resolution={args.resolution}", f"train.batch_size={args.batch_size}"]
    recipe = ours.make_recipe("finetune.yaml", sizes, None)
    taken: dict[str, list[float]] = {name: [] for name in WORDS}
    with (
        worker.process_group(recipe.train) as ranks,
        tempfile.TemporaryDirectory(dir=args.folder) as name,
    ):
        folder = Path(name)
        step = ours.start(recipe, ranks, folder)
        for _ in range(2):
            step()
        for _ in range(args.rounds):
            one_round(step, folder, taken, args.steps)
            size = resume(step, folder, taken)
        step.session.journal.close()

    usual = statistics.median(taken["step"])
    figures: dict[str, Any] = {}
    facts = record.on(ranks.device)
    title = f"{size / 1e6:.0f} MB, {args.batch_size} images of {args.resolution} px a step"
    table = Table("what", "median ms", "most ms", "steps", title=f"{title}, {facts['device']}")
    for key, text in WORDS.items():
        median, most = statistics.median(taken[key]), max(taken[key])
        figures[key] = {
            "median_ms": round(1e3 * median, 2),
            "most_ms": round(1e3 * most, 2),
            "steps": round(median / usual, 4),
        }
        table.add_row(text, f"{1e3 * median:.2f}", f"{1e3 * most:.2f}", f"{median / usual:.3f}")
    Console().print(table)
    if args.output:
        record.save(
            args.output,
            "benchmarks.checkpoint",
            ("torch", "torchvision"),
            **facts,
            resolution=args.resolution,
            batch_size=args.batch_size,
            rounds=args.rounds,
            bytes=size,
            times=figures,
        )


if __name__ == "__main__":
    main()
