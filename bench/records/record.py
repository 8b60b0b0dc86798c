"""The row that is kept of each trial: the schema of `trials.csv`."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from statistics import fmean, median
from typing import Any, Literal

SCHEMA_VERSION = 7
"""A version may add columns and stop filling others. None changes the meaning of a column, or drops one."""

Kind = Literal["write", "load", "limit", "tune"]
Track = Literal["same", "best", "scaling"]
Cache = Literal["warm", "cold", "limited"]
Consumer = Literal["hungry", "paced", "train", "lightning"]
Transport = Literal["", "stream", "bounded", "download"]
TRANSPORTS: dict[str, str] = {
    "stream": "streamed",
    "bounded": "streamed, cache bounded",
    "download": "downloaded first",
}
"""What reports call them."""
STREAM_TABLES: dict[Transport, str] = {"stream": "streaming", "bounded": "bounded", "download": "downloading"}
"""The key of a campaign's table `stream` that lists the contestants of each transport."""
Status = Literal["ok", "failed", "timeout", "invalid", "unavailable"]
Statistic = Callable[[list[float]], float]


def column(*, over_blocks: Statistic | None = None, over_ranks: Statistic | None = None) -> Any:
    """Declare a column that may be empty.

    `over_blocks`: the statistic by which a summary of several blocks keeps it. `over_ranks`: the one that makes the
    value of a trial from those of its ranks or jobs; without it, the value is the same for all of them, or it follows
    from their raw times.
    """
    return field(default=None, metadata={"over_blocks": over_blocks, "over_ranks": over_ranks})


@dataclass(frozen=True, kw_only=True)
class Record:  # long, because it is one schema, in the order of the file's header
    """One row of `trials.csv`.

    Its kind is a conversion (`write`), a trial of a contestant (`load`), the measurement of a machine limit (`limit`),
    or a trial of the search for a contestant's best settings (`tune`). None is an empty cell: not measured or not
    applicable. A row that is not `ok` has no speed.
    """

    schema: int = SCHEMA_VERSION
    trial: str
    """Unique in its campaign: `write/<format>`, `tune/<contestant>/<number>`, `<block>/<contestant>` or
    `<block>/limit/<step>`. From the second attempt at a block on, it begins with `<block>.<attempt>`. It ends with the
    key of the trial's variant, see `loaderbench.campaign.variant`."""
    kind: Kind
    block: int | None = None
    """Block number from 1; every contestant runs once in each block. Empty for a search, which precedes the blocks."""
    attempt: int | None = None
    """Attempt at the block, from 1: a disturbed block may be run again."""
    position: int | None = None
    """Place in the order of execution, from 1, in the block or in the contestant's search."""
    started_at: str
    """UTC, ISO 8601."""
    contestant: str | None = None
    title: str
    """Title of the contestant or format in reports."""
    adapter: str
    """The loader or writer."""
    format: str
    options: str = ""
    """Options of the loader, or encoding of the format, as JSON with sorted keys."""
    versions: str = ""
    """Versions of the adapter's libraries, `name version` separated by `; `."""
    status: Status
    reason: str = ""
    """Why the row is not ok, in one line."""

    samples: int | None = None
    """Distinct samples in the data set."""
    size_bytes: int | None = None
    """Bytes on disk of all files of the format."""
    payload_bytes: int | None = None
    """The part of them that holds images; the rest is index, padding and the like."""
    bytes_per_image: float | None = column(over_blocks=median)

    batch_size: int | None = None
    workers: int | None = None
    memory_format: str = ""
    """Of delivered batches: `contiguous` or `channels_last`."""
    batch_memory: str = ""
    """Of delivered batches: `shared` with the worker process that made them, `pinned` (page-locked, so that the GPU
    copies from it asynchronously), `private`, or on the `device`."""
    track: str = ""
    """`same`: a trial in a block at the campaign's settings, which all contestants share. `best`: one at the best
    settings that the search found for the contestant. `scaling`: one with another number of workers."""
    cache: str = ""
    """Requested state of the page cache: `warm`, `cold`, or `limited` (less than the format, which was read once)."""
    cache_state: str = ""
    """Verified state of the page cache. `warm`: 99 % of the format was resident before and after the trial, and at most
    1 % of its size, or 1 MiB, was read in the window. `cold`: at most 1 % was resident before, and at least 95 % of
    `payload_bytes` was read; `guest-cold` in a virtual machine, whose host may have cached it; `client-cold` on a
    network file system, whose server may. `limited`: at most 1 % was resident before, so that what the trial reads
    counts as its memory. `unproven`: none of them. Empty for a loader that reads no format. Until schema 6, `warm`
    looked at the residency before only, and at the reads of the whole trial, libraries included."""

    consumer: str = ""
    """What took the batches: a module of `loaderbench.trial.consumers`. Empty in rows of schema 3: `hungry`."""
    ranks: int | None = None
    """Processes that shared each epoch. Empty in rows of schema 3: 1."""

    images_per_s: float | None = column(over_blocks=median)
    """Load: in the window. Warm: steady, epoch boundaries included. Cold: from the first to the last batch of the first
    epoch. From a bucket: from the first to the last batch of all epochs. Ranks or jobs: the sum while all windows are
    open. Write: samples over `write_synced_s`. Limit: this step alone, on all allowed cores at once."""
    bound_ips: float | None = column(over_blocks=median)
    """The lowest machine limit that applies, measured in the same attempt at the block. Empty: see `bound_reason`."""
    bound_by: str = ""
    """The step of the work with this limit."""
    pct_of_bound: float | None = column(over_blocks=median)
    """`images_per_s` in percent of this limit. More than 100 means less work than requested, or a wrong limit."""
    slowest_rank_images_per_s: float | None = column(over_blocks=median)
    """Of the rank or job that received the fewest images in the window. Empty with one process."""
    window_drift_pct: float | None = None
    """How much faster the second half of the window's batches came than the first. With one process, ends of epochs are
    omitted. Empty if there are fewer than two spans of one batch per worker in a half."""
    window_drift_error_pct: float | None = None
    """Standard error of `window_drift_pct`, from the differences within each half."""
    epoch1_images_per_s: float | None = column(over_blocks=median)
    """Images of the first epoch over `epoch1_s`."""
    epoch1_s: float | None = column(over_blocks=median)
    """From the first `iter()` to the last batch of the first epoch."""
    later_epochs_images_per_s: float | None = column(over_blocks=median)
    """Sustained: over all epochs after the first that ended before the harness's pause, the gaps between epochs
    included. Empty if there was none."""
    import_s: float | None = column(over_blocks=median, over_ranks=max)
    """Importing the adapter's libraries."""
    construct_s: float | None = column(over_blocks=median, over_ranks=max)
    """Constructing the loader."""
    first_batch_s: float | None = column(over_blocks=median)
    """From the first `iter()` to the first batch: compiling, starting workers, decoding."""
    window_s: float | None = column(over_blocks=median)
    """Length of the steady window."""
    window_images: int | None = None
    window_epochs: int | None = None
    """Epoch boundaries in the window. Empty with several ranks or jobs, whose boundaries differ."""
    prefetched_images: int | None = None
    """By how many images batches after a pause, which follows the window, were ahead of the window's speed. Empty if
    there may be more: if the epoch or the trial ended first, or if the pause was too short to prefetch more."""
    prefetch_bias_bound_pct: float | None = column(over_blocks=median)
    """The largest share of `images_per_s` for which prefetching can account: `prefetched_images` over
    `window_images`."""
    wait_p50_ms: float | None = column(over_blocks=median)
    """Time from the request for a batch to its delivery, in the window: median."""
    wait_p95_ms: float | None = column(over_blocks=median)
    wait_p99_ms: float | None = column(over_blocks=median)
    wait_max_ms: float | None = column(over_blocks=median)
    epoch_gap_s: float | None = column(over_blocks=median)
    """Mean gap from the last batch of an epoch to the first of the next, before the harness's pause."""
    teardown_s: float | None = column(over_ranks=max)
    """Closing the loader."""

    certificate: str = ""
    """SHA-256 of the contestant's certificate in `certificates.json`. Empty in a trial that came before them: in the
    search for best settings, and in the first block, which they follow."""
    times: str = ""
    """The file in `times/` with the raw times of every batch."""

    write_synced_s: float | None = None
    """Time to write the format, until all of it is on the disk."""
    stored: str = ""
    """What the format stores, as read back, see `loaderbench.formats.payloads`."""
    stored_raw: int | None = None
    """Stored images that equal the canonical pixels, compared by SHA-256 after reading them back."""
    stored_jpeg: int | None = None
    """Stored images that equal the canonical JPEG bytes, compared by SHA-256 after reading them back."""
    cpu_s: float | None = None
    """CPU seconds of the whole process tree, in the window or while writing."""
    cpu_load_pct: float | None = column(over_blocks=median, over_ranks=sum)
    """CPU used in the window, in percent of what may be used: all allowed cores, or a CPU quota of less. Until
    schema 6, a quota was left out of account."""
    cores_used: float | None = column(over_blocks=median, over_ranks=sum)
    cpu_s_per_1k_images: float | None = column(over_blocks=median)
    memory_mib: float | None = column(over_blocks=median, over_ranks=sum)
    """Sum of proportional set sizes (PSS) over the process tree, read twice: after the first batch and at the window's
    end. The reading with more anonymous and shared memory counts; a peak between the two is not seen. Pages that only
    the tree shares count once, those that it shares with other programs in part. Mapped files count as far as they are
    resident. The harness's own raw times are subtracted."""
    anon_memory_mib: float | None = column(over_blocks=median, over_ranks=sum)
    """The part of it that is not backed by files: anonymous and shared memory."""
    major_faults: int | None = column(over_ranks=sum)
    """Page faults in the window, over the process tree, that had to read."""
    context_switches: int | None = column(over_blocks=median, over_ranks=sum)
    """In the window, over the process tree. Those of worker processes' threads that ended in it are missing."""
    read_bytes: int | None = column(over_blocks=median, over_ranks=sum)
    """Read from the disk by the process tree, from the construction of the loader to the last batch."""
    window_read_bytes: int | None = column(over_ranks=sum)
    """The part of it in the window, after libraries were loaded."""
    memory_limit_mib: float | None = None
    """Memory that all processes of the trial together may use, page cache included. Empty: not limited."""
    read_bytes_per_image: float | None = column(over_blocks=median)
    """`window_read_bytes` over the window's images. Only where the page cache is `limited`."""
    from_memory_pct: float | None = column(over_blocks=median)
    """Share of what the window's images take in the format that was not read from the disk: 0 if at least as much was
    read. Only where the page cache is `limited`."""
    resident_pct: float | None = None
    """Share of the format that was in the page cache just before the trial."""
    resident_after_pct: float | None = None
    """Share of the format that was in the page cache just after the trial."""
    other_cpu_pct: float | None = None
    """Use of the allowed cores in the window by other processes than the trial's."""
    steal_pct: float | None = column(over_ranks=max)
    """Time of the allowed cores in the window that the hypervisor gave to other virtual machines."""
    canary_drift_pct: float | None = None
    """How much longer a fixed piece of work took after the trial than before it."""
    thermal_throttle_events: int | None = column(over_ranks=max)
    """How often in the window an allowed core was slowed for its heat. Empty if the kernel does not report it."""
    quota_throttle_events: int | None = column(over_ranks=max)
    """How often in the window a cgroup of the trial, or one above it, used up its CPU quota. Empty if not readable."""
    monitor_cpu_pct: float | None = column(over_blocks=median, over_ranks=sum)
    """CPU of the readings at the window's edges over the window, in percent of one core. Memory is read outside it."""
    step_p50_ms: float | None = column(over_blocks=median, over_ranks=fmean)
    """Median training step in the window, on a GPU by its own clock. Mean over ranks."""
    starved_pct: float | None = column(over_blocks=median, over_ranks=max)
    """Data stall: time in the window in which the training device computed no step. On a GPU by CUDA events, from the
    end of a step to the begin of the next, in which the loader may use the GPU; on a CPU by the waits for batches. The
    highest of several ranks: in each step the others wait for that one."""
    gpu_starved_pct: float | None = column(over_blocks=median, over_ranks=max)
    """The same, if the device is a GPU."""
    training_threads: int | None = column(over_ranks=min)
    """Threads that torch has in each training step, whatever the loader sets in the process that trains. Of several
    ranks, the fewest."""
    cached_images_per_s: float | None = column(over_blocks=median, over_ranks=sum)
    """Speed of the same training on one cached batch, before there is a loader. Sum over ranks."""
    stall_vs_cached_pct: float | None = column(over_blocks=median)
    """How much lower `images_per_s` is, in percent of it."""
    warm_cached_images_per_s: float | None = column(over_blocks=median, over_ranks=sum)
    """The same as `cached_images_per_s`, measured after the loader is closed: on a device as warm as in training."""
    stall_vs_warm_cached_pct: float | None = column(over_blocks=median)
    """How much lower `images_per_s` is, in percent of that."""
    loss_first: float | None = column(over_blocks=median, over_ranks=fmean)
    """Mean loss of the first 8 training steps, over all ranks."""
    loss_last: float | None = column(over_blocks=median, over_ranks=fmean)
    """Mean loss of the last 8 of a fixed number of steps: loaders that deliver the same agree in it."""
    fed_images_per_s: float | None = column(over_blocks=median)
    """The highest demand at which an emulated accelerator is busy for 90 % of the time; at most the highest tried."""
    demand_curve: str = ""
    """Demands tried in images/s, each with the accelerator's utilisation in percent, separated by `; `."""
    gpu_util_pct: float | None = column(over_blocks=median)
    """Mean over the window of NVML's utilisation samples: time in which any kernel ran. NVML's buffers hold only some
    seconds: in a longer window, this and the two other means of samples cover its end, which `gpu_reason` says."""
    gpu_memory_mib: float | None = column(over_blocks=median)
    """Device memory in use by all processes and the driver: the larger of two readings at the window's edges. A peak
    between them is not seen."""
    gpu_power_w: float | None = column(over_blocks=median)
    """Mean over the window of NVML's samples of the GPU's total power; if they do not cover it, its energy per
    second."""
    gpu_energy_j: float | None = column(over_blocks=median)
    """Difference of the GPU's energy counter over the window; only for windows of 30 s and more."""
    gpu_sm_clock_mhz: float | None = column(over_blocks=median)
    """Mean over the window of NVML's samples of the clock of the streaming multiprocessors (SM)."""
    gpu_throttle: str = ""
    """Reasons that limited the GPU's clocks at either edge of the window, separated by `; `. An idle GPU and a clock
    that was set on purpose do not count. Also empty if NVML reports none, which `gpu_reason` says."""
    gpu_sm_active_pct: float | None = column(over_blocks=median)
    """Busy streaming multiprocessors, mean over the window, by the GPM counters (Hopper and later)."""
    gpu_dram_pct: float | None = column(over_blocks=median)
    """Used share of the device memory's bandwidth, mean over the window, by the same counters."""
    gpu_reason: str = ""
    """Why GPU columns are empty, or how they were measured if not as usual: the columns and the reason, several reasons
    separated by `; `. Where NVML has no samples, a column is the mean of one reading at each edge of the window."""
    transport: str = ""
    """How the data came from a bucket. `stream`: the loader reads it during the trial. `bounded`: the same, with a
    limit on what it keeps on disk. `download`: fetched before the loader starts. Empty: the data was local."""
    network_rate_mib_per_s: float | None = None
    """Rate limit of the network, for all connections together. Empty: not limited."""
    network_latency_ms: float | None = None
    """Time added to each round trip."""
    network_bytes: int | None = column(over_blocks=median)
    """Received over the network in the whole trial, encryption included."""
    network_epoch1_bytes: int | None = column(over_blocks=median)
    """The part of it until the last batch of the first epoch, downloading included."""
    network_epoch2_bytes: int | None = column(over_blocks=median)
    """The part of it from there to the last batch of the second epoch: what the cache did not keep."""
    download_s: float | None = column(over_blocks=median)
    """Fetching all files of the format and comparing them by SHA-256, before the loader is constructed."""
    epoch2_s: float | None = column(over_blocks=median)
    """From the last batch of the first epoch to the last of the second."""
    cache_mib: float | None = None
    """Limit on what the loader may keep on disk. Empty: none."""
    cache_peak_mib: float | None = column(over_blocks=median)
    """The most that it kept, sampled ten times a second; of downloaded data, before and after the trial."""
    cache_end_mib: float | None = column(over_blocks=median)
    """What it kept at the end of the trial."""
    jobs: int | None = None
    """Independent processes that each loaded full epochs of the same data. Empty in earlier rows: 1."""
    fairness: float | None = column(over_blocks=median)
    """Jain's index over the speeds of ranks or jobs in the window, see `records.timeline.fairness`. Empty with one
    process."""
    delivers: str = ""
    """Form of delivered images: dtype, whether normalised, and the device if it is not the CPU. Empty in rows before
    schema 5: see the campaign's work."""
    copy_p50_ms: float | None = column(over_blocks=median, over_ranks=fmean)
    """Median copy of a batch to the GPU, in the window, by CUDA events. Empty if the loader delivers on the GPU."""
    copy_overlap_pct: float | None = column(over_blocks=median, over_ranks=fmean)
    """Share of the time of those copies in which a training step was computed."""
    until_asked_s: float | None = None
    """With the data in a bucket: from before the trial's first process starts until the first batch is requested. It
    includes starting processes, downloading, importing and constructing."""
    bound_reason: str = ""
    """Which measured steps do not limit the trial, and why, separated by `; `. Without `bound_ips`, none does."""
    sustained_images_per_s: float | None = None
    """Until schema 5, as the columns from here to `throttle_events`, see `loaderbench.records.earlier`."""
    epoch_end_s: float | None = None
    bank_images: int | None = None
    bank_bias_bound_pct: float | None = None
    half_drift_pct: float | None = None
    peak_memory_mib: float | None = None
    """Of both memory columns, each was the larger of two readings."""
    peak_anon_memory_mib: float | None = None
    throttle_events: int | None = None
    """Slowed for heat or by a CPU quota; 0 also where the quota could not be read."""
    write_s: float | None = None
    """Until schema 5: time to write the format, without the flush to the disk."""
    seal: str = ""
    """SHA-256 over all other cells of the row and the file of its raw times: shows whether either was changed."""


HEADER = tuple(each.name for each in fields(Record))
MEDIANS = tuple(each.name for each in fields(Record) if each.metadata.get("over_blocks"))
"""Columns whose median over blocks goes into a summary."""
OVER_RANKS: dict[str, Statistic] = {
    each.name: each.metadata["over_ranks"] for each in fields(Record) if each.metadata.get("over_ranks")
}
"""How a trial's value of a column follows from those of its ranks or jobs."""


def now() -> str:
    """Return the time as records keep it: UTC, ISO 8601, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")
