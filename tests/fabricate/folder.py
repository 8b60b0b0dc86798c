"""Write the folder of a made-up campaign."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from loaderbench.records import certificates, trials_csv
from loaderbench.records.certificates import Certificate
from loaderbench.records.record import STREAM_TABLES, Record
from tests.fabricate.cast import (
    CAST,
    CONSUMERS,
    ENCODING,
    EPOCH_IMAGES,
    FORMATS,
    LIMITS,
    MODES,
    NO_GPU,
    SAMPLES,
    STREAM,
    TUNED,
    TUNING,
    Actor,
    best_of,
)
from tests.fabricate.rows import at_best, certificate, course, fed, fetched, limit, load, searched, write

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path


def environment(  # noqa: PLR0913  # long, because an env.json has many keys
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
    """Return the keys of a campaign for published figures of all contestants, and one change of the first."""
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
    """Fill `folder` with a campaign, by default a finished one.

    All its contestants also ran cold. Some ran tuned, for other consumers, or from a bucket.

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
