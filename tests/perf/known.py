"""Compare the measured speed, CPU, memory and bytes read of the pace loader with the known ones.

    python -m tests.perf.known [--window-s 5]

Nothing else should run on the machine meanwhile: a disturbance changes the ratios.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import typer

from loaderbench.api import Artifact, Encoding, Work
from loaderbench.trial import TrialSpec, Window, measure

IMAGES_PER_S, CORES, SHARED_MIB, READ_MIB = 400.0, 0.2, 400, 32
EACH = {"own_cores": CORES, "child_cores": CORES, "grandchild_cores": CORES}


def main(window_s: float = 5.0) -> None:
    """Print each ratio."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        plain = measured(Path(folder), window_s, images_per_s=IMAGES_PER_S)
        known = measured(
            Path(folder), window_s, images_per_s=IMAGES_PER_S, **EACH, shared_mib=SHARED_MIB, read_mib=READ_MIB
        )
    memory_mib = known["anon_memory_mib"] - plain["anon_memory_mib"]
    for name, ratio in {
        "images/s": plain["images_per_s"] / IMAGES_PER_S,
        "images/s beside its costs": known["images_per_s"] / IMAGES_PER_S,
        "CPU": known["cores_used"] / (len(EACH) * CORES),
        "shared memory": memory_mib / SHARED_MIB,
        "read from disk": known["read_bytes"] / (READ_MIB << 20),
    }.items():
        print(f"{name}: {ratio:.3f} of what is known")
    print(f"reading the counters took {known['monitor_cpu_pct']:.2f} % of the window")


def measured(folder: Path, window_s: float, **options: Any) -> dict[str, Any]:
    """The columns of a trial of the pace loader."""
    artifact = Artifact("any", str(folder), 320, 0, 1, 1, Encoding("jpeg"))
    work, window = Work(batch_size=16, workers=2, image_size=64), Window(0.5, window_s, 4, None)
    spec = TrialSpec("pace", artifact, work, window, folder / "times.npz", options)
    result = measure(spec, folder / "log", 60 + 10 * window_s)
    assert result["status"] == "ok", result
    return result


if __name__ == "__main__":
    typer.run(main)
