"""A transfer of a format reports its progress, and stops on Ctrl-C."""

from __future__ import annotations

import os
import random
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from loaderbench.bucket import loopback, rclone
from loaderbench.bucket.client import S3Error
from loaderbench.bucket.repository import Repository
from loaderbench.machine.progress import Display
from tests.proxy import point, proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = "s3://artifacts/ready"
LARGE_BYTES = 100 << 20


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """The folder of a format of one file."""
    path = tmp_path / "large" / "files" / "one"
    path.parent.mkdir(parents=True)
    path.write_bytes(random.Random(0).randbytes(LARGE_BYTES))
    return path.parent.parent


@pytest.fixture
def heeding() -> Iterator[None]:
    """Let Ctrl-C interrupt this process even if a background shell ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty bucket."""
    (tmp_path / "buckets" / "artifacts").mkdir(parents=True)
    with loopback.serve(tmp_path / "buckets") as endpoint:
        point(monkeypatch, loopback.environment(endpoint))
        yield


@pytest.mark.usefixtures("heeding", "bucket")
@pytest.mark.parametrize("way", ["publish", "pull"])
def test_a_transfer_reports_progress_within_a_file_and_stops_on_ctrl_c(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    there = Repository(HERE)
    if way == "pull":
        there.publish(large, {}, Display())
    monkeypatch.setitem(rclone._OPTIONS, "bwlimit", "20M")
    told = list[int]()

    class Interrupting(Display):
        @contextmanager
        def transfer(self, what: str) -> Iterator[Callable[[int, int | None], None]]:
            def on_progress(done: int, total: int | None) -> None:
                told.append(done)
                if done:
                    signal.raise_signal(signal.SIGINT)

            yield on_progress

    ways: dict[str, Callable[[], object]] = {
        "publish": lambda: there.publish(large, {}, Interrupting()),
        "pull": lambda: there.pull("large", tmp_path / "back", Interrupting()),
    }
    with pytest.raises(KeyboardInterrupt):
        ways[way]()
    assert 0 < max(told) < LARGE_BYTES
    assert there.has("large") == (way == "pull")
    assert not (tmp_path / "back" / "one").exists()


@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize("way", ["publish", pytest.param("pull", marks=pytest.mark.slow)])
def test_a_transfer_without_progress_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """The server keeps the connection, and rclone waits for it."""
    path = tmp_path / "small" / "files" / "one"
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(1000))
    there = Repository(HERE)
    if way == "pull":
        there.publish(path.parent.parent, {}, Display())
    monkeypatch.setattr(rclone, "_STALLED_S", 0.5)
    with proxy(os.environ["AWS_ENDPOINT_URL"]) as between:
        between.put_fault = lambda name: "stall"
        between.fault = lambda key, _: "stall" if key.endswith("one") else ""
        monkeypatch.setenv("AWS_ENDPOINT_URL", between.endpoint)
        there = Repository(HERE)
        ways: dict[str, Callable[[], object]] = {
            "publish": lambda: there.publish(path.parent.parent, {}, Display()),
            "pull": lambda: there.pull("small", tmp_path / "back", Display()),
        }
        with pytest.raises(S3Error, match=r"lost the connection to .* \(timeout: no progress in \d s\)"):
            ways[way]()
