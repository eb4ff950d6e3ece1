"""Whether mmpretrain loads our export and says the same of the same images, and the way back.

    python -m benchmarks.mmpretrain_parity [--run DIR]... [--data ROOT]
        [--output benchmarks/results/mmpretrain_parity.json]

Each run's newest checkpoint is exported as mmcls; without one, models with random weights of both
stems are. mmpretrain builds the network and the preparation of images from the configuration in
that file, loads the file with its own loader, told to be strict, and reads the images from PNG
files. The logits of both programs are compared. Back: mmpretrain trains a ResNet-50 for one epoch
of two steps, under two schedules, and train.weights reads the checkpoints that its runner writes.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.record import save
from configs.continuation import shaping
from configs.schema import Data, Model, Recipe
from train import checkpoint, facts, writers
from train.dataset import load_dataset
from train.errors import RequestError
from train.model import build_model
from train.photos import read_photo
from train.prediction import read_model
from train.weights import load_weights

PACKAGES = ("torch", "torchvision", "pillow", "mmpretrain", "mmengine", "mmcv-lite")
INSTALL = """mmpretrain cannot be imported here. In an environment of its own:
  pip install --no-deps mmpretrain==1.2.0 mmengine==0.10.7 mmcv-lite==2.2.0
  pip install einops addict yapf termcolor opencv-python-headless mat4py model-index \\
    'importlib-metadata<9'"""
CLASSES = [f"class {number}" for number in range(10)]
TOLERANCE = 1e-4
# The state of the second one holds more than tensors and numbers.
SCHEDULES: dict[str, Any] = {
    "constant": None,
    "step": {"type": "MultiStepLR", "milestones": [15], "gamma": 0.1},
}


def make_run(folder: Path, stem: str, resolution: int) -> Path:
    """A run directory with a checkpoint of random weights, none at its initial value."""
    recipe = Recipe(data=Data(resolution=resolution), model=Model(stem=stem))
    model = build_model(recipe.model, seed=1)
    generator = torch.Generator().manual_seed(2)
    for name, value in model.state_dict().items():
        if value.is_floating_point() and value.dim() == 1:
            noise = torch.rand(value.shape, generator=generator)
            value.copy_(0.5 + noise if name.endswith(("weight", "var")) else noise - 0.5)
    last = {"accuracy_top-1": 10.0, "accuracy_top-5": 50.0, "epoch": 1, "step": 1}
    state = {"model": model.state_dict(), "optimizer": {}, "step": 1, "last": last}
    state |= {"recipe": shaping(recipe), "epoch": 1, "classes": CLASSES}
    run_dir = folder / "random weights" / stem
    checkpoint.write(run_dir / "checkpoints", state, score=10.0, keep_last=1)
    return run_dir


def write_images(folder: Path, data: str | None, count: int) -> list[Path]:
    """PNG files of the first test images or, without data, of noise."""
    if data:
        section = Data(root=data, md5="none")
        pixels = load_dataset(section, torch.device("cpu")).test.images[:count]
    else:
        generator = torch.Generator().manual_seed(3)
        pixels = torch.randint(256, (count, 32, 32, 3), dtype=torch.uint8, generator=generator)
    paths = []
    for number, image in enumerate(pixels):
        path = folder / f"class {number % 2}" / f"{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy()).save(path)
        paths.append(path)
    return paths


@contextlib.contextmanager
def heard() -> Any:
    """What mmpretrain prints and logs in the block, which is all that its loader tells."""
    words = io.StringIO()
    handler = logging.StreamHandler(words)
    logging.getLogger("mmengine").addHandler(handler)
    with contextlib.redirect_stdout(words), contextlib.redirect_stderr(words):
        yield words
    logging.getLogger("mmengine").removeHandler(handler)


def compare(run_dir: Path, exported: Path, images: list[Path]) -> dict[str, Any]:
    """One row: what mmpretrain's loader reports of our export, and how far the logits differ."""
    import numpy as np
    from mmengine.config import Config
    from mmengine.runner import load_checkpoint
    from mmpretrain.apis import ImageClassificationInferencer, init_model

    writers.export(run_dir, "mmcls", exported, best=False)
    content = torch.load(exported, weights_only=True)
    config = Config.fromstring(content["meta"]["cfg"], ".py")
    with heard() as words:
        theirs = init_model(config, str(exported), device="cpu")
    told = [line for line in words.getvalue().splitlines() if "key" in line or "size" in line]
    load_checkpoint(theirs, str(exported), map_location="cpu", strict=True)
    loaded = theirs.state_dict()
    saved: dict[str, Tensor] = content["state_dict"]
    equal = [name for name, value in saved.items() if torch.equal(loaded[name], value)]

    inferencer = ImageClassificationInferencer(theirs, device="cpu")
    rows = []
    with torch.no_grad():
        names = [str(path) for path in images]
        for batch in inferencer.preprocess(names, batch_size=len(names)):
            prepared = theirs.data_preprocessor(batch[1] if isinstance(batch, tuple) else batch)
            rows.append(theirs(prepared["inputs"], mode="tensor"))
    their_logits = torch.cat(rows)
    predictor = read_model(exported, {})
    ours = predictor.logits(np.stack([read_photo(path) for path in images]))
    said = inferencer(names, batch_size=len(names))
    labels = [predictor.usage.classes[index] for index in ours.argmax(dim=1).tolist()]
    return {
        "model": run_dir.parent.name,
        "stem": predictor.usage.model.stem,
        "resolution": predictor.usage.data.resolution,
        "reported_by_loader": told,
        "entries": len(saved),
        "equal_entries": len(equal),
        "unfilled_entries": len(loaded.keys() - saved.keys()),
        "images": len(images),
        "largest_logit": float(ours.abs().max()),
        "largest_logit_difference": float((ours - their_logits).abs().max()),
        "equal_classes": sum(a == each["pred_class"] for a, each in zip(labels, said, strict=True)),
    }


def train_theirs(folder: Path, images: Path, schedule: str) -> dict[str, Any]:
    """What train.weights makes of the checkpoint that mmpretrain's runner writes."""
    from mmengine.config import Config
    from mmengine.runner import Runner

    text = writers.mmpretrain_config(
        facts.of_a_run({"recipe": shaping(Recipe(data=Data(resolution=32)))}),
        {"fc.bias": torch.zeros(2)},
    )
    config = Config.fromstring(text, ".py")
    config.merge_from_dict(
        {
            "default_scope": "mmpretrain",
            "work_dir": str(folder),
            "test_dataloader": None,
            "train_dataloader": {
                "batch_size": 8,
                "num_workers": 0,
                "sampler": {"type": "DefaultSampler", "shuffle": True},
                "dataset": {
                    "type": "CustomDataset",
                    "data_root": str(images),
                    "pipeline": config.test_pipeline,
                    "indices": 16,
                },
            },
            "train_cfg": {"by_epoch": True, "max_epochs": 1},
            "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.01, "momentum": 0.9}},
            "param_scheduler": SCHEDULES[schedule],
            "default_hooks": {"logger": {"type": "LoggerHook", "interval": 1}},
        }
    )
    with heard():
        runner = Runner.from_cfg(config)
        runner.train()
    theirs = {
        name.removeprefix("backbone.").removeprefix("head."): value
        for name, value in runner.model.state_dict().items()
    }
    row = {"schedule": schedule, "entries": len(theirs)}
    ours = build_model(Model(num_classes=2), seed=0)
    try:
        account = load_weights(ours, folder / "epoch_1.pth")
    except RequestError as error:
        words = str(error).replace(f"{folder}/", "")
        return row | {"equal_entries": 0, "account": f"refused: {words}"}
    equal = [name for name, value in ours.state_dict().items() if torch.equal(value, theirs[name])]
    return row | {"equal_entries": len(equal), "account": account.summary()}


def main() -> int:
    """Compare, and print and write the table; exit code 1 where something differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--run", type=Path, action="append", help="run directory to export")
    parser.add_argument("--data", metavar="ROOT", help="take its test images, not noise")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    try:
        import mmpretrain  # noqa: F401  # whether it is there, before anything is made
    except ImportError as error:
        print(f"{INSTALL}\n({error})", file=sys.stderr)
        return 2

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = write_images(folder / "images", args.data, args.images)
        made = args.run or [make_run(folder, "imagenet", 224), make_run(folder, "cifar", 32)]
        found = [
            compare(run_dir, folder / f"{number}.pth", images)
            for number, run_dir in enumerate(made)
        ]
        back = [train_theirs(folder / name, folder / "images", name) for name in SCHEDULES]

    table = Table("model", "entries equal", "images", "largest logit", "difference", "same class")
    for row in found:
        table.add_row(
            f"{row['model']}, {row['stem']} stem, {row['resolution']} px",
            f"{row['equal_entries']} of {row['entries']}",
            str(row["images"]),
            f"{row['largest_logit']:.3f}",
            f"{row['largest_logit_difference']:.1e}",
            f"{row['equal_classes']} of {row['images']}",
        )
    console = Console()
    console.print(table)
    reports = [line for row in found for line in row["reported_by_loader"]]
    console.print(
        f"mmpretrain's loader reports: {reports or 'nothing missing, nothing unexpected'}"
    )
    for row in back:
        told = f"{row['equal_entries']} of {row['entries']} entries equal; {row['account']}"
        console.print(f"back, {row['schedule']} schedule: {told}")
    if args.output:
        save(args.output, "benchmarks.mmpretrain_parity", PACKAGES, export=found, back=back)
    is_equal = all(
        row["equal_entries"] == row["entries"]
        and not row["unfilled_entries"]
        and not row["reported_by_loader"]
        and row["equal_classes"] == row["images"]
        and row["largest_logit_difference"] <= TOLERANCE * max(1.0, row["largest_logit"])
        for row in found
    )
    is_read = all(row["equal_entries"] == row["entries"] for row in back)
    return 0 if is_equal and is_read else 1


if __name__ == "__main__":
    sys.exit(main())
