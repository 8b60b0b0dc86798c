"""Formats of other sizes or qualities are not ranked, and each size has a frontier of speed and bytes."""

from __future__ import annotations

import json
from typing import Any

from loaderbench.findings.analysis import analyse
from loaderbench.findings.findings import Analysis
from loaderbench.findings.frontier import bytes_per_image, frontiers
from loaderbench.report import plots
from tests import fabricate
from tests.fabricate import CAST, Actor
from tests.fabricate.cast import ENCODING

ENCODINGS: dict[str, dict[str, Any]] = {
    "raw": {},
    "jpeg": {"mode": "jpeg"},
    "bad": {"mode": "jpeg", "quality": 75},
    "slow": {"mode": "jpeg"},
    "large": {"mode": "jpeg", "max_side": 512},
    "larger": {"max_side": 512},
    "alone": {"max_side": None},
}
SPEEDS = {"raw": 9000, "jpeg": 5000, "bad": 6000, "slow": 4000, "large": 1000, "larger": 2000, "alone": 100}
BYTES = {"raw": 142_000, "jpeg": 16_000, "bad": 9_000, "slow": 17_000, "large": 60_000, "larger": 550_000, "alone": 9}
ACTORS = [Actor(name, name.upper(), "ffcv", "ffcv-raw", speed) for name, speed in SPEEDS.items()]


def found() -> Analysis:
    """Analyse a campaign with a format for each contestant, whose file is twice as large as its images."""
    campaign = fabricate.environment(ACTORS, 2, "raw")["campaign"] | {"published": None, "changes": []}
    campaign["formats"] = [
        ENCODING | changes | {"name": name, "title": name, "writer": "ffcv"} for name, changes in ENCODINGS.items()
    ]
    for contestant in campaign["contestants"]:
        contestant["format"] = contestant["name"]
    writes = [
        fabricate.write(
            "ffcv-raw",
            trial=f"write/{name}",
            format=name,
            options=json.dumps(ENCODING | changes),
            payload_bytes=BYTES[name] * fabricate.SAMPLES,
            bytes_per_image=2 * BYTES[name],
        )
        for name, changes in ENCODINGS.items()
    ]
    bounds = {"bound_by": "", "bound_ips": None, "pct_of_bound": None}
    rows = [
        fabricate.load(actor, block, images_per_s=actor.images_per_s, **bounds) for block in (1, 2) for actor in ACTORS
    ]
    return analyse([*rows, *writes], campaign)


def test_contestants_with_images_of_another_size_or_quality_are_not_ranked() -> None:
    analysis = found()
    assert [s.name for s in analysis.ranked] == ["raw", "jpeg", "slow"]
    assert {s.name: s.unranked_reason for s in analysis.measured if s.unranked_reason} == {
        "bad": "its images are JPEG of quality 75 instead of 90",
        "large": "it crops images of at most 512 px instead of at most 256 px",
        "larger": "it crops images of at most 512 px instead of at most 256 px",
        "alone": "it crops images of full size instead of at most 256 px",
    }


def test_each_size_of_images_has_a_frontier_by_stored_bytes() -> None:
    analysis = found()
    assert bytes_per_image(analysis) == BYTES
    names = {one.images: [s.name for s in one.contestants] for one in frontiers(analysis)}
    assert names == {"up to 256 px": ["bad", "raw"], "up to 512 px": ["large", "larger"]}


def test_contestants_that_do_other_work_or_exceed_the_limit_are_on_no_frontier() -> None:
    campaign = fabricate.environment(CAST[:4], 1, CAST[0].name)["campaign"]
    campaign["contestants"][1]["apart"] = "it is a test"
    rows = [fabricate.load(actor, 1, pct_of_bound=200.0 if actor is CAST[2] else 50.0) for actor in CAST[:4]]
    analysis = analyse([*rows, fabricate.write("ffcv-raw"), fabricate.write("ffcv-jpeg")], campaign)
    [frontier] = frontiers(analysis)
    assert [s.name for s in frontier.contestants] == [CAST[3].name, CAST[0].name]


def test_the_picture_draws_a_line_for_each_frontier() -> None:
    figures = {plot.file: figure for plot, figure in plots.figures(found(), "a machine").items()}
    dashed = [line for line in figures["speed-size.png"].axes[0].lines if line.get_linestyle() == "--"]
    ends = [[tuple(point) for point in line.get_xydata()] for line in dashed]
    assert sorted(ends) == [[(9_000, 6000), (142_000, 9000)], [(60_000, 1000), (550_000, 2000)]]
