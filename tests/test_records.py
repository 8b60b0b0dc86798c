"""Rows are read back as they were written; a torn row is ignored."""

from __future__ import annotations

import csv
import errno
import io
import os
import subprocess
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from loaderbench.machine.disk import DiskSpaceError
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


@pytest.mark.parametrize(
    ("reason", "kept"),
    [
        ("no file \udcff.jpg", r"no file \udcff.jpg"),
        ("TypingError: \x1b[1mno function\x1b[0m\x00\x07", r"TypingError: no function\x00\x07"),
        ("x" * 200_000, "x" * (trials_csv.REASON_CHARACTERS - 1) + "…"),
    ],
    ids=["half of a surrogate pair", "colours and control characters", "200,000 characters"],
)
def test_any_error_text_becomes_a_row_that_is_read_back_and_whose_seal_holds(
    tmp_path: Path, reason: str, kept: str
) -> None:
    path = tmp_path / "trials.csv"
    trials_csv.append(path, replace(RECORD, reason=reason))
    trials_csv.append(path, replace(RECORD, trial="2/a"))
    assert [row.reason for row in unsealed(path)] == [kept, ""]


def test_a_long_reason_of_an_earlier_version_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "trials.csv"
    monkeypatch.setattr(trials_csv, "REASON_CHARACTERS", 1 << 20)
    trials_csv.append(path, replace(RECORD, reason="x" * 200_000))
    monkeypatch.undo()
    assert len(unsealed(path)[0].reason) == 200_000


class Full(io.FileIO):
    """A file on a full disk, of which `fault` names the call that notices it."""

    fault = ""

    def write(self, row: Any) -> int:
        return super().write(row[:7] if self.fault == "write" else row)

    def fileno(self) -> int:  # which fsync asks for
        if self.fault == "fsync":
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        return super().fileno()


@pytest.mark.parametrize("fault", ["write", "fsync"])
@pytest.mark.parametrize("before", [["1/a", "1/b"], []], ids=["with rows", "new"])
def test_a_row_that_the_disk_has_no_room_for_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, before: list[str]
) -> None:
    path = tmp_path / "trials.csv"
    for name in before:
        trials_csv.append(path, replace(RECORD, trial=name))
    monkeypatch.setattr(Path, "open", lambda path, mode, **_: Full(path, mode))
    monkeypatch.setattr(Full, "fault", fault)
    with pytest.raises(DiskSpaceError, match=r"filled up .* the figures of 2/a are not kept; make room"):
        trials_csv.append(path, replace(RECORD, trial="2/a"))
    monkeypatch.undo()
    assert trials_csv.header_of(path) == trials_csv.HEADER
    trials_csv.append(path, replace(RECORD, trial="2/a"))
    assert [row.trial for row in unsealed(path)] == [*before, "2/a"]


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_never_joins_two_rows(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", tmp_path], check=True)
    try:
        path, kept = tmp_path / "trials.csv", list[str]()
        with suppress(DiskSpaceError):
            for name in map(str, range(1000)):
                trials_csv.append(path, replace(RECORD, trial=name, reason="x" * 300))
                kept.append(name)
        assert [row.trial for row in unsealed(path)] == kept
        assert 2 < len(kept) < 100
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_row_torn_within_a_character_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "trials.csv"
    trials_csv.append(path, RECORD)
    whole = path.read_bytes()
    path.write_bytes(whole + "2/ä".encode()[:-1])
    assert unsealed(path) == [RECORD]


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
