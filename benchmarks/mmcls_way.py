"""How long MMClassification's way of the fine-tuning takes: some steps of it, extrapolated.

    python -m benchmarks.mmcls_way [--data-root DIR] [--steps 300] [--workers 2]
        [--output benchmarks/results/mmcls_way.json]

The settings of `finetune.yaml` in a plain loop, as MMClassification 0.x runs them: 32 images a step
in float32, contiguous, two loading processes with transforms image by image, eager steps, the loss
read every 100 steps, cuDNN choosing its algorithms without trying them; after each epoch the test
images in batches of 32. Torch's own default holds for TF32 (in convolutions, not in matrix
products).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
import torchvision
from rich.console import Console
from torch import nn

from benchmarks import record
from benchmarks.data_path import endless, loader
from benchmarks.pictures import training_images
from benchmarks.timing import wait_for
from configs import load_recipe

TRAIN_IMAGES, TEST_IMAGES = 50_000, 10_000


def main() -> None:
    """Measure some steps, extrapolate, and print and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data-root", type=Path, help="folder of the archive; without: digits")
    parser.add_argument("--set", action="append", default=[], metavar="K=V", help="of the recipe")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--warm-up", type=int, default=20, help="steps before the clock runs")
    parser.add_argument("--workers", type=int, default=2, help="loading processes")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()

    recipe = load_recipe("finetune.yaml", args.set).recipe
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    size, resolution = recipe.train.batch_size, recipe.data.resolution
    torch.backends.cudnn.benchmark = False
    model = torchvision.models.resnet50(num_classes=recipe.model.num_classes).to(device).train()
    criterion = nn.CrossEntropyLoss(label_smoothing=recipe.train.label_smoothing)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=recipe.optimizer.lr,
        momentum=recipe.optimizer.momentum,
        weight_decay=recipe.optimizer.weight_decay,
    )
    split = training_images(args.data_root)
    batches = endless(
        loader(split, resolution, size, "float32", args.workers, pin_memory=device.type == "cuda")
    )

    def take(steps: int) -> float:
        wait_for(device)
        began = time.perf_counter()
        for number in range(1, steps + 1):
            images, labels = next(batches)
            images = images.to(device, non_blocking=True)
            loss = criterion(model(images), labels.to(device, non_blocking=True))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if number % recipe.logging.every_steps == 0:
                loss.item()
        wait_for(device)
        return (time.perf_counter() - began) / steps

    @torch.no_grad()
    def score(steps: int) -> float:
        model.eval()
        wait_for(device)
        began = time.perf_counter()
        for _ in range(steps):
            images, _ = next(batches)
            model(images.to(device, non_blocking=True)).softmax(dim=1).cpu()
        return (time.perf_counter() - began) / steps

    take(args.warm_up)
    step = take(args.steps)
    test = score(max(1, args.steps // 5))
    epochs = recipe.schedule.epochs
    steps, tests = -(-TRAIN_IMAGES // size), -(-TEST_IMAGES // size)
    figures = {
        "step_ms": round(1e3 * step, 3),
        "images_per_second": round(size / step, 1),
        "test_step_ms": round(1e3 * test, 3),
        "epochs": epochs,
        "extrapolated_s": round(epochs * (steps * step + tests * test), 1),
    }
    facts = record.on(device)
    Console().print(f"MMClassification's way on {facts['device']}: {figures}")
    if args.output:
        record.save(
            args.output,
            "benchmarks.mmcls_way",
            ("torch", "torchvision", "pillow"),
            **facts,
            measured_steps=args.steps,
            batch_size=size,
            resolution=resolution,
            precision="fp32",
            loading_processes=args.workers,
            figures=figures,
        )


if __name__ == "__main__":
    main()
