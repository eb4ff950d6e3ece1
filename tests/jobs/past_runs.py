"""Run directories as runs leave them, written as plain files with known numbers."""

from __future__ import annotations

import base64
import json
import math
import struct
import zlib
from pathlib import Path
from typing import Any

from configs import Recipe, dump_recipe
from jobs.rundir import RunDirectory

CLASSES = [
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
]  # fmt: skip
STEPS = 400


def make_recipe(changes: dict[str, Any]) -> Recipe:
    """The default recipe with some dotted keys changed."""
    values = Recipe().model_dump()
    for key, value in changes.items():
        section, _, name = key.partition(".")
        values[section][name] = value
    return Recipe.model_validate(values)


def write_run(
    root: Path,
    stamp: str,
    changes: dict[str, Any] | None = None,
    *,
    scores: tuple[float, ...] = (80.0, 90.0),
    attempts: list[dict[str, Any]] | None = None,
    story: str = "",
    code: str = "c0de",
    is_finished: bool = True,
) -> RunDirectory:
    """A run below `root`; `scores` are its top-1 after each epoch."""
    changes = {"run.name": "finetune"} | (changes or {})
    recipe = make_recipe(changes)
    run = RunDirectory(root / recipe.run.name / stamp)
    run.engine_files.mkdir(parents=True)
    run.config.write_text(dump_recipe(recipe))
    entries = [attempt()] if attempts is None else attempts
    run.attempts.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    run.launcher_log.write_text(story)
    commit = {"commit": "0123456789abcdef", "diff_sha256": None, "code_sha256": code}
    run.provenance.write_text(
        json.dumps({"created": "2026-01-01T00:00:00Z", "command": "launch.py --config C"} | commit)
    )
    run.metrics.write_text("".join(json.dumps(row) + "\n" for row in metric_rows(recipe, scores)))
    if is_finished:
        run.results.write_text(json.dumps(make_results(scores, len(entries)), indent=2))
        run.mistakes.write_text(json.dumps({"mistakes": make_mistakes()}))
    return run


def attempt(number: int = 1, start: str = "00:10:00", **values: Any) -> dict[str, Any]:
    """A line of the ledger; times are of 2026-01-01."""
    line = {
        "attempt": number,
        "job_id": "7",
        "restart_count": number - 1,
        "nodes": ["node1", "node2"],
        "start": f"2026-01-01T{start}Z",
        "end": "2026-01-01T01:10:00Z",
        "reason": "finished",
        "exit_code": 0,
        "first_step": 1,
        "last_step": STEPS,
        "workers": 8,
        "afresh": number == 1,
        "saved_step": STEPS,
        "gpu_seconds_lost": 0.0,
        "unfit_nodes": [],
    }
    return line | values


def metric_rows(recipe: Recipe, scores: tuple[float, ...]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    each = STEPS // len(scores)
    for epoch, score in enumerate(scores, start=1):
        for step in range((epoch - 1) * each + 20, epoch * each + 1, 20):
            loss = 0.5 + 1.8 * math.exp(-step / 90) + 0.06 * math.sin(step / 7 + recipe.run.seed)
            rate = {"lr": recipe.optimizer.lr, "images_per_second": 8000.0 + step % 60}
            row = {"mode": "train", "epoch": epoch, "iter": step - (epoch - 1) * each}
            rows.append(row | rate | {"loss": loss, "step": step, "steps": STEPS})
        evaluation = {"mode": "val", "epoch": epoch, "loss": 1 - score / 110}
        evaluation |= {"accuracy_top-1": score, "accuracy_top-5": 50 + score / 2}
        rows.append(evaluation | {"step": epoch * each, "steps": STEPS})
    return rows


def make_results(scores: tuple[float, ...], attempts: int) -> dict[str, Any]:
    best = max(scores)
    return {
        "accuracy_top-1": scores[-1],
        "accuracy_top-5": 50 + scores[-1] / 2,
        "best": {
            "accuracy_top-1": best,
            "accuracy_top-5": 50 + best / 2,
            "epoch": 1 + scores.index(best),
        },
        "confusion_matrix": [
            [90 if row == column else (row + column) % 3 for column in range(10)]
            for row in range(10)
        ],
        "classes": CLASSES,
        "epochs": len(scores),
        "steps": STEPS,
        "images_per_second": 8123.456789,
        "seconds": {"train": 3000.0},
        "world_size": 8,
        "device": "NVIDIA H200",
        "weights_sha256": "3e1",
        "attempts": attempts,
    }


def make_mistakes() -> list[dict[str, Any]]:
    return [
        {
            "index": 10 + number,
            "true": CLASSES[number],
            "predicted": CLASSES[number + 1],
            "confidence": 0.99 - number / 20,
            "png": png(number),
        }
        for number in range(5)
    ]


def png(shade: int) -> str:
    """A picture of 32 x 32 pixels, in base64."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        sum_ = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + sum_

    line = b"\0" + bytes(value for x in range(32) for value in (40 * shade, 8 * x, 128))
    header = struct.pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(line * 32)) + chunk(b"IEND", b"")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + parts).decode()
