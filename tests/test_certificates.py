"""Who may be ranked with whom."""

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
def test_what_keeps_a_contestant_from_being_ranked(
    certificate: Certificate, reference: Certificate, reason: str
) -> None:
    assert unranked_reason("a", "b", {"a": certificate, "b": reference}) == reason


def test_a_contestant_that_was_overlooked_is_not_taken_for_certified() -> None:
    assert unranked_reason("a", "b", {"b": OWN}) == "not certified: it has no certificate"


def test_where_nothing_is_certified_nobody_is_set_apart() -> None:
    assert unranked_reason("a", "b", {}) == ""


def test_certificates_are_read_as_they_were_written(tmp_path) -> None:
    save({"a": OWN, "b": FAULTY}, tmp_path)
    assert load(tmp_path) == {"a": OWN, "b": FAULTY}
    assert load(tmp_path)["a"].digest == OWN.digest != FAULTY.digest
    assert load(tmp_path / "nothing") == {}
