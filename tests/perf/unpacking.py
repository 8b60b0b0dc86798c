"""Compare unpacking ImageNet's tar of tars in one pass with `tar` in two stages.

    python -m tests.perf.unpacking [--pairs 7] [--synsets 40] [--images 130] [--where FOLDER] [--out FILE]

The archive is made for each run: the requested images per synset, of random bytes, 110 kB on average as ImageNet's.
Both ways take turns, each into an empty folder, the archive in the page cache, the time until all is on the disk. The
ratio is the geometric mean over pairs of tar's seconds over ours, with a 95 % t interval on the logarithms: above 1 is
faster than tar. Beside it, the CPU time of each, and the bytes that it wrote for each byte of the images.
"""

from __future__ import annotations

import csv
import io
import math
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import typer

from loaderbench.campaign.schema import Data
from loaderbench.findings.comparison import ratio
from loaderbench.images import find
from loaderbench.machine.progress import Display

if TYPE_CHECKING:
    from collections.abc import Callable

MEAN_BYTES = 110_000
SPREAD = 0.6  # standard deviation of the logarithm of a file's size


def main(
    pairs: int = 7,
    synsets: int = 40,
    images: int = 130,
    where: Path | None = None,
    out: Path = Path("results/unpacking.csv"),
) -> None:
    """Measure both ways."""
    out.parent.mkdir(parents=True, exist_ok=True)
    ways = {"loaderbench": unpack, "tar": unpack_in_two_stages}
    with tempfile.TemporaryDirectory(dir=where) as folder, out.open("w", newline="") as file:
        archive = Path(folder, "ILSVRC2012_img_train.tar")
        image_bytes = make(archive, synsets, images)
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["pair", "first", *(f"{way}_{what}" for way in ways for what in ("s", "cpu_s", "written_bytes"))])
        logs, cpu_s, written = [], dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0)
        for pair in range(pairs):
            order = list(ways)[:: -1 if pair % 2 else 1]
            taken = {way: timed(ways[way], archive, Path(folder, "out")) for way in order}
            logs.append(math.log(taken["tar"][0] / taken["loaderbench"][0]))
            for way in ways:
                cpu_s[way] += taken[way][1] / pairs
                written[way] += taken[way][2]
            rows.writerow([pair + 1, order[0], *(figure for way in ways for figure in taken[way])])
            print(", ".join(f"{way} {taken[way][0]:.2f} s" for way in ways), flush=True)
    print(f"{synsets * images:,} images, {image_bytes / 2**20:,.0f} MiB: {ratio(logs)} times tar's speed")
    for way in ways:
        print(f"{way}: {cpu_s[way]:.2f} s of CPU, {written[way] / pairs / image_bytes:.2f} bytes written per byte")


def make(archive: Path, synsets: int, images: int) -> int:
    """Write a tar of tars; return the bytes of its images."""
    random = np.random.default_rng(0)
    image_bytes = 0
    with tarfile.open(archive, "w") as outer:
        for synset in range(synsets):
            stream = io.BytesIO()
            with tarfile.open(fileobj=stream, mode="w") as inner:
                for number in range(images):
                    size = int(MEAN_BYTES * random.lognormal(-(SPREAD**2) / 2, SPREAD))
                    add(inner, f"n{synset:08d}_{number}.JPEG", random.bytes(size))
                    image_bytes += size
            add(outer, f"n{synset:08d}.tar", stream.getvalue())
    return image_bytes


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def timed(way: Callable[[Path, Path], None], archive: Path, out: Path) -> tuple[float, float, int]:
    """Seconds until all is on the disk, seconds of CPU, and the bytes written."""
    out.mkdir()
    os.sync()
    before, cpu_s, start = written_bytes(), sum(os.times()[:4]), time.perf_counter()
    way(archive, out)
    os.sync()
    taken = time.perf_counter() - start, sum(os.times()[:4]) - cpu_s, written_bytes() - before
    shutil.rmtree(out)
    return taken


def written_bytes() -> int:
    """Bytes that this process and those that it has waited for have written."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["write_bytes"])


def unpack(archive: Path, out: Path) -> None:
    find(archive, Data(), out, Display())


def unpack_in_two_stages(archive: Path, out: Path) -> None:
    """As ImageNet's instructions go: the outer tar, then each inner one into its folder, and away with it."""
    subprocess.run(["tar", "-xf", archive, "-C", out], check=True)
    for tar in sorted(out.glob("*.tar")):
        tar.with_suffix("").mkdir()
        subprocess.run(["tar", "-xf", tar, "-C", tar.with_suffix("")], check=True)
        tar.unlink()


if __name__ == "__main__":
    typer.run(main)
