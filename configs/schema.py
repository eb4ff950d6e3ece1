"""The schema of a recipe: every key, its type, default, unit and bounds.

A recipe is one `Recipe`. Defaults live here and nowhere else; the files in this folder hold only
what a recipe changes. Unknown keys, wrong types and values out of range are refused.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from configs.archives import ARCHIVE_NAME, MOST_CLASSES, PUBLISHED
from configs.cluster import Cluster
from configs.section import Section

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"

LARGEST_BATCH = 65_536  # the archive has 50,000 images to train

Channels = Annotated[list[float], Field(min_length=3, max_length=3)]


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


class Data(Section):
    """The images and what happens to them before the network sees them."""

    root: str = Field("data/cifar10", min_length=1, description="folder that holds the archive")
    source: Literal["archive", "digits"] = Field(
        "archive",
        description="archive: the file brought along; digits: scikit-learn's handwritten digits, "
        "written into data.root as such an archive first",
    )
    md5: str = Field(
        "official", description="of the archive: official, none (unchecked) or 32 hex digits"
    )
    archive: str = Field(
        ARCHIVE_NAME,
        description="file in data.root: CIFAR-10's or CIFAR-100's, or another in their layout",
    )
    local_copy: bool = Field(
        False,
        description="map a copy in each node's TMPDIR, for shared storage that is slow when many "
        "nodes read one file",
    )
    train_images: int | None = Field(None, ge=1, description="use only the first N; null: all")
    test_images: int | None = Field(None, ge=1, description="use only the first N; null: all")
    crop_padding: int = Field(
        4, ge=0, le=32, description="zero pixels added on each side before a random 32 x 32 crop"
    )
    flip: float = Field(0.5, ge=0, le=1, description="probability of a horizontal flip")
    resolution: int = Field(
        224, ge=8, le=1024, description="side in pixels that images are resized to, bilinear"
    )
    mean: Channels = Field(
        [125.307, 122.961, 113.8575], description="subtracted, per channel R G B, in grey levels"
    )
    std: Channels = Field(
        [51.5865, 50.847, 51.255], description="divided by, per channel R G B, in grey levels"
    )

    @field_validator("md5")
    @classmethod
    def _md5_is_one(cls, value: str) -> str:
        if value not in ("official", "none") and not re.fullmatch(r"^[0-9a-f]{32}$", value):
            raise ValueError("give 'official', 'none' or 32 lower-case hex digits")
        return value

    @field_validator("archive")
    @classmethod
    def _archive_is_a_file_name(cls, value: str, others: ValidationInfo) -> str:
        if not re.fullmatch(NAME_PATTERN, value) or not value.endswith(".tar.gz"):
            raise ValueError(
                "give the name of a file in data.root, of letters, digits, '.', '_' and '-', "
                "that ends in .tar.gz"
            )
        if others.data.get("md5") == "official" and value not in PUBLISHED:
            raise ValueError(
                f"data.md5 is official, which only {' and '.join(PUBLISHED)} are: set data.md5 to "
                "the MD5 of this file or to none"
            )
        return value

    @field_validator("mean")
    @classmethod
    def _mean_is_in_grey_levels(cls, value: list[float]) -> list[float]:
        if max(map(abs, value)) > 10_000:
            raise ValueError("every channel's mean must be from -10000 to 10000 grey levels")
        return value

    @field_validator("std")
    @classmethod
    def _std_is_in_grey_levels(cls, value: list[float]) -> list[float]:
        if not 0.001 <= min(value) <= max(value) <= 10_000:
            raise ValueError(
                "every channel's standard deviation must be from 0.001 to 10000 grey levels"
            )
        return value


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
    weight_decay: float = Field(1e-4, ge=0, description="on every parameter")
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

    @field_validator("milestones")
    @classmethod
    def _milestones_rise(cls, value: list[int]) -> list[int]:
        if any(later <= earlier for earlier, later in zip([0, *value], value, strict=False)):
            raise ValueError("epochs must be above 0 and in rising order")
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
    device: Literal["auto", "cuda", "cpu"] = Field(
        "auto", description="auto: CUDA when a GPU answers, else the CPU"
    )
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="auto: bf16 autocast on GPUs that have it, else fp32"
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
