"""What does copying a million keys take, and how soon does the first object come? The bucket alone is simulated.

    python -m tests.perf.million_keys

Listings answer at once, and objects are empty: what is left is the work of this side. No second page is answered before
an object was fetched.
"""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path
from threading import Event, Lock
from typing import Any

from loaderbench.bucket import copy as copying
from loaderbench.machine.progress import Display

PAGES, PER_PAGE = 1000, 1000
_ANSWERS_WITHIN_S = 60


class Bucket:
    """All of what `loaderbench.bucket.copy` needs of one."""

    name, endpoint = "images", "http://simulated"

    def __init__(self) -> None:
        self.fetched = 0
        self.first_s = 0.0
        self._first, self._lock = Event(), Lock()

    def page(self, prefix: str, *, ContinuationToken: str = "0", **options: Any) -> dict[str, Any]:  # noqa: N803
        """Return a page of one long list, without folders."""
        if "MaxKeys" in options:
            return {"Contents": []}  # no object of the prefix's own name
        if "Delimiter" in options:
            return {"IsTruncated": True}
        page = int(ContinuationToken)
        if page and not self._first.wait(_ANSWERS_WITHIN_S):
            raise TimeoutError("no object was fetched before the second page was asked for")
        names = (f"set/class{page:04d}/a-name-as-long-as-they-are-{number:06d}" for number in range(PER_PAGE))
        contents = [{"Key": f"{name}.jpg", "Size": 0, "ETag": f'"{name[-32:]}"'} for name in names]
        return {"Contents": contents, "IsTruncated": page + 1 < PAGES, "NextContinuationToken": str(page + 1)}

    def fetch(self, *_: object) -> int:
        """Take the place of `loaderbench.bucket.transfer.fetch`."""
        with self._lock:
            self.fetched += 1
        if not self._first.is_set():
            self.first_s = time.perf_counter()
            self._first.set()
        return 0


def main() -> None:
    """Print the objects fetched, the seconds to the first, and the memory that it all took."""
    bucket = Bucket()
    copying.Bucket = lambda location: bucket  # type: ignore[assignment, misc]
    copying.fetch = bucket.fetch  # type: ignore[assignment]
    copying._Copy._place = lambda *_: None  # type: ignore[method-assign]  # a million files would try the file system
    before_mib = _peak_mib()
    with tempfile.TemporaryDirectory() as cache:
        started_s = time.perf_counter()
        copying.copy("s3://images/set", Path(cache), Display())
    print(f"{bucket.fetched} objects, the first after {bucket.first_s - started_s:.3f} s")
    print(f"{_peak_mib() - before_mib:.0f} MiB")


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
