"""Write one format with its library, time it, and check what it stored. Runs in a process of its own."""

import importlib
import os
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from loaderbench.api import Encoding
from loaderbench.campaign import registry
from loaderbench.formats.modes import ORIGINALS
from loaderbench.formats.payloads import StoredError, read_back
from loaderbench.images.canonical_store import CanonicalImages
from loaderbench.machine.counters import processes, tree_seconds
from loaderbench.machine.files import flush_disk, open_disk


@dataclass(frozen=True)
class Conversion:
    """What to write, and where."""

    writer: str
    images: CanonicalImages
    encoding: Encoding
    workers: int
    out: Path
    """The folder is empty, or holds what a stopped conversion left."""


def run(spec: Conversion) -> dict[str, Any]:
    """Write one format and return the columns of `Record` that describe it.

    The times end when all is on the disk. A conversion that resumes reports no times. A format that does not store one
    readable image for each source image is reported as `invalid`.
    """
    writer, source, out = registry.writer(spec.writer), spec.images, spec.out
    for name in writer.requires:
        importlib.import_module(name)
    resumes = any(out.iterdir())
    disk = open_disk(out)
    flush_disk(disk)  # so that the flush at the end waits for nothing that was written before
    cpu_s, started = tree_seconds(processes()), perf_counter()
    writer.write(source, out, spec.encoding, spec.workers)
    flush_disk(disk)
    write_s, cpu_s = perf_counter() - started, tree_seconds(processes()) - cpu_s
    os.close(disk)
    size_bytes = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    try:
        if spec.encoding.mode == "original":
            columns = {"stored": ORIGINALS, "payload_bytes": size_bytes}
        else:
            columns = read_back(lambda: writer.payloads(out), source)
    except StoredError as error:
        return {"status": "invalid", "reason": str(error)}
    times = {
        "write_synced_s": write_s,
        "cpu_s": cpu_s,
        "images_per_s": len(source) / write_s,
        "cpu_s_per_1k_images": 1000 * cpu_s / len(source),
    }
    return {
        "status": "ok",
        "reason": "",
        **({} if resumes else times),
        "size_bytes": size_bytes,
        "bytes_per_image": size_bytes / len(source),
        **columns,
    }
