"""Compare copying from S3 with s5cmd, alternated in one run, from a real S3 server on loopback.

    python -m tests.perf.s3_rate [--objects 5000] [--size-bytes 100000] [--pairs 10]
    python -m tests.perf.s3_rate --objects 1 --size-bytes 1000000000 [--no-check]

Each download goes into an empty folder; together they take 11 GB until the end. The rate covers listing, fetching and
files in place. The copy also checks MD5s, which s5cmd does not. That limits one large object from this server, whose
ETags are all MD5s; objects uploaded in parts have others. `--no-check` omits the check, to show what it takes. The copy
is one call in this process, s5cmd one command. Both use the same server, which runs on the same cores. The ratio is the
geometric mean over pairs, with a 95 % t interval on the logarithms.
"""

from __future__ import annotations

import math
import os
import random
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from loaderbench.bucket import loopback, rclone
from loaderbench.bucket.copy import copy
from loaderbench.findings.comparison import ratio
from loaderbench.machine.progress import Display

if TYPE_CHECKING:
    from collections.abc import Iterator

PER_CLASS = 100
_CHUNK_BYTES = 16 << 20


class Silent(Display):
    """Says nothing."""

    def say(self, text: str) -> None:
        """Say nothing."""


def main(objects: int = 5000, size_bytes: int = 100_000, pairs: int = 10, *, check: bool = True) -> None:
    """Print the objects per second of each download, and the ratio of the two."""
    if not check:
        rclone._OPTIONS["ignore-checksum"] = "true"
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        _fill(root / "buckets" / "images" / "set", objects, size_bytes)
        with loopback.serve(root / "buckets") as endpoint:
            found = loopback.environment(endpoint)
            os.environ.clear()
            os.environ.update(found)
            _copy_s(root), _s5cmd_s(root, endpoint)  # the server reads its disk for the first time
            logs = []
            for pair in range(pairs):
                if pair % 2:
                    s5cmd_s, copy_s = _s5cmd_s(root, endpoint), _copy_s(root)
                else:
                    copy_s, s5cmd_s = _copy_s(root), _s5cmd_s(root, endpoint)
                logs.append(math.log(s5cmd_s / copy_s))
                rates = f"{objects / copy_s:,.0f} objects/s, s5cmd {objects / s5cmd_s:,.0f}"
                print(f"{rates}: {s5cmd_s / copy_s:.2f} times", flush=True)
        spread = f"{math.exp(min(logs)):.2f} to {math.exp(max(logs)):.2f} in single pairs"
        print(
            f"{objects} objects of {size_bytes} bytes, {pairs} pairs: {ratio(logs)} of s5cmd's rate, {spread}",
            flush=True,
        )


def _fill(folder: Path, objects: int, size_bytes: int) -> None:
    draw = random.Random(0)
    for number in range(objects):
        path = folder / f"class{number // PER_CLASS:03d}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for start in range(0, size_bytes, _CHUNK_BYTES):
                file.write(draw.randbytes(min(_CHUNK_BYTES, size_bytes - start)))


def _copy_s(root: Path) -> float:
    with _rested(root) as out:
        started_s = time.perf_counter()
        copy("s3://images/set", out, Silent())
        return time.perf_counter() - started_s


def _s5cmd_s(root: Path, endpoint: str) -> float:
    with _rested(root) as out:
        command = [rclone.program("s5cmd"), "--endpoint-url", endpoint, "cp", "s3://images/set/*", f"{out}/"]
        started_s = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - started_s


@contextmanager
def _rested(root: Path) -> Iterator[Path]:
    """Give an empty folder once the disk is at rest, and see that the download into it is complete.

    Nothing is removed before the end: ext4 makes files several times slower in the seconds after many were.
    """
    os.sync()
    out = Path(tempfile.mkdtemp(dir=root))
    yield out
    expected = sum(1 for path in (root / "buckets").rglob("*.jpg"))
    assert sum(1 for path in out.rglob("*.jpg")) == expected


if __name__ == "__main__":
    typer.run(main)
