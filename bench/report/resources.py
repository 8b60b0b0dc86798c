"""Sections on what loaders take: CPU, GPU, memory, disk and time; and on what this machine can do."""

import json
from typing import Any

from loaderbench.api import Encoding
from loaderbench.findings import disk_reads, frontier
from loaderbench.formats import deviation
from loaderbench.report.markdown import cell, interval, medians
from loaderbench.report.material import Material

_MB, _GB = 1e6, 1e9
_BATCH_MEMORY = {
    "shared": "worker processes",
    "private": "its own process",
    "pinned": "page-locked memory",
    "device": "the GPU",
}
"""Where batches come from, by the column `batch_memory`."""


def costs(material: Material) -> dict[str, Any] | None:
    """Return the values of the section on speed against its price."""
    if not {"speed-cost.png", "speed-size.png"} & material.pictures.keys():
        return None
    found = frontier.frontiers(material.analysis)
    return {"frontiers": [(one.images, "; ".join(s.title for s in one.contestants)) for one in found]}


def limits(material: Material) -> dict[str, Any] | None:
    """Return the values of the section on the machine limits."""
    missing = {step: f"not measured: {reason}" for step, reason in material.analysis.limits_missing.items()}
    steps = [*material.analysis.limits.items(), *missing.items()]
    unlimited = [s for s in material.analysis.measured if "pct_of_bound" not in s.medians and s.bound_reason]
    return {"steps": steps, "unlimited": unlimited} if steps else None


def cold(material: Material) -> dict[str, Any] | None:
    """Return the values of the section on reading from disk."""
    epochs = []
    for c in material.analysis.cold_starts:
        cold_s, speed, read_bytes = medians(c.cold, "epoch1_s", "images_per_s", "read_bytes")
        read_mb = None if read_bytes is None else read_bytes / _MB
        row = (c.warm.title, *medians(c.warm, "epoch1_s"), cold_s or c.cold.trouble, interval(c.ratio))
        epochs.append((*row, speed, read_mb, c.states))
    return {"epochs": epochs} if epochs else None


def from_disk(material: Material) -> dict[str, Any] | None:
    """Return the values of the section on what the page cache cannot hold."""
    found = disk_reads.disk_reads(material.analysis)
    contestants = []
    for one in found:
        speed, share_pct, rate = medians(one.summary, "images_per_s", "from_memory_pct", "read_mb_per_s")
        limits = [one.sequential_mb_per_s, one.random_mb_per_s]
        contestants.append([one.summary.title, speed, one.read_kb, one.takes_kb, share_pct, rate, *limits])
    text = disk_reads.conclusion(found, disk_reads.memory_limit_mib(material.campaign))
    return {"contestants": contestants, "conclusion": cell(text)} if found else None


def waiting(material: Material) -> dict[str, Any] | None:
    """Return the values of the section on start-up and waits."""
    if "first-batch.png" not in material.pictures:
        return None
    waits = []
    for s in material.analysis.measured:
        start = medians(s, "import_s", "construct_s", "first_batch_s", "epoch_gap_s")
        waited = medians(s, "wait_p50_ms", "wait_p95_ms", "wait_p99_ms", "wait_max_ms")
        waits.append([s.title, *start, *waited, *medians(s, "later_epochs_images_per_s", "prefetch_bias_bound_pct")])
    return {"waits": waits}


def conversion(material: Material) -> dict[str, Any] | None:
    """Return the values of the section on writing the formats."""
    writes = material.analysis.writes
    if not writes:
        return None
    formats = []
    for w in writes:
        size_gb = w.size_bytes / _GB if w.size_bytes else None
        written = [w.write_synced_s, w.images_per_s, w.cpu_s, size_gb, w.bytes_per_image]
        formats.append([w.title, w.adapter, w.stored, *written, w.versions, w.status])
    deviations = [(w.title, deviation(Encoding(**json.loads(w.options)), w.stored)) for w in writes if w.stored]
    return {
        "formats": formats,
        "untimed": any(w.status == "ok" and w.write_synced_s is None for w in writes),
        "synced": all(w.write_s is None for w in writes),
        "deviations": [(title, reason) for title, reason in deviations if reason],
    }


def load(material: Material) -> dict[str, Any] | None:
    """Return the values of the section on CPU, GPU and memory."""
    if "load.png" not in material.pictures:
        return None
    uses, gpu = [], []
    for s in material.analysis.measured:
        used = medians(s, "cpu_s_per_1k_images", "cores_used", "anon_memory_mib", "file_backed_mib")
        origin = _BATCH_MEMORY.get(s.batch_memory, s.batch_memory)
        uses.append([s.title, *used, origin, *medians(s, "context_switches_per_s", "monitor_cpu_pct")])
        shares = medians(s, "gpu_util_pct", "gpu_sm_active_pct", "gpu_dram_pct")
        gpu.append([s.title, *shares, *medians(s, "gpu_power_w", "gpu_energy_j", "gpu_sm_clock_mhz", "gpu_memory_mib")])
    return {"uses": uses, "gpu": gpu if material.env["gpu"] else []}
