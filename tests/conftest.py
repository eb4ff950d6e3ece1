"""What the tests of all folders share: archives of real images, and where bigger files are."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from jobs.worker import KEEP_MEMORY

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

PROJECT = Path(__file__).resolve().parents[1]
HAS_FAILED = pytest.StashKey[bool]()

# Started in the background of a script or by nohup, this process ignores a signal, and so would all
# its children.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
# As the launcher has it for its workers; the processes that pytest starts have it from here.
os.environ.update(KEEP_MEMORY)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests first, and those that wait for a cluster spread among those that compute.

    So no process is left with a long one at the end, where a tenth of the others is kept for, and
    the cores are busy all the time. Fixtures that are dear have the scope of the session, for no
    module's tests stay together.
    """
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)  # stable
    waiting = [item for item in items if item.get_closest_marker("slurm")]
    computing = [item for item in items if not item.get_closest_marker("slurm")]
    slow = [item for item in computing if item.get_closest_marker("slow")]
    # While one slow test computes, three others are waited for.
    early = 3 * len(slow)
    short = computing[len(slow) :]
    among = len(short) - len(short) // 10
    items[:] = spread(slow, waiting[:early]) + spread(short[:among], waiting[early:])
    items += short[among:]
    # Each process begins with two of them. Where Slurm has to be installed and started first, one
    # process does it while the others compute.
    for place, item in zip((2, 4, 6), slow[1:4], strict=False):
        items.remove(item)
        items.insert(place, item)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Imports make no garbage, and looking for it takes a fifth of the time of a collection.

    Nor is it looked for later among what they made, not even by pytest at its end.
    """
    gc.disable()  # not where this file is imported, for the forks of tests/warm.py import it, too
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
        # Libraries written in C++ complain of what is left at the very end.
        atexit.register(gc.unfreeze)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Remember a failure until the test's folder is looked through."""
    report = yield
    item.stash[HAS_FAILED] = item.stash.get(HAS_FAILED, False) or report.failed
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Function) -> Iterator[None]:
    """Remove what a passed test leaves, but only the big files, or a suite leaves 15 GB.

    Where thousands of files come and go, ext4 looks through those of the last minutes for each new
    one, since it does not use their places again so soon: 4 % of the suite's time.
    """
    folder = item.funcargs.get("tmp_path")
    try:
        return (yield)
    finally:
        if folder and not item.stash.get(HAS_FAILED, False):
            remove_big_files(folder)


def remove_big_files(folder: Path) -> None:
    """Those of over a mebibyte; what was started there may still come to its end."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            with contextlib.suppress(FileNotFoundError):
                if path.lstat().st_size > 2**20:
                    path.unlink()


def spread(*groups: list[pytest.Item]) -> list[pytest.Item]:
    """The items of all groups in one list, those of each at equal distances."""
    places = [
        ((number + 0.5) / len(group), item) for group in groups for number, item in enumerate(group)
    ]
    return [item for _, item in sorted(places, key=lambda place: place[0])]


@pytest.fixture
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """A started Chromium with an empty profile; see tests/browser.py for what it can be asked."""
    from tests.browser import started

    with started(tmp_path_factory.mktemp("profile")) as chromium:
        yield chromium


@pytest.fixture(scope="session")
def shared_folder(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], AbstractContextManager[Path]]:
    """A folder that all processes of the suite see, for one of them at a time.

    What takes long to make is made by whoever comes first; the others only read it.
    """
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    @contextlib.contextmanager
    def opened(name: str) -> Iterator[Path]:
        folder = base / "shared" / name
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            yield folder

    return opened


@pytest.fixture(scope="session")
def digits_root(shared_folder: Callable[[str], AbstractContextManager[Path]]) -> Path:
    """A folder with scikit-learn's digits in CIFAR-10's archive layout."""
    from configs.archives import ARCHIVE_NAME
    from train.digits import write_digits

    with shared_folder("digits") as root:
        if not (root / ARCHIVE_NAME).exists():
            write_digits(root / ARCHIVE_NAME)
    return root


def named_by(variable: str, what: str) -> Path:
    """The path in an environment variable; the test is skipped, with the reason, without it."""
    value = os.environ.get(variable)
    if not value:
        # They are no part of the repository; .ci/run names them where they lie beside it.
        pytest.skip(f"needs {what}: set {variable}")
    return Path(value)


@pytest.fixture(scope="session")
def real_cifar10() -> Path:
    """A folder with an archive of real CIFAR-10 images."""
    return named_by("TEST_CIFAR10_ROOT", "a folder with cifar-10-python.tar.gz")


@pytest.fixture(scope="session")
def real_weights() -> Path:
    """A ResNet-50 pretrained on ImageNet, in mmcls's layout."""
    return named_by("TEST_WEIGHTS", "an ImageNet ResNet-50 checkpoint in mmcls's layout")
