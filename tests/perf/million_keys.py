"""Measure the memory and time that copying a million keys takes, beside rclone.

    python -m tests.perf.million_keys

The bucket is simulated: its listing answers at once, and nothing is fetched. What is left is the work of the harness.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loaderbench.bucket import copy as copying
from loaderbench.bucket.client import S3Error
from loaderbench.machine.progress import Display

KEYS, PER_FOLDER = 1_000_000, 1000


class Bucket:
    """All that `loaderbench.bucket.copy` needs of a bucket."""

    name, endpoint = "images", "http://simulated"

    def objects(self, prefix: str, **options: Any) -> Iterator[dict[str, Any]]:
        """Yield small objects in folders; none has the prefix's own name."""
        modified = datetime.now(UTC)
        for number in range(0 if options else KEYS):
            folder, name = f"class{number // PER_FOLDER:04d}", f"a-name-as-long-as-they-are-{number:07d}.jpg"
            yield {
                "Key": f"{prefix}{folder}/{name}",
                "Size": 1000,
                "ETag": f'"{number:032x}"',
                "LastModified": modified,
            }

    def is_encrypted(self, key: str) -> bool:
        """Return that it is not."""
        return False


def main() -> None:
    """Print the keys handed to rclone, the seconds until then, and the peak memory."""
    copying.Bucket = lambda location: Bucket()  # type: ignore[assignment, misc, return-value]
    handed: list[tuple[int, float]] = []

    def download(bucket: object, at: object, names: Collection[str], *_: Callable[[int], None]) -> None:
        handed.append((len(names), time.perf_counter()))

    copying.rclone.download = download  # type: ignore[assignment]
    before_mib = _peak_mib()
    with tempfile.TemporaryDirectory() as cache, suppress(S3Error):  # nothing has arrived, it says
        started_s = time.perf_counter()
        copying.copy("s3://images/set", Path(cache), Display())
    names, reached_s = handed[0]  # later calls try again what has not arrived
    print(f"{names} objects, handed to rclone after {reached_s - started_s:.1f} s")
    print(f"{_peak_mib() - before_mib:.0f} MiB")


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
