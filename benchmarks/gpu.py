"""Everything that one GPU has to show, in one run of under ten minutes.

    python -m benchmarks.gpu --data-root DIR --weights FILE --output DIR [--parts PART ...]

Parts run one after the other, each as a process of its own with a limit, the most important ones
first; each writes its file as it goes, so that a cut-off leaves what was done. `--parts` chooses
others, for a further run:

    throughput     synthetic data, 224, 160 and 128 px, 256, 512 and 128 images: graph, eager, peers
    compiled       torch.compile at 224 px, 256 and 512 images, the likeliest to reach the goal
    finetune_fast  time and accuracy over seeds
    mmcls          finetune.yaml as MMClassification runs it, some steps, extrapolated
    finetune       finetune.yaml in this engine, one seed
    scratch_fast   time and accuracy, one seed
    real           throughput with images being loaded; this and the next only if asked for
    data_path      what an image costs a core
    checkpoint     pause and write time

`--small` has every part at a tiny size, on a CPU if need be, to see that all of it runs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

PROJECT = Path(__file__).resolve().parents[1]
FIRST = ("throughput", "compiled", "finetune_fast", "mmcls", "finetune", "scratch_fast")
# Seconds that a part may take where more are left; and how long it may take to end after that.
LIMITS = {
    "throughput": 110.0,
    "compiled": 80.0,
    "finetune_fast": 150.0,
    "mmcls": 40.0,
    "finetune": 180.0,
    "scratch_fast": 130.0,
    "real": 120.0,
    "data_path": 60.0,
    "checkpoint": 60.0,
}
SECONDS_TO_END = 20.0
LEAST_SECONDS = 20.0
FIGURES = ("images_per_second", "percent_of_limit", "seconds_over_ours", "remark")
NO_WEIGHTS = "--set=model.weights=null"
SMALL_STEP = "--set=train.batch_size=8 --set=data.resolution=32 --set=schedule.resolution=[]"
SMALL_RUN = (
    "--set=data.train_images=16 --set=data.test_images=8 --set=train.max_steps=4 "
    "--set=evaluate.batch_size=8 --set=logging.every_steps=2 --target=0"
)


def commands(args: argparse.Namespace) -> dict[str, list[str]]:
    """The module and arguments of each part, without the file that it writes."""
    data = f"--data-root={shlex.quote(str(args.data_root))}" if args.data_root else ""
    one = "--resolutions 224 --batch-sizes 256 512 --rounds 3"
    sizes = "--resolutions 224 160 128 --batch-sizes 256 512 128 --rounds 3"
    seeds = " ".join(map(str, args.seeds))
    paths, saves, steps, small_run = "", "", "", ""
    if args.small:
        sizes = one = "--resolutions 32 --batch-sizes 4 --rounds 1 --block-seconds 0"
        paths = "--resolutions 32 --batch-size 4 --rounds 2 --calls 1"
        saves = "--resolution 32 --batch-size 2 --rounds 1 --steps 1"
        steps = f"--steps 2 --warm-up 1 --workers 0 {SMALL_STEP}"
        small_run = f"{SMALL_STEP} {SMALL_RUN}"
    throughput = f"throughput --block-seconds 0.3 {data}"
    run = f"time_to_accuracy {data or '--data-root=digits'} --set=data.md5=none {small_run}"
    start = f"--weights={shlex.quote(str(args.weights))}" if args.weights else NO_WEIGHTS
    lines = {
        "throughput": f"{throughput} --data synthetic {sizes}",
        "finetune_fast": f"{run} {start} --config finetune_fast.yaml --seeds {seeds}",
        "mmcls": f"mmcls_way {data} {steps}",
        "finetune": f"{run} {start} --config finetune.yaml --seeds {args.seeds[0]}",
        "scratch_fast": f"{run} --config scratch_fast.yaml --target 95 --seeds {args.seeds[0]}",
        "compiled": f"{throughput} --data synthetic {one} --arms ours 'ours, compiled'",
        "real": f"{throughput} --data real {one}",
        "data_path": f"data_path {data} {paths}",
        "checkpoint": f"checkpoint {saves}",
    }
    return {name: shlex.split(line) for name, line in lines.items()}


def run_part(name: str, command: list[str], folder: Path, limit: float) -> dict[str, Any]:
    """Run one part; how it ended and how long it took. Its file is `name`.json in `folder`."""
    module, *arguments = command
    full = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    full += ["--output", str(folder / f"{name}.json")]
    if module in ("throughput", "time_to_accuracy"):
        full += ["--limit-s", str(round(limit))]
    began = time.monotonic()
    with (folder / f"{name}.log").open("w") as log:
        part = subprocess.Popen(
            full, cwd=PROJECT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        code: int | str
        try:
            code = part.wait(timeout=limit + SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            code = "cut off"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(part.pid, signal.SIGKILL)  # its workers, too: the next wants the GPU
            part.wait()
    return {"ended": code, "seconds": round(time.monotonic() - began, 1)}


def best(folder: Path) -> dict[str, Any]:
    """What the parts found, in the terms of the goals; nothing for a part that left no file."""
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*.json")):
        if path.stem in LIMITS:
            found[path.stem] = json.loads(path.read_text())
    told: dict[str, Any] = {}
    for part in ("throughput", "compiled", "real"):
        for result in found.get(part, {}).get("results", []):
            size = f"{part}: {result['resolution']} px, {result['batch_size']} images"
            told[size] = {
                name: {key: row[key] for key in FIGURES if key in row}
                for name, row in result["rivals"].items()
            }
        if found.get(part, {}).get("not_measured"):
            told[f"{part}, not measured"] = found[part]["not_measured"]
    for part in ("finetune_fast", "finetune", "scratch_fast"):
        for config, runs in found.get(part, {}).get("recipes", {}).items():
            taken = [run["seed"] for run in runs["runs"]]
            told[config] = runs["summary"] | {
                "training_s_of_all_steps": [
                    run.get("training_s_of_all_steps") for run in runs["runs"]
                ],
                "seeds_not_begun": [seed for seed in found[part]["seeds"] if seed not in taken],
            }
    if "mmcls" in found:
        told["MMClassification's way, extrapolated"] = found["mmcls"]["figures"]
    for part, key in (("data_path", "results"), ("checkpoint", "times")):
        if part in found:
            told[part] = found[part][key]
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
    if not (args.small or (args.data_root and args.weights)):
        parser.error("--data-root and --weights are needed, but with --small")

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
