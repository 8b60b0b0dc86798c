"""Measure the smallest difference that this machine resolves, by many campaigns of known pairs.

    python -m tests.perf.resolution twins      # 20 short campaigns of a loader and itself: how often do they differ?
    python -m tests.perf.resolution slowed     # 10 campaigns of it and one 5 % slower: how often do they differ?

Each repeat is a campaign of its own seed in `results/resolution`; the command resumes where it stopped.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

PLANTED = Path(__file__).parent.parent / "planted"
sys.path.append(str(PLANTED))
os.environ["PYTHONPATH"] = os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), str(PLANTED)])

from loaderbench.campaign import campaign as config  # noqa: E402
from loaderbench.campaign import plan  # noqa: E402
from loaderbench.campaign.campaign import Campaign  # noqa: E402
from loaderbench.findings.analysis import analyse  # noqa: E402
from loaderbench.formats import Prepared, prepare  # noqa: E402
from loaderbench.machine.progress import Display  # noqa: E402
from loaderbench.records import trials_csv  # noqa: E402 - the planted adapters must be found
from loaderbench.records.record import Record  # noqa: E402
from loaderbench.run import environment, runner  # noqa: E402

SLOWER = 0.05
RESULTS = Path("results/resolution")
SHORT: dict[str, Any] = {"blocks": 6, "warmup_s": 1.0, "window_s": 2.0, "window_batches": 20}
CacheOption = Annotated[Path, typer.Option(help="Where prepared data is kept.")]


def main(pair: Literal["twins", "slowed"], repeats: int = 0, cache: CacheOption = Path("data")) -> None:
    """Measure a known pair repeatedly and print each verdict."""
    timing = SHORT if pair == "twins" else {**config.load("standard").timing.model_dump(), "reruns": 0}
    prepared = prepare(_pair("twins", {}, timing, 0), None, cache, Display(), strict=True)
    options = {} if pair == "twins" else {"extra_ms_per_image": _extra_ms_per_image(prepared)}
    verdicts = []
    for seed in range(1, 1 + (repeats or {"twins": 20, "slowed": 10}[pair])):
        campaign = _pair(pair, options, timing, seed)
        summaries = analyse(_measured(campaign, prepared), campaign.model_dump()).summaries
        [against] = [s.reference for s in summaries if s.reference]
        verdicts.append(against.verdict)
        print(f"{campaign.name}: {against.verdict}, {against.ratio}, p {against.p}", flush=True)
    print({verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))})


def _measured(campaign: Campaign, prepared: Prepared) -> list[Record]:
    """Return the campaign's rows, measured now unless they are there under today's conditions."""
    folder = RESULTS / campaign.name
    described = folder / "env.json"
    now = environment.describe(campaign, prepared.data)
    same = described.exists() and not environment.differences(json.loads(described.read_text()), now)
    if not same or plan.missing(campaign, {row.trial: row for row in trials_csv.read(folder / "trials.csv")}):
        runner.run(campaign, prepared, RESULTS, Display())
    return trials_csv.read(folder / "trials.csv")


def _pair(pair: str, options: dict[str, Any], timing: dict[str, Any], seed: int) -> Campaign:
    """Return the reference and the other one of a pair, as a campaign."""
    quick = config.load("quick").model_dump()
    [reference] = [c for c in quick["contestants"] if c["name"] == quick["reference"]]
    other = {**reference, "name": pair, "title": pair, "options": options or reference["options"]}
    if pair == "slowed":
        other["loader"] = "slowed"
    formats = [f for f in quick["formats"] if f["name"] == reference["format"]]
    return Campaign.model_validate(
        {
            **quick,
            "name": f"{pair}-{seed:02}",
            "formats": formats,
            "contestants": [reference, other],
            "work": {**quick["work"], "epoch_images": 1},  # one pass, for the first epoch is measured whole
            "timing": {**quick["timing"], **timing, "stage_s": 0.0, "seed": seed},
        }
    )


def _extra_ms_per_image(prepared: Prepared) -> float:
    """Return how much CPU more per image makes the reference so much slower, from a few trials of it now."""
    campaign = _pair("twins", {}, {"blocks": 3}, 0).model_copy(update={"name": "slowed-00"})
    rows = [row for row in _measured(campaign, prepared) if row.kind == "load"]
    costs_ms = sorted(row.cpu_s_per_1k_images for row in rows if row.cpu_s_per_1k_images)
    return round(costs_ms[len(costs_ms) // 2] * SLOWER / (1 - SLOWER), 4)


if __name__ == "__main__":
    typer.run(main)
