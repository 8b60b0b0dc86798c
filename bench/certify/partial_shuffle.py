"""Measure how far from random a library's order of the campaign's own images is if it shuffles only parts together."""

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from loaderbench.api import Artifact
from loaderbench.campaign import registry
from loaderbench.campaign.campaign import Campaign
from loaderbench.campaign.schema import Contestant
from loaderbench.certify import shuffle
from loaderbench.certify.observation import EPOCHS
from loaderbench.records.certificates import WHOLE_SET
from loaderbench.trial import processes
from loaderbench.trial.spec import ObserveSpec

_LIMIT_S = 600
"""FFCV takes seconds for ImageNet."""


def figures(campaign: Campaign, contestant: Contestant, artifact: Artifact, log: Path) -> dict[str, float]:
    """Return figures on the order of all samples, named as in `shuffle.figures` after `WHOLE_SET`.

    Empty if the loader shuffles all samples together, and if it fails to tell.
    """
    order = getattr(registry.loader(contestant.loader), "partial_order", None)
    work = replace(campaign.work_on(artifact.samples, 1, contestant), passes=1)
    try:
        if order is None or order(artifact, work, **contestant.options) is None:
            return {}
    except (Exception, SystemExit):  # noqa: BLE001 - another package's function may raise anything
        return {}
    spec = ObserveSpec(contestant.loader, artifact, work, contestant.options)
    report = processes.run(f"{__name__}.run", spec, log, _LIMIT_S)
    found: dict[str, float] = report.get("figures", {})
    return found


def run(spec: ObserveSpec) -> dict[str, Any]:
    """Return the figures on the order that the loader tells."""
    orders = registry.loader(spec.loader).partial_order(spec.artifact, spec.work, **spec.options)  # type: ignore[attr-defined]
    first, second = islice(orders, EPOCHS)
    batches = np.arange(len(first)) // spec.work.batch_size
    found = shuffle.figures_of((first, batches), (second, batches), spec.artifact.samples)
    return {"status": "ok", "reason": "", "figures": {WHOLE_SET + name: value for name, value in found.items()}}
