"""Workers as the tests start them: real processes, in a real process group."""

from __future__ import annotations

import functools
import hashlib
import math
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from configs import dump_recipe
from configs.schema import Data, Evaluate, Logging, Optimizer, Recipe, Run, Schedule, Train
from tests import warm

PROJECT = Path(__file__).resolve().parents[2]
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def place_of(rank: int, world_size: int, port: int) -> dict[str, str]:
    """Torchrun's variables for one rank on this machine."""
    values = dict(zip(RANK_VARIABLES, (rank, rank, world_size, world_size), strict=True))
    return {name: str(value) for name, value in values.items()} | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        **ONE_THREAD,
    }


@pytest.fixture(autouse=True)
def stream(request: pytest.FixtureRequest) -> Iterator[None]:
    """On a GPU, a stream that is not the default one, as `choose_device` sets it."""
    if request.node.get_closest_marker("gpu") is None:
        yield
        return
    import torch

    with torch.cuda.stream(torch.cuda.Stream() if torch.cuda.is_available() else None):
        yield


@pytest.fixture
def gpu() -> Any:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    return torch.device("cuda", torch.cuda.current_device())


@pytest.fixture(scope="session")
def workers() -> Any:
    """A context whose processes start quickly: torch is imported once, in their parent."""
    return warm.context()


@pytest.fixture
def on_ranks(workers: Any) -> Callable[..., list[Any]]:
    """Call `function(ranks, *args)` in a process group of `world_size` real processes.

    Returns what each rank returned, by rank; an exception in one of them fails the test.
    """

    def call(world_size: int, function: Callable[..., Any], *args: Any) -> list[Any]:
        return in_processes(workers, world_size, _in_group, function, *args)

    return call


def in_processes(
    workers: Any, world_size: int, function: Callable[..., Any], *args: Any
) -> list[Any]:
    """`function(rank, *args)` in a process for each rank, with torchrun's variables set.

    Its networks are as deep there as they are here.
    """
    from tests.train import depth

    port = free_port()
    queue = workers.Queue()
    common = (world_size, port, depth.blocks(), function, args, queue)
    processes = [
        workers.Process(target=_process, args=(rank, *common)) for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    outcomes = dict(queue.get(timeout=600) for _ in processes)
    for process in processes:
        process.join(timeout=60)
    failures = [outcome for outcome in outcomes.values() if isinstance(outcome, Exception)]
    if failures:
        raise failures[0]
    return [outcomes[rank] for rank in range(world_size)]


def _in_group(_rank: int, function: Callable[..., Any], *args: Any) -> Any:
    from configs.schema import Train
    from train.distributed import process_group

    with process_group(Train(device="cpu")) as ranks:
        outcome = function(ranks, *args)
        ranks.barrier()  # or the first to end would close connections that others still make
        return outcome


def _process(
    rank: int,
    world_size: int,
    port: int,
    blocks: tuple[int, ...],
    function: Callable[..., Any],
    args: tuple[Any, ...],
    queue: Any,
) -> None:
    from tests.train import depth

    depth.use(blocks)
    os.environ.update(place_of(rank, world_size, port) if world_size > 1 else ONE_THREAD)
    try:
        outcome = function(rank, *args)
    except Exception as error:
        outcome = error
    queue.put((rank, outcome))


def become_nobody() -> None:
    """Go on as an ordinary user, which a process of root becomes; the project may be root's own."""
    if os.geteuid() == 0:
        os.setuid(65534)


class StopAfter:
    """A stop flag that is set when the worker has looked at it so many times."""

    def __init__(self, looks: float) -> None:
        self.looks = looks

    @property
    def is_set(self) -> bool:
        self.looks -= 1
        return self.looks < 0


def _train(rank: int, run_dir: Path, looks: float) -> bool:
    from train.worker import run

    sys.stdout = (run_dir / f"rank-{rank}.log").open("a")
    # One rank is asked; the others have to follow at the same step.
    return run(run_dir, StopAfter(looks if rank == 0 else math.inf))


@pytest.fixture
def attempt(workers: Any) -> Callable[..., bool]:
    """Train a run directory until its end or a stop after so many looks; whether it finished."""

    def call(run_dir: Path, world_size: int = 1, looks: float = math.inf) -> bool:
        outcomes = set(in_processes(workers, world_size, _train, run_dir, looks))
        assert len(outcomes) == 1, "all ranks leave alike"
        return outcomes.pop()

    return call


@pytest.fixture
def whole_run(
    attempt: Callable[..., bool], shared_folder: Callable[[str], AbstractContextManager[Path]]
) -> Callable[..., Path]:
    """Train a recipe without a break, once for all tests, which only read it."""
    from tests.train import depth

    def call(recipe: Recipe, world_size: int = 1) -> Path:
        # Where the digits lie differs from process to process, not what they are.
        data = recipe.data.model_copy(update={"root": "digits"})
        text = dump_recipe(recipe.model_copy(update={"data": data}))
        name = f"{world_size} {depth.blocks()} {text}"
        with shared_folder(hashlib.sha256(name.encode()).hexdigest()) as run_dir:
            if not (run_dir / "results.json").exists():
                (run_dir / "config.yaml").write_text(dump_recipe(recipe))
                assert attempt(run_dir, world_size)
        return run_dir

    return call


@pytest.fixture
def shallow(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks with one block in each stage, here and in the processes that are started.

    A GPU trains the whole network, which takes it no time.
    """
    from tests.train import depth

    if request.node.get_closest_marker("gpu") is None:
        monkeypatch.setattr("train.model.BLOCKS", depth.SHALLOW)


@pytest.fixture
def recipe(digits_root: Path, shallow: None) -> Recipe:
    """Two epochs of three steps on 24 digits, tested on 12 in three batches; a shallow network."""
    return digits_recipe(digits_root)


def digits_recipe(digits_root: Path) -> Recipe:
    """Two epochs of three steps on 24 digits, tested on 12 in three batches."""
    return Recipe(
        run=Run(name="test", seed=1),
        data=Data(
            root=str(digits_root), md5="none", train_images=24, test_images=12, resolution=32
        ),
        optimizer=Optimizer(lr=0.02),
        schedule=Schedule(epochs=2, kind="cosine"),
        train=Train(batch_size=8, device="cpu", label_smoothing=0.1),
        evaluate=Evaluate(batch_size=4),
        logging=Logging(every_steps=2),
    )


@pytest.fixture
def same_on_any_ranks(digits_root: Path) -> Recipe:
    """Four steps whose batch norms see the same groups of images on 1, 2 and 4 ranks.

    At 64 px, for at 32 px the last maps are single pixels: there the statistics of few values
    amplify a last bit a thousandfold a step.
    """
    changes = {
        "data": {"train_images": 48, "resolution": 64},
        "optimizer": {"lr": 0.005},
        "train": {"batch_size": 16, "micro_batch_size": 4, "max_steps": 4},
        "logging": {"every_steps": 1},
    }
    recipe = digits_recipe(digits_root)
    return recipe.model_copy(
        update={name: getattr(recipe, name).model_copy(update=new) for name, new in changes.items()}
    )


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Make a run directory that holds nothing but `config.yaml`, as the worker needs it."""

    def make(recipe: Recipe, name: str = "run") -> Path:
        run_dir = tmp_path / name
        run_dir.mkdir()
        (run_dir / "config.yaml").write_text(dump_recipe(recipe))
        return run_dir

    return make


def environment_of(rank: int = 0, world_size: int = 1, port: int = 0) -> dict[str, str]:
    """What a worker is started with; one thread, for their number changes the last bits."""
    return os.environ | (place_of(rank, world_size, port) if world_size > 1 else ONE_THREAD)


def start_worker(run_dir: Path) -> subprocess.Popen[str]:
    """Start `python -m train --run DIR`; its output can be read from the process."""
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "train", "--run", str(run_dir)],
        cwd=PROJECT,
        env=environment_of(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def train() -> Callable[..., list[tuple[int, str, str]]]:
    """Train a run directory on `world_size` workers; exit code, stdout and stderr of each."""
    from tests.train import depth

    def call(run_dir: Path, world_size: int = 1) -> list[tuple[int, str, str]]:
        port = free_port()
        places = [environment_of(rank, world_size, port) for rank in range(world_size)]
        as_deep = functools.partial(depth.use, depth.blocks())
        workers = [
            warm.Started("train", "--run", run_dir, env=place, first=as_deep) for place in places
        ]
        return [(done.returncode, done.stdout, done.stderr) for done in (w.wait() for w in workers)]

    return call


@pytest.fixture
def data(tmp_path: Path) -> Data:
    """Three training and two test images of their own grey level each."""
    from configs.archives import ARCHIVE_NAME
    from tests.train.archives import write_grey  # torch takes seconds to import

    write_grey(tmp_path / ARCHIVE_NAME, [10, 20, 30], [40, 50])
    return Data(root=str(tmp_path), md5="none")


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This test's own temporary folder of the machine."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder
