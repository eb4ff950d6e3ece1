"""The layouts in which a run's model leaves the project, and which checkpoint it is taken from."""

from __future__ import annotations

import hashlib
import io
import json
import shlex
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from configs.checksum import promised_sha256
from configs.schema import Data, Model
from train import checkpoint, facts, predict
from train.checkpoint import Manifest
from train.errors import RequestError
from train.files import whole_file
from train.model import blank_model
from train.state import weights_sha256

# What mmpretrain builds the network from, and how it prepares images as our evaluation does.
MMPRETRAIN_CONFIG = """\
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='{backbone}', depth=50, num_stages=4, out_indices=(3, ), style='pytorch'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes={num_classes},
        in_channels=2048,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        topk=(1, {topk})))
data_preprocessor = dict(
    num_classes={num_classes}, mean={mean}, std={std}, to_rgb=True)
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='ResizeEdge', scale=32, edge='short', backend='pillow',
        interpolation='bilinear'),
    dict(type='CenterCrop', crop_size=32),
    dict(
        type='Resize', scale={resolution}, backend='pillow',
        interpolation='bilinear'),
    dict(type='PackInputs'),
]
test_dataloader = dict(dataset=dict(type='CustomDataset', pipeline=test_pipeline))
"""


def export(run_dir: Path, layout: str, out: Path, *, best: bool) -> str:
    """Write the model of a run to `out` and say what was written.

    Args:
        run_dir: the run directory.
        layout: 'mmcls', 'torchvision' or 'safetensors'.
        out: the file, which is not there.
        best: take the checkpoint with the best score, not the newest.

    Raises:
        RequestError: the run has no checkpoint, it is damaged, the name of `out` promises another
            file, or `out` is there after all.
        OSError: `out` cannot be written; nothing of it is left then.
    """
    manifest = choose(run_dir / "checkpoints", best=best)
    state = read_state(run_dir / "checkpoints" / manifest.file, manifest)
    usage = facts.of_a_run(state)
    entries = state.get("model_ema", state["model"])  # the one that was scored
    model = blank_model(Model(stem=usage["stem"], num_classes=len(entries["fc.bias"])))
    model.load_state_dict(entries)
    known = facts.gather(run_dir, state, weights_sha256(model))
    # As others expect them: a channels-last order in memory is our own business.
    plain = OrderedDict((name, value.contiguous()) for name, value in entries.items())
    content = serialise(layout, plain, known)
    sha256 = hashlib.sha256(content).hexdigest()
    keep_promise(out, sha256)
    try:
        with whole_file(out, replace=False) as file:
            file.write(content)
    except FileExistsError:
        raise RequestError(
            f"{out} has appeared meanwhile and is not overwritten: name another file or remove it"
        ) from None
    return describe(run_dir, layout, out, known, (len(content), sha256), best=best)


def choose(folder: Path, *, best: bool) -> Manifest:
    """The newest complete checkpoint in `folder`, or the one with the best score.

    Nothing in the folder is touched: the run may be going on.

    Raises:
        RequestError: there is none, or what would be chosen is damaged or cannot be read.
    """
    # Not by glob, which finds nothing in a folder that may not be listed.
    try:
        listed = sorted(path for path in folder.iterdir() if path.match("step-*.json"))
    except FileNotFoundError:
        listed = []
    except OSError as error:
        raise unreadable(folder, error) from None
    found = {
        f"step-{manifest.step:08d}.json": manifest for manifest in checkpoint.manifests(folder)
    }
    lost = [path for path in listed if path.name not in found]
    if lost and (best or not found or lost[-1].name > max(found)):
        read(lost[-1])  # whose error, if it is one, says more
        raise RequestError(
            f"{lost[-1]} is damaged, or the state that it names is missing: "
            f"{'export the newest one, without --best' if best else RESUME}"
        )
    if not found:
        raise RequestError(f"there is no complete checkpoint in {folder} yet: nothing to export")
    if not best:
        return found[max(found)]
    scored = [manifest for manifest in found.values() if manifest.score is not None]
    if not scored:
        raise RequestError(f"no checkpoint in {folder} has been evaluated yet: leave --best out")
    return max(scored, key=lambda manifest: manifest.score or 0.0)


RESUME = "a run that is resumed goes on from the one before"


def read_state(path: Path, manifest: Manifest) -> dict[str, Any]:
    """The state that `manifest` speaks of, on the CPU; no pickled code is run.

    Raises:
        RequestError: it is not as it was written, cannot be read, or is gone.
    """
    # Once, for a run that goes on may remove it at any moment.
    data = read(path)
    if hashlib.sha256(data).hexdigest() != manifest.sha256:
        raise RequestError(
            f"{path} is damaged: its SHA-256 is not the one it was written with; {RESUME}"
        )
    state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return state


def read(path: Path) -> bytes:
    """The bytes of a file that was in the run's folder a moment ago.

    Raises:
        RequestError: it cannot be read, or is gone.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise RequestError(
            f"{path} has just been replaced by the run's next one: try again"
        ) from None
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: OSError) -> RequestError:
    """What to say of a file or folder of the run that answers with `error`."""
    return RequestError(
        f"{path} cannot be read ({error.strerror}): ask the run's owner to let you read it, or "
        "for a copy"
    )


def serialise(layout: str, entries: Mapping[str, Tensor], known: Mapping[str, Any]) -> bytes:
    """The bytes of a file in that layout; equal for equal models of one run.

    Args:
        layout: 'mmcls', 'torchvision' or 'safetensors'.
        entries: of the network, by torchvision's names.
        known: the facts.
    """
    if layout == "safetensors":
        return in_order(save(dict(entries), {"format": "pt"} | facts.as_strings(known)))
    buffer = io.BytesIO()
    torch.save(as_mmcls(entries, known) if layout == "mmcls" else OrderedDict(entries), buffer)
    return buffer.getvalue()


def in_order(packed: bytes) -> bytes:
    """The bytes of a safetensors file with its metadata sorted, which the library shuffles."""
    end = 8 + int.from_bytes(packed[:8], "little")
    header = json.loads(packed[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + packed[end:]


def as_mmcls(entries: Mapping[str, Tensor], known: Mapping[str, Any]) -> dict[str, Any]:
    """The dictionary that MMClassification 0.x and mmpretrain 1.x load, of plain values only.

    In its meta, CLASSES is read by the first, dataset_meta by the second, and `cfg` is a
    configuration from which mmpretrain builds this network and prepares images for it.
    """
    meta: dict[str, Any] = {"iter": known["step"], "cfg": mmpretrain_config(known, entries)}
    if "epoch" in known:
        meta["epoch"] = known["epoch"]
    if "classes" in known:
        meta |= {"CLASSES": known["classes"], "dataset_meta": {"classes": known["classes"]}}
    meta[facts.KEY] = dict(known)
    state_dict = OrderedDict(
        (f"head.{name}" if name.startswith("fc.") else f"backbone.{name}", value)
        for name, value in entries.items()
    )
    return {"meta": meta, "state_dict": state_dict}


def mmpretrain_config(known: Mapping[str, Any], entries: Mapping[str, Tensor]) -> str:
    """A configuration of this network for mmpretrain, as the text of a Python file."""
    num_classes = len(entries["fc.bias"])
    return MMPRETRAIN_CONFIG.format(
        backbone="ResNet_CIFAR" if known["stem"] == "cifar" else "ResNet",
        num_classes=num_classes,
        topk=min(5, num_classes),
        **{key: known[key] for key in ("mean", "std", "resolution")},
    )


def keep_promise(out: Path, sha256: str) -> None:
    """Refuse a name that ends in digits of another SHA-256, as the loaders do.

    Raises:
        RequestError: it does.
    """
    promised = promised_sha256(out.name)
    if promised and not sha256.startswith(promised):
        raise RequestError(
            f"{out}: its name promises a SHA-256 that begins with {promised}, but the file's would "
            f"begin with {sha256[:8]}: readers would refuse it, so name it otherwise"
        )


def describe(
    run_dir: Path,
    layout: str,
    out: Path,
    known: Mapping[str, Any],
    written: tuple[int, str],
    *,
    best: bool,
) -> str:
    """What was written, from what, and what to type next.

    `written`: bytes and SHA-256 of the file.
    """
    results = facts.read_json(run_dir / "results.json")
    is_final = results.get("steps") == known["step"]
    which = "the final model" if is_final else "the best so far" if best else "not the end"
    if results and not is_final:
        which = "the best model" if best else "older than its results.json"
    epoch = f" (epoch {known['epoch']})" if "epoch" in known else ""
    scores = "not evaluated at this step"
    if "accuracy_top-1" in known:
        top1, top5 = known["accuracy_top-1"], known["accuracy_top-5"]
        scores = f"top-1 {top1:.2f} %, top-5 {top5:.2f} %"
    lines = [
        f"wrote {out} ({written[0]:,} bytes, {layout} layout)",
        f"  run      {known['run']}, step {known['step']:,}{epoch}: {which}",
        f"  scores   {scores}",
        f"  SHA-256  {written[1]} of the file",
        f"           {known['weights_sha256']} of the weights",
    ]
    if is_final and results.get("weights_sha256") != known["weights_sha256"]:
        lines.append(f"  warning: results.json names {results.get('weights_sha256')} instead")
    if "classes" not in known:
        lines.append("  warning: the names of the classes are not known")
    command = f"python -m train.predict --checkpoint {shlex.quote(str(out))}"
    lines.append(f"  {command}{options(layout, known)} IMAGES_OR_FOLDER")
    return "\n".join(lines)


def options(layout: str, known: Mapping[str, Any]) -> str:
    """What `train.predict` must be told about a file in that layout."""
    needed = ["classes"] if "classes" not in known else []
    if layout == "torchvision":
        defaults = Data()
        differing = [key for key in ("mean", "std") if known[key] != getattr(defaults, key)]
        needed = ["classes", "resolution", *differing]
    text = ""
    for key in needed:
        value = known.get(key, ["A", "B", "..."])
        row = predict.line(*(value if isinstance(value, list) else [value])).decode().rstrip("\n")
        # Joined to its option, for a name may begin with a hyphen.
        text += f" --{key}={shlex.quote(row)}"
    return text
