"""Certificates decide which contestants are ranked together."""

from __future__ import annotations

import pytest

from loaderbench.records.certificates import Certificate, load, save, unranked_reason

OWN = Certificate(traits={"resampling": "area"}, figures={"shift_px": 0.02})
ORIGINALS = Certificate(of_originals=True)
FAULTY = Certificate(faults=("no image is flipped", "not shuffled"))
UNSEEN = Certificate(failure="timeout: killed")


@pytest.mark.parametrize(
    ("certificate", "reference", "reason"),
    [
        (OWN, OWN, ""),
        (ORIGINALS, ORIGINALS, ""),
        (FAULTY, OWN, "no image is flipped; not shuffled"),
        (UNSEEN, OWN, "not certified: timeout: killed"),
        (ORIGINALS, OWN, "it crops the original files, which is more work"),
        (OWN, ORIGINALS, "it crops images that were resized beforehand, which is less work"),
    ],
)
def test_unranked_reason_names_faults_failures_and_other_source_images(
    certificate: Certificate, reference: Certificate, reason: str
) -> None:
    assert unranked_reason("a", "b", {"a": certificate, "b": reference}) == reason


def test_a_contestant_without_certificate_is_not_ranked() -> None:
    assert unranked_reason("a", "b", {"b": OWN}) == "not certified: it has no certificate"


def test_a_campaign_without_certificates_ranks_everybody() -> None:
    assert unranked_reason("a", "b", {}) == ""


def test_saved_certificates_load_unchanged(tmp_path) -> None:
    save({"a": OWN, "b": FAULTY}, tmp_path)
    assert load(tmp_path) == {"a": OWN, "b": FAULTY}
    assert load(tmp_path)["a"].digest == OWN.digest != FAULTY.digest
    assert load(tmp_path / "nothing") == {}
