"""The results of an analysis: the types between the statistics and the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from loaderbench.campaign.disturbances import BEYOND_LIMIT_PCT
from loaderbench.campaign.tuning import Search
from loaderbench.campaign.variant import Variant
from loaderbench.findings.comparison import RANKING_BLOCKS, Comparison, Ratio
from loaderbench.findings.controls import ControlResult
from loaderbench.findings.crossover import Crossover, DeliveryCurve
from loaderbench.findings.replication import Replication, SetupEffect
from loaderbench.findings.training import UnderLightning
from loaderbench.records.record import Record, Transport

START_PHASES = ("import_s", "construct_s", "first_batch_s")


@dataclass(frozen=True, kw_only=True)
class ContestantSummary:
    """One contestant in one variant, over all its blocks. Only `ok` trials count towards any figure."""

    name: str
    title: str
    adapter: str
    format: str
    memory_format: str
    batch_memory: str
    speeds: tuple[float, ...]
    """Images/s of each ok block, in the order of blocks. Empty: there is no speed."""
    medians: Mapping[str, float]
    """Of the columns in `record.MEDIANS` and `trials.DERIVED`, where measured."""
    bound_by: str
    """The step with the lowest machine limit; several steps if blocks differ."""
    bound_reason: str
    """Why measured steps do not limit it, as rows say; or an empty string."""
    apart: str = ""
    """How its work differs, so that it is not ranked; or an empty string."""
    other_images: str = ""
    """How the size or quality of its images differs from the reference's, so that it is not ranked; or empty."""
    trouble: str
    """Status and reason of the latest trial that was not ok, or an empty string."""
    rank: tuple[int, int] | None = None
    """Best and worst possible rank by the comparisons; None with fewer than `RANKING_BLOCKS` blocks."""
    faster_than: frozenset[str] = frozenset()
    """Names of the ranked contestants than which a test finds it faster."""
    reference: Comparison | None = None
    """Comparison with the reference in the same blocks; None for the reference itself and without a common block."""

    @property
    def median(self) -> float:
        """Median images/s; only for contestants with a speed."""
        return self.medians["images_per_s"]

    @property
    def beyond_limit(self) -> bool:
        """Whether it exceeds the machine limit by more than 2 %: it did less work, or the limit is wrong."""
        return self.medians.get("pct_of_bound", 0) > BEYOND_LIMIT_PCT

    @property
    def unranked_reason(self) -> str:
        """Why it is not ranked, or an empty string."""
        beyond = f"it reaches {shown(self.medians['pct_of_bound'])}% of the machine limit" if self.beyond_limit else ""
        return self.apart or self.other_images or beyond

    @property
    def is_ranked(self) -> bool:
        """Whether it has a speed that is compared with those of others."""
        return bool(self.speeds) and not self.unranked_reason


@dataclass(frozen=True, kw_only=True)
class ColdStart:
    """The first epoch of one contestant with its data on the disk alone, against a warm page cache."""

    warm: ContestantSummary
    cold: ContestantSummary
    states: str
    """The `cache_state` of its cold trials, with counts."""
    ratio: Ratio | None
    """Images/s of the first epoch, cold over warm, within blocks."""
    added_s: float | None
    """How much longer the first epoch takes cold: median of the differences within blocks."""


@dataclass(frozen=True, kw_only=True)
class TunedSummary:
    """One contestant at its best settings, against the settings that all share."""

    shared: ContestantSummary
    tuned: ContestantSummary
    """Ranked among the tuned contestants."""
    gain: Comparison | None
    """Tuned against shared settings in the same blocks; None without a common block."""
    search: Search

    @property
    def changes(self) -> Mapping[str, object]:
        """The best settings that differ from its own."""
        own = self.search.asked[0] if self.search.asked else {}
        return {name: value for name, value in (self.search.settings or {}).items() if value != own.get(name, value)}


@dataclass(frozen=True, kw_only=True)
class ScalingCurve:
    """One contestant by its number of workers."""

    main: ContestantSummary
    """At the campaign's number of workers."""
    points: Mapping[int, ContestantSummary]
    """By number of workers, ascending. Those without a speed have their trouble."""
    reading: str
    """Where it stops growing, and at which limit, or how busy it keeps the device that trains; in one sentence."""
    trains: bool = False
    """Whether training took the batches, and not the default consumer."""


@dataclass(frozen=True, kw_only=True)
class ConsumerSummary:
    """One contestant with a consumer other than the default one."""

    consumer: str
    summary: ContestantSummary
    curve: tuple[tuple[float, float], ...]
    """Demands in images/s, tried in all blocks, and how busy the accelerator was, in percent; by demand."""
    outlier_losses: tuple[str, ...] = ()
    """Columns in which its loss differs from the others', see `findings.training.outlier_losses`."""
    loss_blocks: tuple[int, ...] = ()
    """Number of blocks over which each of `training.LOSSES` was compared; 0: not compared."""


@dataclass(frozen=True, kw_only=True)
class TransportSummary:
    """One contestant with its data in a bucket."""

    transport: Transport
    summary: ContestantSummary
    curves: tuple[DeliveryCurve, ...]
    """Of each ok block whose raw times are there."""
    bound_held: bool | None
    """Whether it stayed within its limit on disk in every block; None without a limit, and if nothing was read."""

    @property
    def title(self) -> str:
        """The contestant and its transport."""
        return Variant(transport=self.transport).titled(self.summary.title)

    @property
    def first_batch_s(self) -> float | None:
        """Time of the first batch since the trial began; median over blocks, like the next three."""
        return _median([float(curve.seconds[0]) for curve in self.curves])

    @property
    def epoch1_end_s(self) -> float | None:
        """End of the first epoch since the trial began."""
        return _median([curve.epoch1_end_s for curve in self.curves])

    @property
    def end_s(self) -> float | None:
        """End of all epochs since the trial began."""
        return _median([float(curve.seconds[-1]) for curve in self.curves])

    @property
    def later_images_per_s(self) -> float | None:
        """Images/s over all epochs after the first."""
        return _median([curve.later_images_per_s for curve in self.curves])


@dataclass(frozen=True, kw_only=True)
class GpuUse:
    """GPU utilisation over the window of one trial."""

    title: str
    adapter: str
    consumer: str
    window_s: float
    samples: tuple[tuple[float, float], ...]
    """Seconds since the first sample, and utilisation since the previous one in percent."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """All rows of one contestant and variant that are not ok for the same reason."""

    kind: str
    title: str
    status: str
    reason: str
    rows: int
    blocks: tuple[int, ...]
    """The blocks of these rows, each once. Empty for conversions."""


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """Everything that the rows of a campaign say."""

    reference: str
    summaries: tuple[ContestantSummary, ...]
    """The main variant: ranked contestants first, then unranked ones, then those without a speed; fastest first."""
    certified: bool
    """Whether the contestants' work was checked."""
    cold_starts: tuple[ColdStart, ...]
    """Contestants that also ran cold, in the same order."""
    tuned: tuple[TunedSummary, ...]
    """Tuned contestants: fastest first, those without a speed last."""
    scaling: tuple[ScalingCurve, ...]
    """Contestants that ran with several numbers of workers, in the order of `summaries`."""
    by_consumer: tuple[ConsumerSummary, ...]
    """By consumer, then the fastest contestant first."""
    lightning: tuple[UnderLightning, ...]
    """What Lightning adds to training, for each contestant that trains with it and without it."""
    limits: Mapping[str, float]
    """Machine limits: median images/s of each step, fastest first."""
    limits_missing: Mapping[str, str]
    """Why a step has no machine limit."""
    least_difference: float
    """Smallest detectable difference, as a share; see `comparison.least_difference`."""
    writes: tuple[Record, ...]
    """The latest row of each format, in the order of the file."""
    by_transport: tuple[TransportSummary, ...]
    """Contestants with their data in a bucket: by transport, in the campaign's order."""
    crossovers: tuple[Crossover, ...]
    """For any two of them, when the lead in delivered images changes; by title."""
    failures: tuple[Failure, ...]
    blocks: int
    """Planned blocks."""
    planned: int
    """Planned trials in blocks, in all variants."""
    recorded: int
    """Planned trials with a row of any status."""
    not_begun: tuple[str, ...]
    """Titles of the contestants without any row, for example because `--only` or `--skip` left them out."""
    gpu_reason: str
    """Why ok trials lack GPU figures, or an empty string."""
    controls: tuple[ControlResult, ...]
    flagged: tuple[tuple[Record, tuple[str, ...]], ...]
    """The flagged ok trials of all attempts, with their flags."""
    counted: frozenset[str]
    """Names of the ok rows that count, see `trials.counted_rows`."""
    quiet: int
    """Number of ok trials without flags."""
    replications: tuple[Replication, ...]
    """Published figures beside the measured ones, if the campaign replicates a publication."""
    setup_effects: tuple[SetupEffect, ...]
    """What each change of the set-up is worth."""
    gpu_uses: tuple[GpuUse, ...] = ()
    """GPU utilisation over time with each contestant, from raw times; in training if any was on a GPU."""

    @property
    def controls_failed(self) -> tuple[ControlResult, ...]:
        """The controls that failed."""
        return tuple(control for control in self.controls if control.passed is False)

    @property
    def measured(self) -> tuple[ContestantSummary, ...]:
        """The contestants with a speed: ranked ones first, in each group the fastest first."""
        return tuple(s for s in self.summaries if s.speeds)

    @property
    def ranked(self) -> tuple[ContestantSummary, ...]:
        """Those of them that do the same work, within the machine limit."""
        return tuple(s for s in self.summaries if s.is_ranked)

    @property
    def unranked(self) -> frozenset[str]:
        """Names of the contestants that do different work or exceed the machine limit."""
        return frozenset(s.name for s in self.summaries if s.unranked_reason)

    @property
    def beyond_limit(self) -> tuple[ContestantSummary, ...]:
        """The contestants that exceed a machine limit, at shared settings or tuned."""
        return tuple(s for s in (*self.summaries, *(b.tuned for b in self.tuned)) if s.beyond_limit)

    @property
    def descriptive(self) -> bool:
        """Whether no contestant has enough blocks to be tested."""
        return bool(self.ranked) and few_blocks(self.ranked)


def few_blocks(ranked: Sequence[ContestantSummary]) -> bool:
    """Return whether none of these contestants has enough blocks for a test."""
    return all(len(s.speeds) < RANKING_BLOCKS for s in ranked)


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def shown(value: float) -> str:
    """Return a figure as reports print it: counts as integers, measures with three digits or more."""
    whole = isinstance(value, int) or abs(value) >= 99.95  # noqa: PLR2004 - where 3 digits are whole
    return f"{value:,.0f}" if whole else f"{value:#.3g}"
