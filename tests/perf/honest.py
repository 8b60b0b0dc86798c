"""Certify every contestant of the default campaign with many seeds; no honest loader may be faulted.

    python -m tests.perf.honest                # 20 seeds: 200 certificates, untimed

Certificates are kept in the cache: the command resumes where it stopped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loaderbench.campaign import campaign as config
from loaderbench.certify import certify
from loaderbench.formats import prepare
from loaderbench.machine.progress import Display

CacheOption = Annotated[Path, typer.Option(help="Where prepared data and certificates are kept.")]


def main(seeds: int = 20, campaign: str = "quick", cache: CacheOption = Path("data")) -> None:
    """Certify again and again and print every fault; fail if there was one."""
    display = Display()
    prepared = prepare(config.load(campaign), None, cache, display, strict=True)
    made = blamed = 0
    for seed in range(1, seeds + 1):
        chosen = config.load(campaign, {"work": {"seed": seed}})
        for name, certificate in certify(chosen, prepared, cache, display).items():
            made += 1
            blamed += certificate.state != "as requested"
            if certificate.state != "as requested":
                print(f"seed {seed}, {name}: {certificate.failure or '; '.join(certificate.faults)}", flush=True)
    print(f"{made} certificates, {blamed} with faults")
    raise typer.Exit(code=bool(blamed))


if __name__ == "__main__":
    typer.run(main)
