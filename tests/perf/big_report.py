"""Measure the CPU time and memory that a report on 10,000 trials takes.

python -m tests.perf.big_report
"""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path

from loaderbench.records import trials_csv
from loaderbench.report import report
from tests import fabricate

TRIALS = 10_000
_KIB_PER_MIB = 1024


def main() -> None:
    """Print CPU-seconds and MiB."""
    blocks = TRIALS // len(fabricate.CAST)
    with tempfile.TemporaryDirectory() as name:
        folder = fabricate.campaign(Path(name, "campaign"), fabricate.finished(blocks=blocks), blocks=blocks)
        rows = [row for row in trials_csv.read(folder / "trials.csv") if row.kind == "load"]
        start_s = time.process_time()
        report.write(folder, Path(name, "report"))
        taken_s = time.process_time() - start_s
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _KIB_PER_MIB
    print(f"{len(rows):,} trials: {taken_s:.1f} CPU-s, {peak_mib:.0f} MiB at most")


if __name__ == "__main__":
    main()
