"""What is kept of each trial? The CSV schema, its one source of truth: header, writing, reading."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from dataclasses import MISSING, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_type_hints

from loaderbench.machine.files import force_to_disk

if TYPE_CHECKING:
    from collections.abc import Sequence

SCHEMA_VERSION = 5
"""A version may add columns, which are empty in rows of an earlier one, and never changes or drops any; as of 3."""

Kind = Literal["write", "load", "limit", "tune"]
Track = Literal["same", "best"]
Cache = Literal["warm", "cold"]
Consumer = Literal["hungry", "paced", "train", "lightning"]
Transport = Literal["", "stream", "bounded", "download"]
TRANSPORTS: dict[str, str] = {
    "stream": "streamed",
    "bounded": "streamed, cache bounded",
    "download": "downloaded first",
}
"""What people call them."""
STREAM_TABLES: dict[Transport, str] = {"stream": "streaming", "bounded": "bounded", "download": "downloading"}
"""Which key of a campaign's table `stream` names their contestants."""
Status = Literal["ok", "failed", "timeout", "invalid", "unavailable"]


@dataclass(frozen=True, kw_only=True)
class Record:
    """One row of `trials.csv`: a conversion (`write`), a trial of a contestant (`load`), how fast the machine can do
    one step of the work (`limit`), or a trial of the search for a contestant's best settings (`tune`).

    None is an empty cell: not measured, or not applicable. A row that is not `ok` has no speed.
    """

    schema: int = SCHEMA_VERSION
    """Version of these columns."""
    trial: str
    """Unique in its campaign: `write/<format>`, `tune/<contestant>/<number>`, `<block>/<contestant>` or
    `<block>/limit/<step>`; `<block>.<attempt>` from the second attempt at a block on, `/cold` at the end of a cold
    trial, `/best` of one at the contestant's best settings, the consumer's name if that is not the hungry one, and the
    `transport` of one whose data is in a bucket."""
    kind: Kind
    block: int | None = None
    """Block number from 1; every contestant runs once in each block. Empty for a search, which comes before them."""
    attempt: int | None = None
    """Attempt at the block, from 1: a disturbed block may be run again."""
    position: int | None = None
    """Place in the order of execution of the block or of the contestant's search, from 1."""
    started_at: str
    """UTC, ISO 8601."""
    contestant: str | None = None
    title: str
    """The contestant's or format's name for people."""
    adapter: str
    """The loader or writer."""
    format: str
    options: str = ""
    """The options that the loader was given or the format's encoding, as JSON with sorted keys."""
    versions: str = ""
    """Versions of the adapter's libraries, `name version` separated by `; `."""
    status: Status
    reason: str = ""
    """Why the row is not ok, in one line."""

    samples: int | None = None
    """Distinct samples in the data set."""
    size_bytes: int | None = None
    """Bytes on disk: all files of the format."""
    payload_bytes: int | None = None
    """The part of them that holds images; the rest is index, padding and the like."""
    bytes_per_image: float | None = None

    batch_size: int | None = None
    workers: int | None = None
    memory_format: str = ""
    """As delivered: `contiguous` or `channels_last`."""
    batch_memory: str = ""
    """As the loader delivers it: `shared` with other processes, from which it came, `pinned` (page-locked, from where a
    GPU copies by itself), `private`, or on the `device`."""
    track: str = ""
    """`same`: a trial in a block at the campaign's settings, which are equal for all; `best`: one at the settings that
    the search found best for the contestant."""
    cache: str = ""
    """The state of the page cache asked for: `warm` or `cold`."""
    cache_state: str = ""
    """What is proven of it. `warm`: 99 % of the format resident before, and at most 1 % of its size, or 1 MiB, read.
    `cold`: at most 1 % resident before, and at least 95 % of `payload_bytes` read; `guest-cold` in a virtual machine,
    whose host may have held it. `unproven`: neither. Empty for a loader that reads no format."""

    consumer: str = ""
    """What became of the batches: a module of `loaderbench.trial.consumers`. Empty in rows of schema 3: `hungry`."""
    ranks: int | None = None
    """Processes that shared each epoch. Empty in rows of schema 3: 1."""

    images_per_s: float | None = None
    """Load: within the window; warm: steady, epoch boundaries included; cold: from the first epoch's first batch to its
    last; from a bucket: from the first batch of all epochs to their last; of all ranks or jobs together, while the
    windows of all are open. Write: samples over `write_s`. Limit: of this one step, on all allowed cores at once."""
    bound_ips: float | None = None
    """The least of the limits, measured in the same attempt at the block, that no loader of this format can pass."""
    bound_by: str = ""
    """The step of the work that this limit is of."""
    pct_of_bound: float | None = None
    """`images_per_s` of it. More than 100 means less work than was asked for, or a limit that is none."""
    slowest_rank_images_per_s: float | None = None
    """Of the rank or job that was given the fewest images in the window; empty if there is one process."""
    half_drift_pct: float | None = None
    """How much faster the window's second half was than its first."""
    epoch1_images_per_s: float | None = None
    """Images of the first epoch over `epoch1_s`."""
    epoch1_s: float | None = None
    """From the first `iter()` to the first epoch's last batch."""
    sustained_images_per_s: float | None = None
    """Over all whole epochs after the first, epoch boundaries included; empty if there was none."""
    import_s: float | None = None
    """Importing the adapter's libraries."""
    construct_s: float | None = None
    """Constructing the loader."""
    first_batch_s: float | None = None
    """From the first `iter()` to the first batch: compiling, starting workers, decoding."""
    window_s: float | None = None
    """Length of the steady window."""
    window_images: int | None = None
    window_epochs: int | None = None
    """Epoch boundaries that lie in the window."""
    bank_images: int | None = None
    """Images that were ready after a pause: what the loader prepares ahead. Empty if they did not come to an end."""
    bank_bias_bound_pct: float | None = None
    """The most by which the bank can have raised `images_per_s`: `bank_images` over `window_images`."""
    wait_p50_ms: float | None = None
    """Between asking for a batch and having it, in the window: median."""
    wait_p95_ms: float | None = None
    wait_p99_ms: float | None = None
    wait_max_ms: float | None = None
    epoch_end_s: float | None = None
    """Mean wait from an epoch's last batch to the next one's first, over the whole trial."""
    teardown_s: float | None = None
    """Closing the loader."""

    certificate: str = ""
    """SHA-256 of the contestant's certificate in `certificates.json`. Empty in a first block that was measured
    before the certificates were made."""
    times: str = ""
    """The file in `times/` that keeps the raw times of every batch."""

    write_s: float | None = None
    stored: str = ""
    """What is stored of the images, by `loaderbench.formats.payloads`, from what was read back."""
    stored_raw: int | None = None
    """Stored images that hold exactly the canonical pixels, read back and compared by SHA-256."""
    stored_jpeg: int | None = None
    """Stored images that hold exactly the canonical JPEG bytes, read back and compared by SHA-256."""
    cpu_s: float | None = None
    """CPU seconds of the whole process tree, in the window or while writing."""
    cpu_load_pct: float | None = None
    """CPU used in the window, of all allowed cores together."""
    cores_used: float | None = None
    cpu_s_per_1k_images: float | None = None
    peak_memory_mib: float | None = None
    """Largest sum of proportional set sizes (PSS) over the process tree, of the readings after the first batch and at
    the window's end. Shared pages count once; mapped files count as far as they are resident. The harness's own raw
    times are taken off."""
    peak_anon_memory_mib: float | None = None
    """The part of it that is not backed by files: anonymous and shared memory."""
    major_faults: int | None = None
    """In the window, over the process tree: page faults that had to read."""
    context_switches: int | None = None
    """In the window, over the process tree."""
    read_bytes: int | None = None
    """Read from the disk by the process tree, from the construction of the loader to the last batch."""
    resident_pct: float | None = None
    """Share of the format that was in the page cache just before the trial."""
    other_cpu_pct: float | None = None
    """Use of the allowed cores in the window by anything but the trial."""
    steal_pct: float | None = None
    """Time of the allowed cores in the window that the hypervisor gave to another machine."""
    canary_drift_pct: float | None = None
    """How much longer a fixed piece of work took after the trial than before it."""
    throttle_events: int | None = None
    """How often in the window a core was slowed for its heat, or the trial had used up its cgroup's CPU quota."""
    monitor_cpu_pct: float | None = None
    """CPU that the readings at the window's edges took, over the window, of one core. Memory is read after it."""
    step_p50_ms: float | None = None
    """Of a consumer that trains: a step of it, median in the window; on a GPU by its own clock. The mean over ranks."""
    starved_pct: float | None = None
    """Of a consumer that trains: time in the window in which the device that trains did nothing of a step. On a GPU by
    CUDA events, from the end of a step to the beginning of the next, in which the loader may use it; on a CPU by the
    waits for batches. Of several ranks the highest: in each step the others wait for that one."""
    gpu_starved_pct: float | None = None
    """The same, if the device is a GPU."""
    cached_images_per_s: float | None = None
    """What the same training does on one batch that is there, with no loader beside it; of all ranks together."""
    stall_vs_cached_pct: float | None = None
    """By how much `images_per_s` is less than that."""
    loss_first: float | None = None
    """Mean loss of the first 8 steps of training, over all ranks."""
    loss_last: float | None = None
    """Mean loss of the last 8 of a number of steps that is the same for all: who delivers the same agrees in it."""
    fed_images_per_s: float | None = None
    """The highest demand at which an emulated accelerator is busy for 90 % of the time."""
    demand_curve: str = ""
    """The demands that were tried in images/s, each with the accelerator's utilisation in per cent, set off by `; `."""
    gpu_util_pct: float | None = None
    """Mean over the window of NVML's utilisation samples: time in which any kernel ran. NVML's buffers go back some
    seconds only: where the window is longer, this and the two other means of samples are over its end."""
    gpu_memory_mib: float | None = None
    """Largest device memory in use, by all processes and the driver itself, of the readings at the window's two edges;
    a peak between them is not seen."""
    gpu_power_w: float | None = None
    """Mean over the window of NVML's samples of the GPU's total power."""
    gpu_energy_j: float | None = None
    """Difference of the GPU's energy counter over the window; only for windows of 30 s and more."""
    gpu_sm_clock_mhz: float | None = None
    """Mean over the window of NVML's samples of the multiprocessors' (SM) clock."""
    gpu_throttle: str = ""
    """What held the GPU's clocks down at either edge of the window, separated by `; `. To be idle, or at a clock that
    was set on purpose, does not count.
    Empty also if NVML does not tell, which `gpu_reason` says."""
    gpu_sm_active_pct: float | None = None
    """Multiprocessors (SM) that were busy, mean over the window, by the GPM counters that came with Hopper."""
    gpu_dram_pct: float | None = None
    """Bandwidth of the device memory that was used, of all there is, mean over the window, by the same counters."""
    gpu_reason: str = ""
    """Why a figure of the GPU is empty: the columns and the reason, several reasons separated by `; `."""
    transport: str = ""
    """How the data came from a bucket: `stream`, read by the loader itself while it goes; `bounded`, the same with a
    bound of what it may keep; `download`, fetched before the loader starts. Empty: it was on this machine."""
    network_rate_mib_per_s: float | None = None
    """What the network was limited to, all connections together. Empty: it was not."""
    network_latency_ms: float | None = None
    """How much longer each round trip was made."""
    network_bytes: int | None = None
    """Received over the network in the whole trial, encryption and all."""
    network_epoch1_bytes: int | None = None
    """The part of it until the first epoch's last batch, downloading included."""
    network_epoch2_bytes: int | None = None
    """The part of it from there to the second epoch's last batch: what the cache did not keep."""
    download_s: float | None = None
    """Fetching all files of the format and comparing them by SHA-256, before the loader is there."""
    epoch2_s: float | None = None
    """From the first epoch's last batch to the second's."""
    cache_mib: float | None = None
    """The most that the loader was to keep on the disk. Empty: all of it."""
    cache_peak_mib: float | None = None
    """The most that it did keep, of looks ten times a second; of what was downloaded, before and after the trial."""
    cache_end_mib: float | None = None
    """What it had kept when the trial was over."""
    jobs: int | None = None
    """Processes side by side that loaded whole epochs each and knew nothing of each other. Empty in earlier rows: 1."""
    fairness: float | None = None
    """Jain's index over the speeds of ranks or jobs in the window, see `records.timeline.fairness`; empty if there is
    one process."""
    delivers: str = ""
    """What images are delivered as: dtype, whether normalised, and on which device if not in the CPU's memory. Empty in
    rows before schema 5: see the campaign's work."""
    copy_p50_ms: float | None = None
    """A batch's copy to the GPU, median in the window, by CUDA events. Empty if the loader delivers there itself."""
    copy_overlap_pct: float | None = None
    """Of a consumer that trains on a GPU: the share of the time of those copies in which a step was computed."""
    until_asked_s: float | None = None
    """With the data in a bucket: from before the trial's first process is started until the first batch is asked for.
    Starting processes, downloading, importing and constructing are in it."""
    seal: str = ""
    """SHA-256 over all other cells of the row and the file of its raw times: tells whether either was changed."""


_TYPES = get_type_hints(Record)
HEADER = tuple(field.name for field in fields(Record))
_NEEDED = {field.name for field in fields(Record) if field.default is MISSING}


def now() -> str:
    """Return the time as records keep it: UTC, ISO 8601, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def append(path: Path, record: Record) -> None:
    """Seal one row and add it, with the header if the file is new, and force it to the disk.

    A row is one line, written at once.
    """
    new = not path.exists()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if new:
        writer.writerow(HEADER)
    writer.writerow([*_cells(record), seal(record, path.parent)])
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, text.getvalue().encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if new:
        force_to_disk(path.parent)


def seal(record: Record, folder: Path, header: Sequence[str] = HEADER) -> str:
    """Return the seal that a row in a campaign's folder must have. `header`: the file's own, see `header_of`.

    Raises FileNotFoundError without its raw times.
    """
    raw = (folder / "times" / record.times).read_bytes() if record.times else b""
    return hashlib.sha256("\n".join(_cells(record, header)).encode() + raw).hexdigest()


def _cells(record: Record, header: Sequence[str] = HEADER) -> list[str]:
    """Return all cells but the last, which is the seal."""
    return [cell(getattr(record, name)) for name in header[:-1]]


def header_of(path: Path) -> tuple[str, ...]:
    """Return the columns that a file was written with, in their order."""
    with path.open(newline="") as file:
        return tuple(next(csv.reader(file)))


def mend(path: Path) -> None:
    """Cut off a last line that a kill or a power cut left unfinished. Whole rows are never touched."""
    if not path.exists():
        return
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if not whole:
        path.unlink()
    elif len(whole) < len(text):
        with path.open("r+b") as file:
            file.truncate(len(whole))
            os.fsync(file.fileno())


def read(path: Path) -> list[Record]:
    """Return all whole rows, also of a file that an earlier version wrote, which lacks columns of today's.

    Raises ValueError if it has columns that this version does not know, or lacks those that no row can do without.
    """
    if not path.exists():
        return []
    text = path.read_text()
    rows = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1])))
    if rows and not (_NEEDED <= set(rows[0]) <= set(HEADER)):
        message = (
            f"{path} was written with other columns than schema {SCHEMA_VERSION}; "
            "use the version of loaderbench that wrote it (see env.json beside it)"
        )
        raise ValueError(message)
    return [Record(**{name: _value(name, cell) for name, cell in zip(rows[0], row, strict=True)}) for row in rows[1:]]


def cell(value: str | float | None) -> str:
    """Return what stands in the file for a value."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return " ".join(str(value).split())  # one row, one line


def _value(name: str, cell: str) -> Any:
    kinds = get_args(_TYPES[name]) or (_TYPES[name],)
    if cell == "" and type(None) in kinds:
        return None
    if int in kinds:
        return int(cell)
    return float(cell) if float in kinds else cell
