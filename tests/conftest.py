"""Fixtures for all tests: tiny data, the planted third-party adapters, and forked child processes."""

from __future__ import annotations

import fcntl
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from loaderbench.bucket import loopback
from loaderbench.campaign import campaign as config
from loaderbench.campaign import registry
from loaderbench.campaign.campaign import Campaign
from loaderbench.formats import Prepared, prepare
from loaderbench.images import CanonicalImages
from loaderbench.machine import files, machine_lock
from loaderbench.machine.files import building
from loaderbench.machine.progress import Display
from tests import buckets
from tests.campaigns import Ready
from tests.nursery import Nursery
from tests.proxy import Proxy, point, proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

PLANTED = Path(__file__).parent / "planted"
CLASSES, PER_CLASS = 3, 32
LONGEST = (
    "test_s3",
    "test_s3_faults",
    "test_ranks",
    "test_repository",
    "test_datamodule",
    "test_streaming",
    "test_certify",
    "test_reproduction",
    "test_runner",
    "test_report",
    "test_report_sections",
    "test_loaders",
    "test_consumers",
    "test_image_kinds",
    "test_certification",
    "test_tuning_runs",
    "test_cli",
    "test_examples",
)
"""Test files that take longer than 8 s, the longest first."""


def pytest_configure(config: pytest.Config) -> None:
    """Let the test processes use the machine at the same time, and not wait for each other's disk writes.

    No test but those in tests/gpu sees a GPU, so that the others hold beside one too.
    """
    os.environ[machine_lock.VARIABLE] = f"loaderbench-tests-{os.getpid()}"
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if hasattr(config, "workerinput"):
        files._syncfs = lambda _: 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the files that take longest, so that both test processes end at about the same time."""
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (order.get(item.path.stem, len(order)), item.path))


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A folder that all processes of this test run share."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if hasattr(request.config, "workerinput") else own) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder in which one process creates something for all processes of the test run."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # explicitly: a child may have a copy of the descriptor
        os.close(descriptor)


@pytest.fixture(scope="session")
def tree(shared: Path) -> Path:
    """An ImageFolder tree of 96 small JPEGs of several sizes in 3 classes."""
    root = shared / "tree"
    with _one_at_a_time(shared):
        if not root.exists():
            with building(root) as partial:
                _grow(partial)
    return root


def _grow(root: Path) -> None:
    random = np.random.default_rng(0)
    for label in range(CLASSES):
        folder = root / f"class{label}"
        folder.mkdir()
        for number in range(PER_CLASS):
            height, width = random.integers(40, 90, 2)
            coarse = random.integers(0, 255, (6, 6, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / f"{number}.jpg"), cv2.resize(coarse, (int(width), int(height))))


@pytest.fixture(scope="session")
def quick() -> Campaign:
    """The default campaign with further formats, reduced to the size of a test."""
    campaign = config.load(
        "quick",
        {
            "data": {"samples": None},
            "work": {"batch_size": 16, "workers": 2, "image_size": 32, "epoch_images": 192},
            "timing": {"warmup_s": 0.1, "window_s": 0.3, "window_batches": 5, "pause_s": 0.3, "limit_s": 600},
        },
    )
    further = [
        {"name": "ffcv-half", "title": "half", "writer": "ffcv", "mode": "proportion", "compress_probability": 0.5},
        {"name": "ffcv-smart", "title": "smart", "writer": "ffcv", "mode": "smart", "smart_threshold_bytes": 12_000},
        {"name": "litdata-again", "title": "encoded again", "writer": "litdata", "mode": "jpeg-reencoded"},
    ]
    content = campaign.model_dump()
    return Campaign.model_validate({**content, "formats": [*content["formats"], *further]})


@pytest.fixture(scope="session")
def nursery() -> Nursery:
    """The process that forks children for this process."""
    return Nursery()


@pytest.fixture(scope="module")
def forked(nursery: Nursery) -> Iterator[None]:
    """Fork trials, conversions and other tasks instead of starting them, until the last test of the module."""
    with nursery.replacing():
        yield


@pytest.fixture(scope="session")
def ready(tree: Path, shared: Path, nursery: Nursery) -> Ready:
    """Return a function that prepares a campaign on the tree, in one cache that all tests share."""

    def ready(chosen: Campaign) -> Prepared:
        with _one_at_a_time(shared), nursery.replacing():
            return prepare(chosen, tree, shared / "cache", Display(), strict=True)

    return ready


@pytest.fixture(scope="session")
def everything(quick: Campaign, ready: Ready) -> Prepared:
    """The tree in all formats, written by the real libraries."""
    return ready(quick)


@pytest.fixture(scope="session")
def canonical(everything: Prepared) -> CanonicalImages:
    """The canonical images that all formats were written from."""
    return CanonicalImages(everything.canonicals["original"])


@pytest.fixture(scope="module")
def planted() -> Iterator[None]:
    """Install the planted adapters for this process and its children, until the last test of the module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PLANTED))
        patch.setenv("PYTHONPATH", str(PLANTED), prepend=":")
        registry.adapters.cache_clear()
        yield
    registry.adapters.cache_clear()
    for path in PLANTED.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.fixture(scope="module")
def bucket_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Buckets with files for copying, and one that tests may write to."""
    root = tmp_path_factory.mktemp("buckets")
    buckets.grow(root / "images" / "set", 6, 20)
    buckets.grow(root / "images" / "killed", 10, 100)  # now, because the server remembers what a folder holds
    (root / "writable").mkdir()
    return root


@pytest.fixture(scope="module")
def server(bucket_root: Path) -> Iterator[str]:
    """An S3 server on loopback that holds `bucket_root`; some modules define their own."""
    with loopback.serve(bucket_root) as endpoint:
        yield endpoint


@pytest.fixture
def original(bucket_root: Path) -> dict[str, bytes]:
    """The content of each file below `buckets.URL`."""
    return buckets.content(bucket_root / "images" / "set")


@pytest.fixture
def between(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy in front of the module's `server`; the environment points to the proxy."""
    with proxy(server) as state:
        point(monkeypatch, loopback.environment(state.endpoint))
        yield state


@pytest.fixture
def one_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit reports to their first picture, because drawing all takes seconds."""
    from loaderbench.report import plots

    monkeypatch.setattr(plots, "PLOTS", plots.PLOTS[:1])
