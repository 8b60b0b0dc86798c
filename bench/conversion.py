"""How long does one conversion take, and did it store the right bytes? Runs in a fresh process."""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from bench import registry
from bench.api import Encoding
from bench.monitors.cpu import tree_seconds
from bench.monitors.tree import processes
from bench.store import CanonicalSource

if TYPE_CHECKING:
    from collections.abc import Iterable


def run(spec: dict[str, Any]) -> dict[str, Any]:
    """Write one format and compare what it stored, sample by sample, with the canonical bytes.

    `spec`: writer, canonical (folder), out (empty folder), encoding, workers.
    """
    writer = registry.writer(spec["writer"])
    source = CanonicalSource(Path(spec["canonical"]))
    out, encoding = Path(spec["out"]), Encoding(**spec["encoding"])
    for name in writer.requires:
        importlib.import_module(name)
    cpu_s, started = tree_seconds(processes()), perf_counter()
    writer.write(source, out, encoding, spec["workers"])
    write_s, cpu_s = perf_counter() - started, tree_seconds(processes()) - cpu_s
    size_bytes = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    original = encoding.mode == "original"
    stored = {"payload_bytes": size_bytes} if original else _compare(writer.payloads(out), source)
    if not original and stored["stored_raw"] + stored["stored_jpeg"] != len(source):
        right = stored["stored_raw"] + stored["stored_jpeg"]
        reason = f"of {len(source)} stored images, {right} hold the canonical pixels or JPEG bytes"
        return {"status": "invalid", "reason": reason}
    return {
        "status": "ok",
        "reason": "",
        "write_s": write_s,
        "cpu_s": cpu_s,
        "images_per_s": len(source) / write_s,
        "cpu_s_per_1k_images": 1000 * cpu_s / len(source),
        "size_bytes": size_bytes,
        "bytes_per_image": size_bytes / len(source),
        **stored,
    }


def _compare(payloads: Iterable[bytes], source: CanonicalSource) -> dict[str, int]:
    """Count the stored images that are exactly the canonical pixels, those that are the canonical JPEG bytes, and the
    bytes of all.
    """
    counts = {"stored_raw": 0, "stored_jpeg": 0, "payload_bytes": 0}
    canonical = zip(source.digests("pixels"), source.digests("jpeg"), strict=True)
    for payload, (pixels, jpeg) in zip(payloads, canonical, strict=False):
        digest = hashlib.sha256(payload).digest()
        counts["stored_raw"] += digest == pixels
        counts["stored_jpeg"] += digest == jpeg
        counts["payload_bytes"] += len(payload)
    return counts
