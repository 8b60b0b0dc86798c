"""The certificate says how far from random the order of all images is if a library shuffles only parts together."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from loaderbench.api import Artifact, Encoding, Work
from loaderbench.campaign import registry
from loaderbench.certify import partial_shuffle
from loaderbench.records.certificates import WHOLE_SET
from loaderbench.trial import processes
from loaderbench.trial.spec import ObserveSpec
from tests import fabricate
from tests.campaigns import campaign
from tests.fabricate import CAST
from tests.reports import rows_of, written

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLES, BATCH = 2048, 32
ARTIFACT = Artifact("files", "nowhere", SAMPLES, 0, 0, 0, Encoding("jpeg"))
ASKED = campaign({"a": {"loader": "imagefolder"}})


def in_parts(parts: int) -> Iterator[Any]:
    """Yield the order of epochs that shuffle each of the parts, and no sample across parts."""
    random = np.random.default_rng(0)
    while True:
        yield np.concatenate([random.permutation(part) for part in np.split(np.arange(SAMPLES), parts)])


@pytest.mark.parametrize(
    "told",
    [{}, {"partial_order": lambda *_, **__: None}, {"partial_order": lambda *_, **__: 1 / 0}],
    ids=["no function", "all shuffled", "fails"],
)
def test_a_loader_that_tells_of_no_partial_order_is_not_looked_at(
    told: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(registry, "loader", lambda _: SimpleNamespace(**told))
    monkeypatch.delattr(processes, "run")
    assert partial_shuffle.figures(ASKED, ASKED.contestants[0], ARTIFACT, tmp_path / "log") == {}


def test_figures_are_of_the_order_that_the_loader_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work(batch_size=BATCH, workers=1, image_size=32)
    found = {}
    for parts in (1, 64):
        loader = SimpleNamespace(partial_order=lambda *_, parts=parts, **__: in_parts(parts))
        monkeypatch.setattr(registry, "loader", lambda _, loader=loader: loader)
        found[parts] = partial_shuffle.run(ObserveSpec("any", ARTIFACT, work, {}))["figures"]
    for figure in ("batch_spread", "displacement", "new_companions"):
        assert found[1][WHOLE_SET + figure] == pytest.approx(1, abs=0.1)
        assert found[64][WHOLE_SET + figure] < 0.1


@pytest.mark.usefixtures("one_picture")
def test_the_report_has_a_second_row_on_the_order_of_all_images(tmp_path: Path) -> None:
    figures = {**fabricate.certificate().figures, f"{WHOLE_SET}new_companions": 0.123}
    certified = {actor.name: fabricate.certificate() for actor in CAST}
    certified[CAST[0].name] = fabricate.certificate(figures=figures)
    text = written(tmp_path, blocks=1, certified=certified)
    [row] = rows_of(text, f"{CAST[0].title}, all images")
    assert "0.123" in row
    assert not rows_of(text, f"{CAST[1].title}, all images")
