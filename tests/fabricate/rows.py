"""Make up rows: the same call gives the same row."""

from __future__ import annotations

import json
import math
import random
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from loaderbench.campaign import tuning
from loaderbench.campaign.plan import prefix
from loaderbench.findings.findings import GpuUse
from loaderbench.records.certificates import Certificate
from loaderbench.records.record import Record
from loaderbench.records.timeline import Timeline
from tests.fabricate.cast import (
    BOUND_BY,
    DISK_BYTES_PER_S,
    ENCODING,
    EPOCH_IMAGES,
    FORMATS,
    LIMITS,
    MODES,
    NO_GPU,
    SAMPLES,
    SPEEDUP,
    STORED,
    STREAM,
    TRAINED_IMAGES_PER_S,
    TUNING,
    Actor,
    best_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def load(  # long, because a row has many columns
    actor: Actor, block: int, *, cache: str = "warm", attempt: int = 1, **changes: Any
) -> Record:
    """Return a trial's row; `changes` replace its columns. The same call gives the same row."""
    speed = actor.images_per_s * random.Random(f"{actor.name}/{block}").gauss(1, 0.015)
    imported, constructed, first = actor.start_s
    size_bytes = int(actor.bytes_per_image * SAMPLES)
    reading_s = size_bytes / DISK_BYTES_PER_S if cache == "cold" else 0.0
    epoch_s = EPOCH_IMAGES / speed + reading_s
    row = {
        "trial": f"{prefix(block, attempt)}/{actor.name}{'/cold' if cache == 'cold' else ''}",
        "kind": "load",
        "block": block,
        "attempt": attempt,
        "position": block,
        "started_at": "2026-11-20T05:00:00Z",
        "contestant": actor.name,
        "title": actor.title,
        "adapter": actor.loader,
        "format": actor.format,
        "status": "ok",
        "samples": SAMPLES,
        "bytes_per_image": actor.bytes_per_image,
        "size_bytes": size_bytes,
        "batch_size": 128,
        "workers": 2,
        "memory_format": "contiguous",
        "batch_memory": "private",
        "track": "same",
        "cache": cache,
        "cache_state": cache,
        "read_bytes": size_bytes if cache == "cold" else 0,
        "images_per_s": EPOCH_IMAGES / epoch_s,
        "epoch1_images_per_s": EPOCH_IMAGES / (first + epoch_s),
        "epoch1_s": first + epoch_s,
        "import_s": imported,
        "construct_s": constructed,
        "first_batch_s": first,
        "epoch_gap_s": 0.05,
        "wait_p50_ms": 100 / actor.images_per_s * 1000,
        "wait_p95_ms": 200 / actor.images_per_s * 1000,
        "wait_p99_ms": 300 / actor.images_per_s * 1000,
        "wait_max_ms": 900 / actor.images_per_s * 1000,
        "cores_used": actor.cores,
        "cpu_load_pct": 50 * actor.cores,
        "cpu_s_per_1k_images": 1000 * actor.cores / speed,
        "memory_mib": 1100.0,
        "anon_memory_mib": 640.0,
        "quota_throttle_events": 0,
        "monitor_cpu_pct": 0.2,
        "certificate": certificate().digest,
        "gpu_reason": NO_GPU,
    } | changes
    return Record(**_bound(row) | row)


def _bound(row: dict[str, Any]) -> dict[str, Any]:
    step = BOUND_BY[row["format"]]
    speed = row["images_per_s"] or 0.0
    return {"bound_ips": LIMITS[step], "bound_by": step, "pct_of_bound": 100 * speed / LIMITS[step]}


def failed(
    actor: Actor, block: int, status: str = "failed", reason: str = "RuntimeError: worker died", **changes: Any
) -> Record:
    """Return the row of a trial that has no speed."""
    measured = {f.name for f in fields(Record) if "float" in str(f.type)}
    return load(actor, block, **dict.fromkeys(measured) | {"status": status, "reason": reason} | changes)


def searched(actor: Actor) -> list[Record]:
    """Return the rows of a whole search."""
    measured: dict[str, Record] = {}
    while (search := tuning.replay(actor.name, best_of(actor), TUNING, measured)).ended is None:
        name, number = tuning.trial_name(actor.name, len(search.asked)), len(search.asked)
        columns = at(actor, search.asked[-1])
        row = load(actor, 1, trial=name, kind="tune", position=number, track="", **columns)
        measured[name] = replace(row, block=None, attempt=None)
    return list(measured.values())


def at(actor: Actor, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a row at these settings."""
    return {
        "title": best_of(actor).title,
        "options": json.dumps({name: value for name, value in settings.items() if name != "workers"}, sort_keys=True),
        "workers": settings["workers"],
        "images_per_s": actor.images_per_s * math.prod(SPEEDUP.get(pair, 1) for pair in settings.items()),
    }


def at_best(actor: Actor, block: int, **changes: Any) -> Record:
    """Return the row of a tuned trial; `changes` replace its columns."""
    rows = {row.trial: row for row in searched(actor)}
    columns = at(actor, tuning.replay(actor.name, best_of(actor), TUNING, rows).settings or {})
    columns["images_per_s"] *= random.Random(f"{actor.name}/{block}/best").gauss(1, 0.015)
    return load(actor, block, **columns | {"trial": f"{block}/{actor.name}/best", "track": "best"} | changes)


def fed(actor: Actor, block: int, consumer: str, **changes: Any) -> Record:
    """Return the row of a trial with a consumer other than the drain; `changes` replace its columns."""
    trial = {"trial": f"{block}/{actor.name}/{consumer}", "consumer": consumer}
    if consumer == "paced":
        shares = [(share, min(1.0, 1 / share)) for share in (2.0, 1.25, 1.1, 1.0, 0.75)]
        points = [f"{share * actor.images_per_s:.0f} {100 * busy:.1f}" for share, busy in shares]
        return load(
            actor,
            block,
            **trial | {"fed_images_per_s": actor.images_per_s / 0.9, "demand_curve": "; ".join(points)} | changes,
        )
    speed = 1 / (1 / TRAINED_IMAGES_PER_S + 1 / actor.images_per_s)
    columns = {
        "images_per_s": speed,
        "cached_images_per_s": TRAINED_IMAGES_PER_S,
        "warm_cached_images_per_s": TRAINED_IMAGES_PER_S,
        "stall_vs_warm_cached_pct": 100 * (1 - speed / TRAINED_IMAGES_PER_S),
        "starved_pct": 100 * speed / actor.images_per_s,
        "step_p50_ms": 128_000 / TRAINED_IMAGES_PER_S,
        "loss_first": 7.1,
        "loss_last": 6.9,
    }
    return load(actor, block, **trial | columns | changes)


def fetched(actor: Actor, block: int, transport: str, **changes: Any) -> Record:
    """Return the row of a trial with its data in a bucket; `changes` replace its columns. `course` is its raw times."""
    size_bytes = int(actor.bytes_per_image * SAMPLES)
    download_s = size_bytes / 50e6 if transport == "download" else None
    columns = {
        "trial": f"{block}/{actor.name}/{transport}",
        "cache": "",
        "cache_state": "",
        "transport": transport,
        "times": f"{block}+{actor.name}+{transport}.npz",
        "download_s": download_s,
        "until_asked_s": (download_s or 0) + sum(actor.start_s[:2]),
        "epoch2_s": SAMPLES / actor.images_per_s,
        "network_rate_mib_per_s": STREAM["rate_mib_per_s"],
        "network_latency_ms": STREAM["latency_ms"],
        "network_bytes": size_bytes * (4 if transport == "bounded" else 1),
        "network_epoch1_bytes": size_bytes,
        "network_epoch2_bytes": size_bytes if transport == "bounded" else 0,
        "cache_mib": STREAM["cache_mib"] if transport == "bounded" else None,
        "cache_peak_mib": 48.0 if transport == "bounded" else size_bytes / 2**20,
        "cache_end_mib": 4.0 if transport == "bounded" else size_bytes / 2**20,
    }
    return load(actor, block, **columns | changes)


def course(row: Record) -> Timeline:
    """Return the raw times of a trial from a bucket: batches of 128 at a steady speed, after the first."""
    assert row.first_batch_s
    assert row.images_per_s
    batches = 4 * SAMPLES // 128
    exits_s = [row.first_batch_s + 128 * batch / row.images_per_s for batch in range(batches)]
    exits_ns = [int(exit_s * 1e9) for exit_s in exits_s]
    return Timeline(
        asked_ns=[0, *exits_ns[:-1]],
        exits_ns=exits_ns,
        images=[128] * batches,
        epochs=list(range(0, batches, SAMPLES // 128)),
        opened=0,
        closed=batches - 1,
        complete=4,
    )


def gpu_uses(cast: Sequence[Actor]) -> tuple[GpuUse, ...]:
    """Return how busy the GPU was with each actor: half of the time, at first not at all."""
    samples = tuple((second / 6, 0.0 if second < 6 else 60.0) for second in range(36))
    return tuple(GpuUse(title=a.title, adapter=a.loader, consumer="train", window_s=6.0, samples=samples) for a in cast)


def limit(step: str, block: int, images_per_s: float | None = None, *, attempt: int = 1, **changes: Any) -> Record:
    """Return the row of a machine limit; `changes` replace its columns."""
    row = {
        "trial": f"{prefix(block, attempt)}/limit/{step}",
        "kind": "limit",
        "block": block,
        "attempt": attempt,
        "started_at": "2026-11-20T05:00:00Z",
        "title": step,
        "adapter": "",
        "format": "",
        "status": "ok",
        "images_per_s": LIMITS[step] if images_per_s is None else images_per_s,
    }
    return Record(**row | changes)


def write(name: str, **changes: Any) -> Record:
    """Return a conversion's row; `changes` replace its columns."""
    title, writer, seconds, size = FORMATS[name]
    row = {
        "trial": f"write/{name}",
        "kind": "write",
        "started_at": "2026-11-20T04:59:00Z",
        "title": title,
        "adapter": writer,
        "format": name,
        "options": json.dumps(ENCODING | {"mode": MODES[name]}),
        "versions": f"{writer} 1.0",
        "status": "ok",
        "stored": STORED[MODES[name]],
        "samples": SAMPLES,
        "size_bytes": int(size * SAMPLES),
        "payload_bytes": int(size * SAMPLES),
        "bytes_per_image": size,
        "images_per_s": SAMPLES / seconds,
        "write_synced_s": seconds,
        "cpu_s": 1.8 * seconds,
    }
    return Record(**row | changes)


def certificate(**changes: Any) -> Certificate:
    """Return the certificate of a contestant that does the work; `changes` replace its fields."""
    own = {
        "traits": {
            "stored": "canonical JPEG bytes",
            "batches": "(3, 224, 224), uint8, contiguous, cpu",
            "crops of": "canonical JPEG",
            "resampling": "bilinear, antialiased",
            "memory of a batch": "its own",
            "order by seed": "reproduced",
        },
        "figures": {
            "displacement": 1.0,
            "batch_spread": 1.0,
            "new_companions": 0.97,
            "neighbours_kept": 0.001,
            "crop_area_distance": 0.02,
            "crop_aspect_distance": 0.02,
            "crop_horizontal_position_distance": 0.02,
            "crop_vertical_position_distance": 0.02,
            "flipped_share": 0.502,
            "same_next_epoch_share": 0.0,
            "same_in_other_batch_share": 0.016,
            "own_psnr_db": 99.0,
            "common_psnr_db": 43.3,
            "shift_px": 0.02,
            "intact_batches": 8,
        },
        "seen_on": "1,000 probe images, 2 epochs, batches of 64, 2 workers",
    }
    return Certificate(**own | changes)
