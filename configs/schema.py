"""The schema of a recipe: every key, its type, default, unit and bounds.

A recipe is one `Recipe`. Defaults live here and nowhere else; the files in this folder hold only
what a recipe changes. Unknown keys, wrong types and values out of range are refused.
"""

from __future__ import annotations

import itertools
import re
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from configs.archives import MOST_CLASSES
from configs.cluster import Cluster
from configs.data import Data
from configs.section import NAME_PATTERN, Pixels, Section

LARGEST_BATCH = 65_536  # the archive has 50,000 images to train
# YAML has lists only, so what stands there as a list becomes the pair.
Phase = Annotated[
    tuple[Annotated[float, Field(gt=0, lt=1)], Pixels],
    Field(strict=False),
]


class Run(Section):
    """What the run is called and what it starts from."""

    name: str = Field(
        "", description="folder below run.root; empty: the recipe's file name", max_length=100
    )
    seed: int = Field(0, ge=0, lt=2**32, description="seed of weights, order and augmentation")
    notes: str = Field("", description="free text that travels with the run into its report")
    root: str = Field(
        "logs", min_length=1, description="folder of all run directories, visible from every node"
    )
    readable_by: Literal["owner", "group", "everyone"] = Field(
        "group",
        description="mode of the run's directory: 0700, 0750 or 0755, less what your umask takes; "
        "nobody else may ever write in it, for jobs run code from there",
    )

    @field_validator("name")
    @classmethod
    def _name_is_a_folder_name(cls, name: str) -> str:
        if name and not re.fullmatch(NAME_PATTERN, name):
            raise ValueError("use letters, digits, '.', '_' and '-' only, a letter or digit first")
        return name

    @property
    def mode(self) -> int:
        """The permission bits of the run's directory."""
        return {"owner": 0o700, "group": 0o750, "everyone": 0o755}[self.readable_by]


class Model(Section):
    """The network: torchvision's ResNet-50."""

    stem: Literal["imagenet", "cifar"] = Field(
        "imagenet",
        description="imagenet: 7 x 7 stride 2 and max-pool; cifar: 3 x 3 stride 1 without",
    )
    num_classes: int = Field(
        10, ge=2, le=MOST_CLASSES, description="size of the last layer: the classes of the archive"
    )
    weights: str | None = Field(
        None, min_length=1, description="checkpoint to start from; null: random initialisation"
    )
    zero_init_residual: bool = Field(
        True, description="random initialisation only: each block's last norm starts at 0"
    )
    freeze_stages: int | None = Field(
        None,
        ge=0,
        le=4,
        description="what stays as it is, batch-norm statistics included: 0 the stem, N the stem "
        "and the first N stages, as MMClassification's frozen_stages; null: everything is trained",
    )
    head_lr_multiplier: float = Field(
        1.0, gt=0, le=1000, description="learning rate of the last layer over that of the others"
    )


class Optimizer(Section):
    """Stochastic gradient descent."""

    lr: float = Field(0.0025, gt=0, description="learning rate at its highest")
    momentum: float = Field(0.9, ge=0, lt=1, description="share of the last step that is kept")
    weight_decay: float = Field(
        1e-4, ge=0, description="on every parameter, or as decay_norms_and_biases says"
    )
    decay_norms_and_biases: bool = Field(
        True,
        description="false: weight_decay is on the weights of convolutions and last layer only",
    )
    nesterov: bool = Field(False, description="Nesterov's momentum")

    @field_validator("lr")
    @classmethod
    def _lr_moves_the_weights(cls, value: float) -> float:
        if value < 1e-12:
            raise ValueError("a learning rate below 1e-12 changes no weight")
        return value

    @field_validator("nesterov")
    @classmethod
    def _nesterov_has_momentum(cls, value: bool, others: ValidationInfo) -> bool:
        if value and others.data.get("momentum") == 0:
            raise ValueError("needs optimizer.momentum above 0")
        return value


class Schedule(Section):
    """How long the run is and how the learning rate moves; a pure function of the step."""

    epochs: int = Field(20, ge=1, description="passes over the training images")
    kind: Literal["step", "cosine", "linear"] = Field(
        "step", description="step: times gamma at each milestone; cosine, linear: down to 0"
    )
    milestones: list[int] = Field([], description="epochs after which a step schedule drops")
    gamma: float = Field(0.1, gt=0, le=1, description="factor of each drop")
    warmup_steps: int = Field(
        0, ge=0, description="optimizer steps of a linear rise to optimizer.lr"
    )
    resolution: list[Phase] = Field(
        [],
        description="progressive resolution: up to each share of the run's steps the training "
        "images have that many pixels a side, afterwards data.resolution",
    )
    fixres_tail: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the run's steps, at its end, that train only the last layer and the "
        "batch norms, to fit them to data.resolution",
    )

    @field_validator("milestones")
    @classmethod
    def _milestones_rise(cls, value: list[int]) -> list[int]:
        if any(later <= earlier for earlier, later in zip([0, *value], value, strict=False)):
            raise ValueError("epochs must be above 0 and in rising order")
        return value

    @field_validator("resolution")
    @classmethod
    def _shares_rise(cls, value: list[Phase]) -> list[Phase]:
        shares = [share for share, _ in value]
        if any(later <= earlier for earlier, later in itertools.pairwise(shares)):
            raise ValueError(
                "the shares must be in rising order: each counts from the start of the run"
            )
        return value

    @field_validator("fixres_tail")
    @classmethod
    def _tail_is_at_the_last_resolution(cls, value: float, others: ValidationInfo) -> float:
        last = max((share for share, _ in others.data.get("resolution", [])), default=0.0)
        if value and last + value > 1 + 1e-9:  # 0.9 and 0.1 are a little more than 1 in floats
            raise ValueError(
                f"the tail fits the network to data.resolution, and schedule.resolution has other "
                f"sizes up to {last} of the run: give at most {1 - last:.4g}"
            )
        return value


class Train(Section):
    """The training step."""

    batch_size: int = Field(
        32, ge=1, le=LARGEST_BATCH, description="images per optimizer step, over all GPUs"
    )
    micro_batch_size: int | None = Field(
        None,
        ge=1,
        description="images per forward pass on one GPU, which is also the group that batch "
        "normalisation sees; null: the GPU's whole share of the batch",
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share spread over all classes")
    ema_half_life: float | None = Field(
        None,
        gt=0,
        le=1,
        description="score and export a moving average of the weights, in which a step counts half "
        "after this share of the run's steps (exponential); null: the weights as they are trained",
    )
    device: Literal["auto", "cuda", "cpu"] = Field(
        "auto", description="auto: CUDA when a GPU answers, else the CPU"
    )
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="auto: bf16 autocast where all workers' GPUs have it, else fp32"
    )
    gradients: Literal["fp32", "bf16"] = Field(
        "fp32",
        description="how they travel between workers: bf16 is half the bytes and rounds each sum",
    )
    compile: bool = Field(
        False,
        description="torch.compile the network: faster steps after a minute or two for each "
        "resolution, which later runs below run.root are spared",
    )
    cuda_graph: bool = Field(
        True,
        description="on a GPU, record a whole step once for each resolution and replay it, where "
        "that can be done; the numbers are those of eager steps",
    )
    deterministic: bool = Field(
        False, description="only algorithms that repeat bit for bit (slower on GPUs)"
    )
    max_steps: int | None = Field(
        None, ge=1, description="end the run, and its schedule, after this many optimizer steps"
    )

    @field_validator("micro_batch_size")
    @classmethod
    def _micro_batches_fill_the_batch(cls, value: int | None, others: ValidationInfo) -> int | None:
        batch_size = others.data.get("batch_size")
        if value and batch_size and batch_size % value:
            raise ValueError(f"must divide train.batch_size, which is {batch_size}")
        return value


class Evaluate(Section):
    """Scoring on the test images, each counted once."""

    every_epochs: int = Field(1, ge=1, description="evaluate after every Nth epoch and the last")
    batch_size: int = Field(
        250, ge=1, le=LARGEST_BATCH, description="images per forward pass on one GPU"
    )
    flip: bool = Field(
        False,
        description="score the mean of the outputs for each image and its mirror, too: told apart, "
        "as accuracy_top-1_flip and accuracy_top-5_flip, at twice the time",
    )


class Checkpoint(Section):
    """What is kept to go on from."""

    every_epochs: int = Field(1, ge=1, description="save after every Nth epoch and the last")
    keep_last: int = Field(2, ge=1, description="newest checkpoints kept, beside the best one")


class Logging(Section):
    """What is written down while the run goes on."""

    every_steps: int = Field(100, ge=1, description="optimizer steps between two training lines")
    profile_steps: int = Field(
        0,
        ge=0,
        le=100,
        description="optimizer steps, after a few to warm up, that are traced once into the run's "
        "folder profile, for Perfetto and TensorBoard (docs/profiling.md)",
    )


class Recipe(Section):
    """One complete, resolved recipe."""

    run: Run = Run()
    cluster: Cluster = Cluster()
    data: Data = Data()
    model: Model = Model()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    checkpoint: Checkpoint = Checkpoint()
    logging: Logging = Logging()
