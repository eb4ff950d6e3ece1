"""What a run has written, as the tests read it."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.context import RequestContext
from tensorboard.data import server_ingester
from tensorboard.data.grpc_provider import GrpcDataProvider
from tensorboard.data.proto.data_provider_pb2_grpc import TensorBoardDataProviderStub

from configs.schema import Recipe
from train import checkpoint


def changed(recipe: Recipe, section: str, **values: Any) -> Recipe:
    part = getattr(recipe, section).model_copy(update=values)
    return recipe.model_copy(update={section: part})


def rows(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def results(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "results.json").read_text())


def last_state(run_dir: Path) -> dict[str, Any]:
    """The training state in the newest checkpoint."""
    folder = run_dir / "checkpoints"
    return checkpoint.load(folder, checkpoint.manifests(folder)[-1], torch.device("cpu"))


def events(run_dir: Path) -> EventAccumulator:
    """The run's TensorBoard logs, by TensorBoard's reader in Python."""
    reader = EventAccumulator(str(run_dir / "tensorboard"))
    reader.Reload()
    return reader


def board(run_dir: Path) -> dict[str, list[tuple[int, np.float32]]]:
    """Step and value of every scalar, by tag, as TensorBoard's reader in Python shows them."""
    reader = events(run_dir)
    return {
        tag: [(event.step, np.float32(event.value)) for event in reader.Scalars(tag)]
        for tag in reader.Tags()["scalars"]
    }


def shown_by_data_server(run_dir: Path) -> dict[str, list[tuple[int, np.float32]]]:
    """The same as the data server shows them, the reader that TensorBoard prefers."""
    port_file = run_dir / "data-server-port"
    port_file.unlink(missing_ok=True)
    binary = server_ingester.get_server_binary().path
    options = [f"--logdir={run_dir}", "--reload=once", f"--port-file={port_file}"]
    with subprocess.Popen(
        [
            binary, *options, "--port=0", "--samples-per-plugin=scalars=all", "--die-after-stdin",
            "--verbose",
        ],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:  # fmt: skip
        # It serves before it has read anything, in whatever order.
        assert any("Finished load cycle" in line for line in server.stderr or ())
        while not (port_file.exists() and port_file.read_text().endswith("\n")):
            time.sleep(0.05)
        address = f"127.0.0.1:{port_file.read_text().strip()}"
        with grpc.secure_channel(address, grpc.local_channel_credentials()) as channel:
            provider = GrpcDataProvider(address, TensorBoardDataProviderStub(channel))
            series = provider.read_scalars(
                RequestContext(), experiment_id="", plugin_name="scalars", downsample=10**6
            )["tensorboard"]
    return {tag: [(d.step, np.float32(d.value)) for d in data] for tag, data in series.items()}


TIMINGS = ("time", "data_time", "parts", "seconds", "images_per_second", "memory", "attempt")


def without_timings(run_dir: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in TIMINGS} for row in rows(run_dir)]
