"""Certify every contestant of the default campaign with many seeds, in several ways; no honest loader may be faulted.

    python -m tests.perf.honest                # 20 seeds, 8 ways, 11 contestants: 1,760 certificates, untimed

One process observes a contestant with several seeds, so that libraries are imported, and FFCV's code is compiled, once
for all of them. Certificates are kept in the cache: the command resumes where it stopped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer

from loaderbench.campaign import campaign as config
from loaderbench.campaign.campaign import Campaign
from loaderbench.certify.certification import to_certify
from loaderbench.machine.progress import Display
from loaderbench.machine.scratch import scratch
from loaderbench.machine.workers import map_processes
from tests.perf.seeds import Group, certified, with_seed

SIZES = (64, 224)
WORKERS_AND_RANKS = ((1, 1), (2, 1), (4, 1), (2, 2))
SEEDS_PER_PROCESS = 10
CacheOption = Annotated[Path, typer.Option(help="Where probe images and certificates are kept.")]


def main(seeds: int = 20, campaign: str = "quick", cache: CacheOption = Path("data")) -> None:
    """Certify again and again and print every fault; fail if there was one."""
    made, blamed = Counter[str](), Counter[str]()
    groups = list(_groups(config.load(campaign), seeds, cache))
    with scratch(cache), map_processes(certified, 2) as certify:
        for group, certificates in zip(groups, certify(groups), strict=True):
            for job, certificate in zip(group.jobs, certificates, strict=True):
                made[group.way] += 1
                if certificate.state != "as requested":
                    blamed[group.way] += 1
                    said = certificate.failure or "; ".join(certificate.faults)
                    print(f"seed {job.spec.work.seed}, {group.way}, {group.name}: {said}", flush=True)
            print(f"{group.way}, {group.name}: {len(certificates)} certificates", flush=True)
    for way, count in made.items():
        print(f"{way}: {count} certificates, {blamed[way]} with faults")
    print(f"{made.total()} certificates, {blamed.total()} with faults")
    raise typer.Exit(code=bool(blamed))


def _groups(campaign: Campaign, seeds: int, cache: Path) -> Iterator[Group]:
    """Yield what is to be certified, in all ways with some seeds before the next ones."""
    display, settings = Display(), {contestant.name: (contestant, {}) for contestant in campaign.competing}
    ways = []
    for size, (workers, ranks) in product(SIZES, WORKERS_AND_RANKS):
        chosen = changed(campaign, image_size=size, workers=workers, ranks=ranks)
        unavailable, jobs = to_certify(chosen, settings, cache, display)
        if unavailable:
            raise SystemExit("\n".join(f"{name}: {certificate}" for name, certificate in unavailable.items()))
        ways.append((f"{size} px, {workers} workers, {ranks} ranks", jobs))
    for first in range(1, seeds + 1, SEEDS_PER_PROCESS):
        some = range(first, min(first + SEEDS_PER_PROCESS, seeds + 1))
        for way, jobs in ways:
            for name, job in jobs.items():
                yield Group(way, name, tuple(with_seed(job, seed) for seed in some), cache)


def changed(campaign: Campaign, **work: Any) -> Campaign:
    """Return the campaign with other work, and without cold trials, which ranks do not have."""
    content = campaign.model_dump()
    return Campaign.model_validate({**content, "cold": (), "work": {**content["work"], **work}})


if __name__ == "__main__":
    typer.run(main)
