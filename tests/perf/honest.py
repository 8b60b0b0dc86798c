"""Certify every contestant of the default campaign with many seeds, in several ways; no honest loader may be faulted.

    python -m tests.perf.honest                # 20 seeds, 8 ways: 1,600 certificates, untimed

Certificates are kept in the cache: the command resumes where it stopped.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer

from loaderbench.campaign import campaign as config
from loaderbench.campaign.campaign import Campaign
from loaderbench.certify import certify
from loaderbench.formats import prepare
from loaderbench.machine.progress import Display

SIZES = (64, 224)
WORKERS_AND_RANKS = ((1, 1), (2, 1), (4, 1), (2, 2))
CacheOption = Annotated[Path, typer.Option(help="Where prepared data and certificates are kept.")]


def main(seeds: int = 20, campaign: str = "quick", cache: CacheOption = Path("data")) -> None:
    """Certify again and again and print every fault; fail if there was one."""
    display, base = Display(), config.load(campaign)
    prepared = prepare(base, None, cache, display, strict=True)
    made = blamed = 0
    for seed, size, (workers, ranks) in product(range(1, seeds + 1), SIZES, WORKERS_AND_RANKS):
        chosen = changed(base, seed=seed, image_size=size, workers=workers, ranks=ranks)
        way = f"seed {seed}, {size} px, {workers} workers, {ranks} ranks"
        certificates = certify(chosen, prepared, cache, display)
        for name, certificate in certificates.items():
            made += 1
            blamed += certificate.state != "as requested"
            if certificate.state != "as requested":
                print(f"{way}, {name}: {certificate.failure or '; '.join(certificate.faults)}", flush=True)
        print(f"{way}: {len(certificates)} certificates", flush=True)
    print(f"{made} certificates, {blamed} with faults")
    raise typer.Exit(code=bool(blamed))


def changed(campaign: Campaign, **work: Any) -> Campaign:
    """Return the campaign with other work, and without cold trials, which ranks do not have."""
    content = campaign.model_dump()
    return Campaign.model_validate({**content, "cold": (), "work": {**content["work"], **work}})


if __name__ == "__main__":
    typer.run(main)
