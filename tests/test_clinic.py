"""Visits of the clinic: what is kept of them, and how they are judged."""

import pytest

from tests.clinic import visits
from tests.perf.clinic import told

BLANK = dict.fromkeys(visits.COLUMNS, "")
LEAK = {
    **BLANK,
    "run": "1",
    "patient": "leak",
    "disease": "memory leak",
    "named": "memory leak",
    "evidence": "one, two",
}
WORKERS = {**BLANK, "run": "2", "patient": "one_worker", "disease": "too few workers", "named": "model"}


def test_visits_are_read_as_they_were_kept(tmp_path):
    for visit in (LEAK, WORKERS):
        visits.keep(tmp_path / "results" / "clinic.csv", visit)
    assert visits.read(tmp_path / "results" / "clinic.csv") == [LEAK, WORKERS]


def test_a_file_of_other_columns_is_refused(tmp_path):
    (tmp_path / "clinic.csv").write_text("code,run\n1,2\n")
    with pytest.raises(ValueError, match=r"clinic\.csv has other columns; name another file with --out"):
        visits.read(tmp_path / "clinic.csv")


@pytest.mark.parametrize(
    ("promised", "given", "kept"), [("1.50", "1.50", True), ("1.50", "1.31", True), ("1.50", "1.30", False),
                                    ("1.50", "1.76", True), ("1.50", "1.77", False), ("", "", True)]
)  # fmt: skip
def test_a_promise_is_kept_within_15_percent_of_the_gain(promised, given, kept):
    visit = {**WORKERS, "promised_gain": promised, "given_gain": given}
    assert visits.kept(visit) is kept
    assert ("NOT KEPT" in told(visit)) is not kept


def test_a_visit_says_whether_the_disease_was_named():
    assert visits.right(LEAK)
    assert told(LEAK) == "run 1, leak: memory leak"
    assert not visits.right(WORKERS)
    assert "WRONG" in told({**WORKERS, "evidence": "0% waiting"})
