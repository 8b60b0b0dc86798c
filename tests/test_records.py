"""Rows are read back as they were written; a torn row is ignored."""

from __future__ import annotations

import csv
from dataclasses import fields, replace
from pathlib import Path

import pytest

from loaderbench.records import earlier, trials_csv
from loaderbench.records.record import Record

RECORD = Record(
    trial="1/a",
    kind="load",
    block=1,
    started_at="2026-01-01T00:00:00+00:00",
    title='A, "quoted"',
    adapter="a",
    format="f",
    status="ok",
    images_per_s=1234.5,
    samples=10,
)


def unsealed(path: Path) -> list[Record]:
    rows = trials_csv.read(path)
    assert all(row.seal == trials_csv.seal(row, path.parent) for row in rows)
    return [replace(row, seal="") for row in rows]


def test_rows_are_read_back_unchanged_and_empty_cells_as_none(tmp_path: Path) -> None:
    path = tmp_path / "trials.csv"
    other = replace(RECORD, trial="2/a", status="failed", reason="no", images_per_s=None)
    trials_csv.append(path, RECORD)
    trials_csv.append(path, other)
    assert unsealed(path) == [RECORD, other]
    assert trials_csv.read(path)[1].cpu_s is None


def test_a_reason_of_many_lines_stays_in_one_row(tmp_path: Path) -> None:
    path = tmp_path / "trials.csv"
    trials_csv.append(path, replace(RECORD, reason="first\nsecond\r\n\tthird"))
    assert len(path.read_text().splitlines()) == 2
    assert trials_csv.read(path)[0].reason == "first second third"


@pytest.mark.parametrize("lost", [1, 5, 40])
def test_a_torn_row_is_ignored_and_removed(tmp_path: Path, lost: int) -> None:
    path = tmp_path / "trials.csv"
    for name in ("1/a", "1/b", "1/c"):
        trials_csv.append(path, replace(RECORD, trial=name))
    path.write_bytes(path.read_bytes()[:-lost])
    assert [record.trial for record in trials_csv.read(path)] == ["1/a", "1/b"]
    trials_csv.mend(path)
    trials_csv.append(path, replace(RECORD, trial="1/d"))
    assert [record.trial for record in trials_csv.read(path)] == ["1/a", "1/b", "1/d"]


def test_a_file_with_a_torn_header_counts_as_empty(tmp_path: Path) -> None:
    path = tmp_path / "trials.csv"
    path.write_text("schema,tri")
    assert trials_csv.read(path) == []
    trials_csv.mend(path)
    trials_csv.append(path, RECORD)
    assert unsealed(path) == [RECORD]


def test_a_file_of_an_earlier_schema_is_read_and_its_seals_hold(tmp_path: Path) -> None:
    later = {"consumer", "ranks", "fed_images_per_s"}
    header = tuple(name for name in trials_csv.HEADER if name not in later)
    seal = trials_csv.seal(replace(RECORD, schema=3), tmp_path, header)
    cells = [trials_csv.cell(getattr(replace(RECORD, schema=3), name)) for name in header[:-1]]
    path = tmp_path / "trials.csv"
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, [*cells, seal]])
    [row] = trials_csv.read(path)
    assert (row.schema, row.consumer, row.ranks) == (3, "", None)
    assert row.seal == trials_csv.seal(row, tmp_path, trials_csv.header_of(path)) == seal
    assert row.seal != trials_csv.seal(row, tmp_path)


def test_an_earlier_row_shows_its_own_columns_instead_of_new_ones(tmp_path: Path) -> None:
    old = replace(RECORD, schema=5, bank_images=512, peak_memory_mib=9.0)
    header = tuple(name for name in trials_csv.HEADER if name not in earlier.RENAMED)
    path = tmp_path / "trials.csv"
    with path.open("w", newline="") as file:
        cells = [trials_csv.cell(getattr(old, name)) for name in header[:-1]]
        csv.writer(file, lineterminator="\n").writerows([header, [*cells, trials_csv.seal(old, tmp_path, header)]])
    [row] = trials_csv.read(path)
    assert (row.prefetched_images, row.memory_mib, row.epoch_gap_s) == (512, 9.0, None)
    assert row.seal == trials_csv.seal(row, tmp_path, header)


def test_a_file_with_other_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trials.csv"
    path.write_text("loader,speed\nffcv,3\n")
    with pytest.raises(ValueError, match="other columns than schema"):
        trials_csv.read(path)


def test_header_lists_the_fields_of_the_record(tmp_path: Path) -> None:
    path = tmp_path / "trials.csv"
    trials_csv.append(path, RECORD)
    assert path.read_text().splitlines()[0].split(",") == [field.name for field in fields(Record)]
