"""What does an analysis say? The types between the statistics and the report."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from loaderbench.findings.comparison import LEAST_DIFFERENCE, RANKING_BLOCKS
from loaderbench.records.record import TRANSPORTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loaderbench.campaign.tuning import Search
    from loaderbench.findings.comparison import Comparison, Ratio
    from loaderbench.findings.controls import ControlResult
    from loaderbench.findings.crossover import Crossover, DeliveryCurve
    from loaderbench.findings.replication import Replication, SetupEffect
    from loaderbench.findings.training import UnderLightning
    from loaderbench.records.record import Record

START_PHASES = ("import_s", "construct_s", "first_batch_s")
MEDIANS = (
    "images_per_s",
    "bound_ips",
    "pct_of_bound",
    "epoch1_images_per_s",
    "epoch1_s",
    *START_PHASES,
    "epoch_end_s",
    "sustained_images_per_s",
    "bank_bias_bound_pct",
    "wait_p50_ms",
    "wait_p95_ms",
    "wait_p99_ms",
    "wait_max_ms",
    "cpu_load_pct",
    "cores_used",
    "cpu_s_per_1k_images",
    "peak_memory_mib",
    "peak_anon_memory_mib",
    "read_bytes",
    "monitor_cpu_pct",
    "context_switches",
    "window_s",
    "gpu_util_pct",
    "gpu_memory_mib",
    "gpu_power_w",
    "gpu_energy_j",
    "gpu_sm_clock_mhz",
    "gpu_sm_active_pct",
    "gpu_dram_pct",
    "bytes_per_image",
    "slowest_rank_images_per_s",
    "fairness",
    "step_p50_ms",
    "starved_pct",
    "gpu_starved_pct",
    "cached_images_per_s",
    "stall_vs_cached_pct",
    "loss_first",
    "loss_last",
    "fed_images_per_s",
    "download_s",
    "epoch2_s",
    "network_bytes",
    "network_epoch1_bytes",
    "network_epoch2_bytes",
    "cache_peak_mib",
    "cache_end_mib",
    "copy_p50_ms",
    "copy_overlap_pct",
)
"""Columns of a record of which a summary keeps the median over blocks."""


@dataclass(frozen=True, kw_only=True)
class ContestantSummary:
    """One contestant over all its blocks, warm or cold. Only `ok` trials count towards any figure."""

    name: str
    title: str
    adapter: str
    format: str
    memory_format: str
    batch_memory: str
    speeds: tuple[float, ...]
    """Steady images/s of each ok block, in the order of blocks. Empty: there is no speed."""
    medians: Mapping[str, float]
    """Of the columns in `MEDIANS` and of `start_s`, the sum of `START_PHASES`, where measured."""
    bound_by: str
    """The step of the work that bounds it; several if blocks differ."""
    rank: tuple[int, int] | None
    """Best and worst rank that the comparisons leave open; None with fewer than `RANKING_BLOCKS` blocks."""
    faster_than: frozenset[str]
    """Names of the contestants than which a test finds it faster."""
    reference: Comparison | None
    """With the reference in the same blocks; None for the reference itself and where there is no common block."""
    unranked_reason: str = ""
    """Why it is not ranked with the others: what it was seen to do that is not the same work; or nothing."""
    trouble: str
    """Status and reason of the latest trial that was not ok, or nothing."""

    @property
    def median(self) -> float:
        """Median images/s. Only for contestants with a speed."""
        return self.medians["images_per_s"]

    @property
    def beyond_limit(self) -> bool:
        """Whether it is faster than the machine can do the work, by 2 % and more: it did less, or the limit is none."""
        return self.medians.get("pct_of_bound", 0) > 100 * (1 + LEAST_DIFFERENCE)


@dataclass(frozen=True, kw_only=True)
class ColdStart:
    """What one contestant's first epoch loses when the data must come from the disk."""

    warm: ContestantSummary
    cold: ContestantSummary
    states: str
    """The `cache_state` of its cold trials, and how many have it."""
    ratio: Ratio | None
    """First epoch cold over first epoch warm, in images/s, block by block."""


@dataclass(frozen=True, kw_only=True)
class TunedSummary:
    """What its best settings gain one contestant."""

    shared: ContestantSummary
    """At the campaign's settings, which are equal for all."""
    tuned: ContestantSummary
    """At its best settings, ranked among those at theirs."""
    gain: Comparison | None
    """Of its best settings with the equal ones in the same blocks; None where there is no common block."""
    search: Search

    @property
    def changes(self) -> Mapping[str, object]:
        """The settings in which its best differ from its own."""
        own = self.search.asked[0] if self.search.asked else {}
        return {name: value for name, value in (self.search.settings or {}).items() if value != own.get(name, value)}


@dataclass(frozen=True, kw_only=True)
class ConsumerSummary:
    """What one contestant is worth to a consumer other than the hungry one."""

    consumer: str
    summary: ContestantSummary
    """Of the trials with that consumer, not ranked."""
    curve: tuple[tuple[float, float], ...]
    """Demands in images/s that were tried in all blocks, and how busy the accelerator was, in per cent; by demand."""
    outlier_losses: tuple[str, ...] = ()
    """Columns of its losses that are not those of the others, see `loaderbench.findings.training.outlier_losses`."""
    loss_blocks: tuple[int, ...] = ()
    """Over how many blocks its consumer's losses were compared, the first and the later ones; 0: they were not."""


@dataclass(frozen=True, kw_only=True)
class TransportSummary:
    """What one contestant does with its data in a bucket."""

    transport: str
    summary: ContestantSummary
    """Of the trials with that transport, not ranked."""
    curves: tuple[DeliveryCurve, ...]
    """Of each ok block whose raw times are there."""
    bound_held: bool | None
    """Whether it never kept more than it was to, in any block; None without a bound."""

    @property
    def title(self) -> str:
        """The contestant and how its data comes."""
        return f"{self.summary.title}, {TRANSPORTS[self.transport]}"

    @property
    def first_batch_s(self) -> float | None:
        """Since the trial began; median over blocks, as what follows."""
        return _median([float(curve.seconds[0]) for curve in self.curves])

    @property
    def epoch1_end_s(self) -> float | None:
        """Since the trial began."""
        return _median([curve.epoch1_end_s for curve in self.curves])

    @property
    def end_s(self) -> float | None:
        """When all epochs were over, since the trial began."""
        return _median([float(curve.seconds[-1]) for curve in self.curves])

    @property
    def later_images_per_s(self) -> float | None:
        """Over all epochs after the first."""
        return _median([curve.later_images_per_s for curve in self.curves])


@dataclass(frozen=True, kw_only=True)
class GpuUse:
    """How busy the GPU was over the window of one trial."""

    title: str
    adapter: str
    format: str
    consumer: str
    window_s: float
    samples: tuple[tuple[float, float], ...]
    """Seconds since the first sample, and per cent of the time since the one before."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """All rows that are not ok in the same way."""

    kind: str
    title: str
    status: str
    reason: str
    blocks: tuple[int, ...]
    """Empty for conversions."""


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What the rows of a campaign say."""

    reference: str
    summaries: tuple[ContestantSummary, ...]
    """Warm; fastest median first, those of the same work before the others, and those without a speed last."""
    certified: bool
    """Whether it is known what work the contestants do."""
    cold_starts: tuple[ColdStart, ...]
    """In the same order; of those contestants that also ran cold."""
    tuned: tuple[TunedSummary, ...]
    """Those at their best settings: fastest median first, then those without a speed in the campaign's order."""
    by_consumer: tuple[ConsumerSummary, ...]
    """By consumer, in each the contestant of which it got most first."""
    lightning: tuple[UnderLightning, ...]
    """What Lightning adds to the training with each contestant that runs in both."""
    limits: Mapping[str, float]
    """Median images/s that the machine can do of each step of the work, fastest first."""
    limits_missing: Mapping[str, str]
    """Why a step has no limit."""
    least_difference: float
    """Differences up to this share are ties; see `comparison.least_difference`."""
    writes: tuple[Record, ...]
    """The latest row of each format, in the order of the file."""
    by_transport: tuple[TransportSummary, ...]
    """Those whose data was in a bucket: by transport, in the campaign's order."""
    crossovers: tuple[Crossover, ...]
    """Who of any two of them is ahead first, and when the other overtakes; by title."""
    failures: tuple[Failure, ...]
    blocks: int
    """Planned blocks."""
    planned: int
    """Planned trials in blocks: every contestant once per cache state, and once more if it also runs at its best."""
    recorded: int
    """Planned trials that have a row, whatever its status."""
    gpu_reason: str
    """Why trials that are ok lack GPU figures, or nothing."""
    controls: tuple[ControlResult, ...]
    flagged: tuple[tuple[Record, tuple[str, ...]], ...]
    """The ok trials that were disturbed, with the signs of it, of all attempts."""
    counted: frozenset[str]
    """Names of the rows that figures are made of: of each block, those of its quietest attempt."""
    quiet: int
    """How many ok trials were not."""
    replications: tuple[Replication, ...]
    """What a published comparison says, beside what is measured; none unless the campaign repeats one."""
    setup_effects: tuple[SetupEffect, ...]
    """What each change of the set-up was worth."""
    gpu_uses: tuple[GpuUse, ...] = ()
    """How busy the GPU was with each contestant, in training if any trained on one: of raw times, which are in files of
    their own.
    """

    @property
    def controls_failed(self) -> tuple[ControlResult, ...]:
        """The controls that did not come out as they must."""
        return tuple(control for control in self.controls if control.passed is False)

    @property
    def measured(self) -> tuple[ContestantSummary, ...]:
        """The contestants that have a speed: those of the same work first, in each group the fastest first."""
        return tuple(s for s in self.summaries if s.speeds)

    @property
    def ranked(self) -> tuple[ContestantSummary, ...]:
        """Those of them that do the same work."""
        return tuple(s for s in self.measured if not s.unranked_reason)

    @property
    def beyond_limit(self) -> tuple[ContestantSummary, ...]:
        """The contestants that are faster than the machine can do the work, at equal settings or at their best."""
        return tuple(s for s in (*self.summaries, *(b.tuned for b in self.tuned)) if s.beyond_limit)

    @property
    def descriptive(self) -> bool:
        """Whether no contestant has enough blocks for a claim about ranks."""
        return bool(self.ranked) and all(len(s.speeds) < RANKING_BLOCKS for s in self.ranked)


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def shown(value: float) -> str:
    """Return a figure as reports print it: counts whole, measures with three digits or more."""
    whole = isinstance(value, int) or abs(value) >= 99.95  # noqa: PLR2004 - where 3 digits are whole
    return f"{value:,.0f}" if whole else f"{value:#.3g}"
