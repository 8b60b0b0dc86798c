"""Makes campaign folders out of thin air, for tests of what reads them."""

from __future__ import annotations

import csv
import json
import math
import random
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from loaderbench.campaign import tuning
from loaderbench.campaign.plan import prefix
from loaderbench.campaign.schema import Best, Tuning
from loaderbench.findings.findings import GpuUse
from loaderbench.records import certificates, trials_csv
from loaderbench.records.certificates import Certificate
from loaderbench.records.record import STREAM_TABLES, Record
from loaderbench.records.timeline import Timeline

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Actor:
    """A contestant and how it does."""

    name: str
    title: str
    loader: str
    format: str
    images_per_s: float
    bytes_per_image: float = 16_600
    start_s: tuple[float, float, float] = (1.9, 0.02, 0.9)
    """Import, construct, first batch."""
    cores: float = 1.95


CAST = (
    Actor("ffcv-raw-mapped", "FFCV raw, os_cache on", "ffcv", "ffcv-raw", 10_100, 142_400, (2.6, 3.0, 6.1), 1.4),
    Actor("ffcv-raw-slots", "FFCV raw, os_cache off", "ffcv", "ffcv-raw", 9_870, 142_400, (2.6, 3.2, 6.2), 1.6),
    Actor("ffcv-jpeg-mapped", "FFCV JPEG, os_cache on", "ffcv", "ffcv-jpeg", 5_500, 16_800, (2.5, 3.1, 6.3)),
    Actor("ffcv-jpeg-slots", "FFCV JPEG, os_cache off", "ffcv", "ffcv-jpeg", 5_480, 16_800, (2.6, 3.1, 6.2)),
    Actor("litdata-raw", "LitData raw (PIL)", "litdata", "litdata-raw", 2_950, 142_100, (3.4, 0.1, 1.6)),
    Actor("litdata-jpeg", "LitData JPEG", "litdata", "litdata-jpeg", 3_600, 16_650, (3.4, 0.1, 1.5)),
    Actor("imagefolder-original-pil", "ImageFolder originals, PIL", "imagefolder", "original", 1_240, 110_300),
    Actor(
        "imagefolder-original-torchvision",
        "ImageFolder originals, torchvision.io",
        "imagefolder",
        "original",
        1_710,
        110_300,
    ),
    Actor("imagefolder-256-pil", "ImageFolder 256 px, PIL", "imagefolder", "jpeg-files", 2_300),
    Actor("imagefolder-256-torchvision", "ImageFolder 256 px, torchvision.io", "imagefolder", "jpeg-files", 3_590),
)
"""The contestants of the default campaign, about as fast as on two cores."""
FORMATS = {
    "original": ("original files", "imagefolder", 0.4, 110_300.0),
    "jpeg-files": ("256 px JPEG files", "imagefolder", 9.8, 16_600.0),
    "ffcv-raw": ("FFCV raw", "ffcv", 5.1, 142_400.0),
    "ffcv-jpeg": ("FFCV JPEG", "ffcv", 7.9, 16_800.0),
    "litdata-raw": ("LitData raw", "litdata", 8.6, 142_100.0),
    "litdata-jpeg": ("LitData JPEG", "litdata", 6.4, 16_650.0),
}
"""Title, writer, seconds to write and bytes per image of each format."""
MODES = {name: "original" if name == "original" else "raw" if name.endswith("raw") else "jpeg" for name in FORMATS}
STORED = {"original": "original files", "raw": "canonical pixels", "jpeg": "canonical JPEG bytes"}
ENCODING = {"mode": "raw", "max_side": 256, "quality": 90, "compress_probability": 0.5, "smart_threshold_bytes": None}
LIMITS = {"crop": 14_000.0, "decode + crop": 6_600.0, "decode originals + crop": 2_100.0}
"""Images/s that the machine can do of each step of the work."""
BOUND_BY = {
    "original": "decode originals + crop",
    "jpeg-files": "decode + crop",
    "ffcv-raw": "crop",
    "ffcv-jpeg": "decode + crop",
    "litdata-raw": "crop",
    "litdata-jpeg": "decode + crop",
}
"""The step that bounds each format."""
TUNED = {
    "ffcv-raw-mapped": "FFCV raw",
    "ffcv-jpeg-mapped": "FFCV JPEG",
    "litdata-raw": "LitData raw",
    "litdata-jpeg": "LitData JPEG",
    "imagefolder-original-pil": "ImageFolder originals",
    "imagefolder-256-pil": "ImageFolder 256 px",
}
"""Who of the default campaign also runs at its best, and its title there."""
TRIED = {
    "ffcv": {"os_cache": (True, False), "workers": (2, 1, 3), "batches_ahead": (3, 1, 6)},
    "litdata": {"workers": (2, 1), "prefetch_factor": (2, 4)},
    "imagefolder": {"decode": ("pil", "torchvision"), "workers": (2, 3), "prefetch_factor": (2, 4)},
}
"""Which settings are tried of each loader, its own first."""
SPEEDUP = {("os_cache", False): 1.05, ("workers", 1): 0.55, ("workers", 3): 1.07, ("decode", "torchvision"): 1.45}
"""How much faster a setting makes any loader. Those that are not here make no difference."""
TUNING = Tuning(trials=24, memory_mib=4096)
SAMPLES, EPOCH_IMAGES = 4096, 16384
TRAINED_IMAGES_PER_S = 2000.0
"""Of a network in training, on one batch that is there."""
CONSUMERS = ("paced", "train", "lightning")
STREAM = {
    "streaming": ["litdata-jpeg"],
    "bounded": ["litdata-jpeg"],
    "downloading": ["ffcv-jpeg-mapped", "imagefolder-256-torchvision"],
    "epochs": 4,
    "cache_mib": 64.0,
    "rate_mib_per_s": 50.0,
    "latency_ms": 20.0,
}
"""Whose data is in a bucket, over which network."""
DISK_BYTES_PER_S = 200e6
NO_GPU = "no NVIDIA driver on this machine"


def load(actor: Actor, block: int, *, cache: str = "warm", attempt: int = 1, **changes: Any) -> Record:
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


def best_of(actor: Actor) -> Best:
    """Return what is searched of a contestant."""
    return Best(title=TUNED.get(actor.name, actor.title), settings=TRIED[actor.loader])


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
    """Return the row of a trial at the settings that the search finds best; `changes` replace its columns."""
    rows = {row.trial: row for row in searched(actor)}
    columns = at(actor, tuning.replay(actor.name, best_of(actor), TUNING, rows).settings or {})
    columns["images_per_s"] *= random.Random(f"{actor.name}/{block}/best").gauss(1, 0.015)
    return load(actor, block, **columns | {"trial": f"{block}/{actor.name}/best", "track": "best"} | changes)


def fed(actor: Actor, block: int, consumer: str, **changes: Any) -> Record:
    """Return the row of a trial with a consumer that is not hungry; `changes` replace its columns."""
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
        "stall_vs_cached_pct": 100 * (1 - speed / TRAINED_IMAGES_PER_S),
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
    """Return the raw times of such a trial: batches of 128 at a steady speed, after the first."""
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
    return tuple(
        GpuUse(title=a.title, adapter=a.loader, format=a.format, consumer="train", window_s=6.0, samples=samples)
        for a in cast
    )


def limit(step: str, block: int, images_per_s: float | None = None, *, attempt: int = 1, **changes: Any) -> Record:
    """Return the row of how fast the machine can do one step of the work; `changes` replace its columns."""
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


def environment(  # noqa: PLR0913 - each is a way in which campaigns differ
    cast: Sequence[Actor],
    blocks: int,
    reference: str,
    cold: Sequence[str] = (),
    best: Sequence[str] = (),
    *,
    feeding: Sequence[str] = (),
    stream: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the content of an `env.json`."""
    return {
        "schema": 1,
        "started_at": "2026-11-20T05:00:00Z",
        "loaderbench": "0.1.0",
        "git_commit": "0123456789abcdef0123456789abcdef01234567",
        "git_dirty": False,
        "code_digest": "c0de",
        "host": {
            "os": "Debian GNU/Linux 12",
            "kernel": "6.18.5",
            "cpu": "Intel(R) Xeon(R) Processor @ 2.70GHz",
            "cores_allowed": 2,
            "cores_total": 2,
            "memory_mib": 24100,
            "virtual_machine": "kvm",
            "python": "3.11.7",
        },
        "gpu": None,
        "gpu_reason": NO_GPU,
        "versions": {"torch": "2.15.0", "ffcv": "1.0.2", "litdata": "0.2.76"},
        "campaign": {
            "name": "quick",
            "question": "Which loader feeds training fastest, from a warm page cache?",
            "reference": reference,
            "data": {"samples": SAMPLES, "seed": 0},
            "work": {
                "batch_size": 128,
                "workers": "cores",
                "image_size": 224,
                "dtype": "uint8",
                "shuffle": True,
                "epoch_images": EPOCH_IMAGES,
                "seed": 0,
            },
            "timing": {
                "blocks": blocks,
                "warmup_s": 2.0,
                "window_s": 4.0,
                "window_batches": 80,
                "limit_s": 120.0,
                "stage_s": 1.0,
                "reruns": 0,
                "seed": 0,
            },
            "formats": [
                ENCODING | {"name": name, "title": title, "writer": writer, "mode": MODES[name]}
                for name, (title, writer, *_) in FORMATS.items()
            ],
            "contestants": [_contestant(actor) for actor in cast],
            "cold": list(cold),
            **publication(cast),
            "best": {a.name: best_of(a).model_dump(mode="json") for a in cast if a.name in best},
            "tuning": TUNING.model_dump(mode="json"),
            "stream": stream,
            "consumers": {name: {"contestants": list(feeding)} if feeding else None for name in CONSUMERS},
        },
        "data": {
            "origin": "synthetic, seed 0",
            "found": 4096,
            "samples": SAMPLES,
            "classes": 16,
            "unreadable": 0,
            "digest": "da7a",
            "raw_bytes_per_image": 142011.0,
            "jpeg_bytes_per_image": 16700.0,
            "notes": ["Canonical JPEGs are encoded at quality 90."],
            **({"bucket": "s3://bucket/ready"} if stream else {}),
        },
    }


def publication(cast: Sequence[Actor]) -> dict[str, Any]:
    """Return the keys of a campaign that say that all was published, and that the first is set up like the second."""
    figures = {a.name: {"images_per_s": [0.6 * a.images_per_s + 900, 0.5 * a.images_per_s + 1500]} for a in cast}
    change = {"from": cast[0].name, "to": cast[-1].name, "what": "one thing"}
    return {
        "published": {
            "source": "a pull request",
            "images": 1_000_000,
            "contestants": {name: speeds | {"size_gib": 100.0} for name, speeds in figures.items()},
        },
        "changes": [change] if len(cast) > 1 else [],
    }


def _contestant(a: Actor) -> dict[str, Any]:
    return {"name": a.name, "title": a.title, "loader": a.loader, "format": a.format, "options": {}, "control": None}


def campaign(  # noqa: PLR0913 - each is a way in which campaigns differ
    folder: Path,
    rows: Iterable[Record] | None = None,
    *,
    cast: Sequence[Actor] = CAST,
    blocks: int = 3,
    reference: str | None = None,
    cold: Sequence[str] | None = None,
    best: Sequence[str] | None = None,
    feeding: Sequence[str] | None = None,
    stream: Mapping[str, Any] | None = None,
    unreadable: Sequence[tuple[str, str]] = (),
    certified: Mapping[str, Certificate] | None = None,
    **changes: Any,
) -> Path:
    """Fill `folder` with a campaign, by default a finished one of which all also ran cold, and some at their best, for
    other consumers and from a bucket.

    `changes` replace keys of its `env.json`.
    """
    folder.mkdir(parents=True)
    if reference is None:
        reference = cast[-2].name if len(cast) > 1 else cast[0].name
    if certified is None:
        certified = {actor.name: certificate() for actor in cast}
    if cold is None:
        cold = [a.name for a in cast] if rows is None else []
    if feeding is None:
        feeding = [a.name for a in cast if a.name in TUNED] if rows is None and best is None else []
    if best is None:
        best = [a.name for a in cast if a.name in TUNED] if rows is None else []
    if rows is None and cast is CAST:
        stream = STREAM
    env = environment(cast, blocks, reference, cold, best, feeding=feeding, stream=stream) | changes
    ran = env["campaign"]
    for row in finished(cast, blocks, ran["cold"], ran["best"], feeding, stream) if rows is None else rows:
        if row.transport and row.times:
            (folder / "times").mkdir(exist_ok=True)
            course(row).save(folder / "times" / row.times)
        proof = certified[row.contestant].digest if row.contestant in certified else ""
        trials_csv.append(folder / "trials.csv", replace(row, certificate=proof))
    if certified:
        certificates.save(certified, folder)
    (folder / "env.json").write_text(json.dumps(env))
    with (folder / "unreadable.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "reason"), *unreadable])
    return folder


def finished(  # noqa: PLR0913, PLR0917 - each is a way in which campaigns differ
    cast: Sequence[Actor] = CAST,
    blocks: int = 3,
    cold: Sequence[str] = (),
    best: Sequence[str] = (),
    feeding: Sequence[str] = (),
    stream: Mapping[str, Any] | None = None,
) -> list[Record]:
    """Return all rows of a campaign in which nothing failed."""
    numbers = range(1, blocks + 1)
    remote = {transport: (stream or {}).get(table, ()) for transport, table in STREAM_TABLES.items()}
    return [
        *map(write, FORMATS),
        *(row for a in cast if a.name in best for row in searched(a)),
        *(limit(step, block) for block in numbers for step in LIMITS),
        *(load(a, block) for block in numbers for a in cast),
        *(load(a, block, cache="cold") for block in numbers for a in cast if a.name in cold),
        *(at_best(a, block) for block in numbers for a in cast if a.name in best),
        *(fed(a, block, name) for block in numbers for a in cast if a.name in feeding for name in CONSUMERS),
        *(fetched(a, block, how) for block in numbers for how, who in remote.items() for a in cast if a.name in who),
    ]
