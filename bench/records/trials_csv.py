"""Append sealed rows to `trials.csv`, and read them back."""

import csv
import errno
import hashlib
import io
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from loaderbench.machine.disk import full_disk_explained
from loaderbench.machine.errors import FixableError
from loaderbench.machine.files import force_to_disk, open_plain
from loaderbench.machine.text import cell as cell_text
from loaderbench.machine.text import one_line, printable
from loaderbench.records import arrays
from loaderbench.records.earlier import RENAMED
from loaderbench.records.record import HEADER, SCHEMA_VERSION, Record

_TYPES = get_type_hints(Record)
_MOST_BYTES = 256 << 20
REASON_CHARACTERS = 2000
"""The longest reason that is kept. The log has the rest."""
MAKE_ROOM = "make room there and run the same command to resume, or use --results DIR for another disk"
_NEEDED = {field.name for field in fields(Record) if field.default is MISSING}


def append(path: Path, record: Record) -> None:
    """Seal one row and append it as one line, after the header if the file is new, and force it to the disk.

    The row is there completely or not at all. Raises DiskSpaceError without room for it.
    """
    if path.is_symlink():
        raise FixableError(f"{printable(path)} is a link, through which nothing is written; remove it")
    record = _printable(record)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    with (
        full_disk_explained(path.parent, f"the figures of {record.trial}", MAKE_ROOM),
        path.open("ab", buffering=0) as file,
    ):
        before_bytes = file.tell()
        if not before_bytes:
            writer.writerow(HEADER)
        writer.writerow([*_cells(record), seal(record, path.parent)])
        _write(file, text.getvalue().encode(), before_bytes)
    if not before_bytes:
        force_to_disk(path.parent)


def _write(file: io.FileIO, row: bytes, before_bytes: int) -> None:
    """Write a row at the end of a file of `before_bytes`. Raises OSError if not all of it is kept; then none is."""
    try:
        written = file.write(row)
        os.fsync(file.fileno())
    except OSError:
        file.truncate(before_bytes)
        raise
    if written != len(row):
        file.truncate(before_bytes)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _printable(record: Record) -> Record:
    """Return a record whose texts fit into a file, each in one line, none a formula; a long reason loses its end."""
    record = replace(record, reason=one_line(record.reason, REASON_CHARACTERS))
    lines: dict[str, Any] = {name: cell_text(text) for name, text in vars(record).items() if isinstance(text, str)}
    return replace(record, **lines)


def read(path: Path) -> list[Record]:
    """Return all complete rows.

    Columns that an earlier version did not write are empty, or hold the value of the column that it had instead.

    Raises ValueError if the file has unknown columns, or lacks those that every row needs.
    """
    if not path.exists():
        return []
    with open_plain(path, _MOST_BYTES) as file:
        content = file.read()
    csv.field_size_limit(sys.maxsize)  # reasons of earlier versions may have any length
    rows = list(csv.reader(io.StringIO(content[: content.rfind(b"\n") + 1].decode(), newline="")))
    if rows and not (_NEEDED <= set(rows[0]) <= set(HEADER)):
        raise ValueError(
            f"{path} has other columns than schema {SCHEMA_VERSION}; "
            "use the version of loaderbench that wrote it (see env.json beside it)"
        )
    try:
        return [_record(dict(zip(rows[0], row, strict=True))) for row in rows[1:]]
    except ValueError as error:
        raise ValueError(f"{path} has a row that no loaderbench has written ({error}); restore it") from None


def _record(cells: Mapping[str, str]) -> Record:
    row: dict[str, Any] = {name: _value(name, text) for name, text in cells.items()}
    shown: dict[str, Any] = {new: row.get(old) for new, old in RENAMED.items()}
    return Record(**(shown | row))


def header_of(path: Path) -> tuple[str, ...]:
    """Return the columns of a file in their order; today's if there is none."""
    if not path.exists():
        return HEADER
    with open_plain(path, _MOST_BYTES) as file:
        return tuple(next(csv.reader(filter(None, [file.readline().decode()])), HEADER))


def mend(path: Path) -> None:
    """Remove an incomplete last line, which a kill or a power cut has left. Complete rows are never touched."""
    if not path.exists():
        return
    text = path.read_bytes()
    complete = text[: text.rfind(b"\n") + 1]
    if not complete:
        path.unlink()
    elif len(complete) < len(text):
        with path.open("r+b") as file:
            file.truncate(len(complete))
            os.fsync(file.fileno())


def seal(record: Record, folder: Path, header: Sequence[str] = HEADER) -> str:
    """Return the seal that a row in a campaign's folder must have. `header`: the columns of the file.

    Raises FileNotFoundError without the row's raw times, and ValueError if they are no plain file.
    """
    raw = b""
    if record.times:
        with open_plain(times_path(record, folder), arrays.MOST_BYTES) as file:
            raw = file.read()
    return hashlib.sha256("\n".join(_cells(record, header)).encode() + raw).hexdigest()


def times_path(record: Record, folder: Path) -> Path:
    """Return the file with a row's raw times. Raises ValueError if its name leads out of the campaign's folder."""
    times = folder / "times"
    if Path(record.times).name != record.times or times.is_symlink():
        raise ValueError(f"{printable(record.times)} is no file of {printable(times)}")
    return times / record.times


def cell(value: str | float | None) -> str:
    """Return the text of a value in the file."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return " ".join(str(value).split())  # one row, one line


def _cells(record: Record, header: Sequence[str] = HEADER) -> list[str]:
    """Return all cells but the last, which is the seal."""
    return [cell(getattr(record, name)) for name in header[:-1]]


def _value(name: str, text: str) -> Any:
    kinds = get_args(_TYPES[name]) or (_TYPES[name],)
    if text == "" and type(None) in kinds:
        return None
    if int in kinds:
        return int(text)
    return float(text) if float in kinds else text
