"""Everything that one GPU has to show, in one run of under ten minutes.

    python -m benchmarks.gpu --data-root DIR --weights FILE --output DIR [--parts PART ...]

Parts run one after the other, each as a process of its own with a limit, the most important ones
first; each writes its file as it goes, so that a cut-off leaves what was done. `--parts` chooses
others, for a further run:

    throughput     synthetic data, 224, 160 and 128 px, 256, 512 and 128 images: graph, eager, peers
    finetune_fast  time and accuracy over seeds
    notes          finetune.yaml as it was run before, some steps, extrapolated
    finetune       finetune.yaml in this engine, one seed
    scratch_fast   time and accuracy, one seed
    compiled       torch.compile at 224 px, 256 images (not in a first run: it compiles for a minute)
    real           throughput with images being loaded (likewise)
    data_path      what an image costs a core (likewise)
    checkpoint     pause and write time (likewise)

`--small` has every part at a tiny size, on a CPU if need be, to see that all of it runs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

PROJECT = Path(__file__).resolve().parents[1]
FIRST = ("throughput", "finetune_fast", "notes", "finetune", "scratch_fast")
# Seconds that a part may take where more are left; and how long it may take to end after that.
LIMITS = {
    "throughput": 120.0,
    "finetune_fast": 170.0,
    "notes": 40.0,
    "finetune": 220.0,
    "scratch_fast": 130.0,
    "compiled": 150.0,
    "real": 120.0,
    "data_path": 60.0,
    "checkpoint": 60.0,
}
SECONDS_TO_END = 20.0
LEAST_SECONDS = 20.0
TINY_THROUGHPUT = ["--resolutions", "32", "--batch-sizes", "4", "--rounds", "1", "--block-seconds", "0"]
TINY_RUN = [
    f"--set={override}"
    for override in (
        "data.train_images=16",
        "data.test_images=8",
        "data.resolution=32",
        "train.batch_size=8",
        "train.micro_batch_size=null",
        "train.max_steps=4",
        "evaluate.batch_size=8",
        "logging.every_steps=2",
    )
]


def commands(args: argparse.Namespace) -> dict[str, list[str]]:
    """The module and arguments of each part, without the file that it writes."""
    data = [] if args.data_root is None else ["--data-root", str(args.data_root)]
    sizes = ["--resolutions", "224", "160", "128", "--batch-sizes", "256", "512", "128"]
    quick = ["--rounds", "3", "--block-seconds", "0.3"]
    one = ["--resolutions", "224", "--batch-sizes", "256"]
    if args.small:
        sizes = quick = one = TINY_THROUGHPUT
    images = [*(data or ["--data-root", "digits"]), "--set=data.md5=none"]
    weights = ["--weights", str(args.weights)] if args.weights else ["--set=model.weights=null"]
    shrunk = TINY_RUN if args.small else []
    train = ["time_to_accuracy", *images, *shrunk]
    seeds = ["--seeds", *(["1"] if args.small else map(str, args.seeds))]
    few = ["--steps", "2", "--warm-up", "1", "--set=train.batch_size=4", "--set=data.resolution=32"]
    paths = ["--rounds", "2", "--calls", "1", "--resolutions", "32", "--batch-size", "4"]
    saves = ["--resolution", "32", "--batch-size", "2", "--rounds", "1", "--steps", "1"]
    throughput = ["throughput", *data]
    return {
        "throughput": [*throughput, "--data", "synthetic", *sizes, *quick],
        "finetune_fast": [*train, *weights, "--config", "finetune_fast.yaml", *seeds],
        "notes": ["notes_way", *data, *(few if args.small else [])],
        "finetune": [*train, *weights, "--config", "finetune.yaml", "--seeds", "1"],
        "scratch_fast": [*train, "--config", "scratch_fast.yaml", "--seeds", "1"]
        + ["--target", "95"],
        "compiled": [*throughput, "--data", "synthetic", *one]
        + ["--arms", "ours", "ours, compiled"],
        "real": [*throughput, "--data", "real", *one, *quick],
        "data_path": ["data_path", *data, *(paths if args.small else [])],
        "checkpoint": ["checkpoint", *(saves if args.small else [])],
    }


def run_part(name: str, command: list[str], folder: Path, limit: float) -> dict[str, Any]:
    """Run one part; how it ended and how long it took. Its file is `name`.json in `folder`."""
    module, *arguments = command
    full = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    full += ["--output", str(folder / f"{name}.json")]
    if module in ("throughput", "time_to_accuracy"):
        full += ["--limit-s", str(round(limit))]
    began = time.monotonic()
    with (folder / f"{name}.log").open("w") as log:
        try:
            code: int | str = subprocess.run(
                full,
                cwd=PROJECT,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=limit + SECONDS_TO_END,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            code = "cut off"
    return {"ended": code, "seconds": round(time.monotonic() - began, 1)}


def best(folder: Path) -> dict[str, Any]:
    """What the parts found, in the terms of the goals; nothing for a part that left no file."""
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*.json")):
        if path.stem in LIMITS:
            found[path.stem] = json.loads(path.read_text())
    told: dict[str, Any] = {}
    for result in found.get("throughput", {}).get("results", []):
        size = f"{result['resolution']} px, {result['batch_size']} images"
        told[size] = {
            name: [row["images_per_second"], row.get("percent_of_limit"), row["seconds_over_ours"]]
            for name, row in result["rivals"].items()
            if "images_per_second" in row
        }
    for part in ("finetune_fast", "finetune", "scratch_fast"):
        for config, runs in found.get(part, {}).get("recipes", {}).items():
            told[config] = runs["summary"] | {
                "training_s_of_all_steps": [
                    run.get("training_s_of_all_steps") for run in runs["runs"]
                ]
            }
    if "notes" in found:
        told["the notes' way, extrapolated"] = found["notes"]["figures"]
    return told


def main() -> int:
    """Run the parts, then print and write what they found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data-root", type=Path, help="folder of the archive; without: digits")
    parser.add_argument("--weights", type=Path, help="ImageNet checkpoint of finetune*.yaml")
    parser.add_argument("--output", type=Path, required=True, help="folder for what is found")
    parser.add_argument("--parts", nargs="+", choices=LIMITS, default=list(FIRST))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--seconds", type=float, default=560, help="for all parts together")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that it runs")
    args = parser.parse_args()

    args.output.mkdir(parents=True, exist_ok=True)
    folder = args.output.resolve()
    console = Console()
    end = time.monotonic() + args.seconds
    known = commands(args)
    ends: dict[str, Any] = {}
    for name in args.parts:
        left = end - time.monotonic() - SECONDS_TO_END
        if left < LEAST_SECONDS:
            ends[name] = {"ended": "not begun, for the time was up"}
        else:
            ends[name] = run_part(name, known[name], folder, min(LIMITS[name], left))
        console.print(name, ends[name])
        (folder / "summary.json").write_text(
            json.dumps({"parts": ends, "found": best(folder)}, indent=2) + "\n"
        )
    console.print(best(folder))
    return int(any(part["ended"] != 0 for part in ends.values()))


if __name__ == "__main__":
    sys.exit(main())
