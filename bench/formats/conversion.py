"""Write one format with its library, time it, and check what it stored; each in a process of its own."""

import importlib
import os
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from loaderbench.api import Encoding, Writer
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
    is_written: bool = False
    """Whether the folder holds all of the format, from a bucket."""


def run(spec: Conversion) -> dict[str, Any]:
    """Write one format, unless it is written, and return the columns of `Record` that describe it.

    A format that does not store one readable image for each source image is reported as `invalid`.
    """
    writer, source, out = registry.writer(spec.writer), spec.images, spec.out
    for name in writer.requires:
        importlib.import_module(name)
    times = {} if spec.is_written else _write(writer, spec)
    size_bytes = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    try:
        if spec.encoding.mode == "original":
            columns = {"stored": ORIGINALS, "payload_bytes": size_bytes}
        else:
            columns = read_back(lambda: writer.payloads(out), source)
    except StoredError as error:
        return {"status": "invalid", "reason": str(error)}
    return {
        "status": "ok",
        "reason": "",
        **times,
        "size_bytes": size_bytes,
        "bytes_per_image": size_bytes / len(source),
        **columns,
    }


def _write(writer: Writer, spec: Conversion) -> dict[str, float]:
    """Write one format and return the columns of its times, which end when all is on the disk; none if it resumes."""
    resumes, samples, disk = any(spec.out.iterdir()), len(spec.images), open_disk(spec.out)
    flush_disk(disk)  # so that the flush at the end waits for nothing that was written before
    cpu_s, started = tree_seconds(processes()), perf_counter()
    writer.write(spec.images, spec.out, spec.encoding, spec.workers)
    flush_disk(disk)
    write_s, cpu_s = perf_counter() - started, tree_seconds(processes()) - cpu_s
    os.close(disk)
    if resumes:
        return {}
    return {
        "write_synced_s": write_s,
        "cpu_s": cpu_s,
        "images_per_s": samples / write_s,
        "cpu_s_per_1k_images": 1000 * cpu_s / samples,
    }
