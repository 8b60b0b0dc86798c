"""How long does one conversion take, and what did it store? Runs in a fresh process."""

from __future__ import annotations

import importlib
from pathlib import Path
from time import perf_counter
from typing import Any

from loaderbench.api import Encoding
from loaderbench.campaign import registry
from loaderbench.formats import payloads as stored
from loaderbench.images.canonical_store import CanonicalImages
from loaderbench.machine.counters import processes, tree_seconds


def run(spec: dict[str, Any]) -> dict[str, Any]:
    """Write one format and tell what it stored.

    `spec`: writer, canonical (folder), out (empty, or what a stopped conversion left), encoding, workers. How long it
    took is not told of a conversion that went on.
    """
    writer = registry.writer(spec["writer"])
    source = CanonicalImages(Path(spec["canonical"]))
    out, encoding = Path(spec["out"]), Encoding(**spec["encoding"])
    for name in writer.requires:
        importlib.import_module(name)
    goes_on = any(out.iterdir())
    cpu_s, started = tree_seconds(processes()), perf_counter()
    writer.write(source, out, encoding, spec["workers"])
    write_s, cpu_s = perf_counter() - started, tree_seconds(processes()) - cpu_s
    size_bytes = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    try:
        if encoding.mode == "original":
            columns = {"stored": stored.ORIGINALS, "payload_bytes": size_bytes}
        else:
            columns = stored.read_back(lambda: writer.payloads(out), source)
    except stored.StoredError as error:
        return {"status": "invalid", "reason": str(error)}
    took = {
        "write_s": write_s,
        "cpu_s": cpu_s,
        "images_per_s": len(source) / write_s,
        "cpu_s_per_1k_images": 1000 * cpu_s / len(source),
    }
    return {
        "status": "ok",
        "reason": "",
        **({} if goes_on else took),
        "size_bytes": size_bytes,
        "bytes_per_image": size_bytes / len(source),
        **columns,
    }
