"""A variant names a trial, labels it in words, and is read back from its row."""

from __future__ import annotations

import pytest

from loaderbench.campaign import campaign as config
from loaderbench.campaign import plan
from loaderbench.campaign.variant import MAIN, Variant, variants
from tests import fabricate

CASES = [
    (MAIN, "", ""),
    (Variant(cache="cold"), "cold", "cold cache"),
    (Variant(track="best"), "best", "tuned"),
    (Variant(consumer="paced"), "paced", "emulated accelerator"),
    (Variant(transport="bounded"), "bounded", "streamed, cache bounded"),
    (Variant(track="scaling", workers=4), "scaling/4", "4 workers"),
    (Variant(track="scaling", consumer="train", workers=1), "scaling/train/1", "training, 1 worker"),
]


@pytest.mark.parametrize(("variant", "key", "label"), CASES)
def test_a_variant_is_named_by_its_difference_from_the_main_one(variant: Variant, key: str, label: str) -> None:
    assert (variant.key, variant.label) == (key, label)
    assert variant.titled("A") == (f"A, {label}" if label else "A")


def test_a_variant_is_read_back_from_its_row() -> None:
    actor = fabricate.CAST[0]
    rows = [
        fabricate.load(actor, 1),
        fabricate.load(actor, 1, cache="cold"),
        fabricate.at_best(actor, 1),
        fabricate.fed(actor, 1, "paced"),
        fabricate.fetched(actor, 1, "bounded"),
        fabricate.load(actor, 1, track="scaling", workers=4),
        fabricate.fed(actor, 1, "train", track="scaling", workers=1),
    ]
    assert [Variant.of(row) for row in rows] == [variant for variant, *_ in CASES]
    assert Variant.of(fabricate.load(actor, 1, cache="", track="", consumer="")) == MAIN


@pytest.mark.parametrize("name", ["quick", "standard", "train", "stream", "best", "scaling", "gpu-workers"])
def test_variants_of_a_campaign_match_its_trials(name: str) -> None:
    campaign = config.load(name)
    planned = {(t.contestant.name, t.variant) for t in plan.trials(campaign, 1)}
    kept = variants(campaign.model_dump(mode="json"))
    assert planned == {(contestant, variant) for variant, names in kept.items() for contestant in names}
