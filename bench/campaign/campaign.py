"""Is this campaign file valid, and what follows from it? TOML to a frozen model whose tables agree."""

from __future__ import annotations

import inspect
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError, model_validator

from loaderbench.api import Work
from loaderbench.campaign import claims as publication
from loaderbench.campaign import registry
from loaderbench.campaign.claims import ChangeTable, PublishedTable
from loaderbench.campaign.schema import (
    NO_UINT8,
    Consumers,
    Contestant,
    Data,
    Feeding,
    Format,
    Name,
    OwnWork,
    Stream,
    Table,
    Timing,
    WorkSettings,
)
from loaderbench.campaign.search_space import Best, Tuning
from loaderbench.records.record import STREAM_TABLES, Cache, Consumer, Transport

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loaderbench.campaign.plan import Trial

CAMPAIGNS = Path(__file__).parent / "shipped"
_AROUND_WINDOW_S = 8.5  # starting, importing, compiling, pausing, ending a trial: seen on 2 cores, on average
_COLD_S = 15  # of one cold trial, whose length is that of an epoch: seen on 2 cores, on average
_AROUND_FEEDING_S = 25  # starting, training on one batch or the sweep of demands: seen on 2 cores, on average
_AROUND_STAGES_S = 5  # starting the processes that measure the limits
_AROUND_FETCHING_S = 10  # starting, compiling, downloading: seen on 2 cores, on average
_FETCHED_IMAGES_PER_S = 3000  # of what was fetched: seen on 2 cores, on average
_STAGES = 8


class CampaignError(Exception):
    """A campaign file that cannot be run. The message says what is wrong, where, and what would be right."""


class Campaign(Table):
    """A whole campaign file."""

    name: str = Name
    question: str
    """What the campaign answers, in one sentence."""
    reference: str
    """The contestant that the others are compared with."""
    data: Data = Data()
    work: WorkSettings = WorkSettings()
    timing: Timing
    formats: tuple[Format, ...] = Field(min_length=1)
    contestants: tuple[Contestant, ...] = Field(min_length=1)
    cold: tuple[str, ...] = ()
    """Contestants that also run with their data out of the page cache, once in every block."""
    consumers: Consumers = Consumers()
    stream: Stream | None = None
    published: PublishedTable | None = None
    changes: tuple[ChangeTable, ...] = ()
    """From a set-up that was published to an equal one, one thing at a time: at most one from each contestant."""
    best: dict[str, Best] = Field(default_factory=dict)
    """Contestants that also run at their best settings, once in every block, and where to search for them."""
    tuning: Tuning = Tuning()

    @model_validator(mode="after")
    def _names_agree(self) -> Campaign:
        for what, names in (
            ("format", [f.name for f in self.formats]),
            ("contestant", [c.name for c in self.contestants]),
            ("cold contestant", list(self.cold)),
        ):
            if repeated := sorted({name for name in names if names.count(name) > 1}):
                message = f"{what} named more than once: {', '.join(repeated)}"
                raise ValueError(message)
        formats = {f.name for f in self.formats}
        for contestant in self.contestants:
            if contestant.format not in formats:
                message = (
                    f"contestant {contestant.name} reads format {contestant.format}; "
                    f"there are: {', '.join(sorted(formats))}"
                )
                raise ValueError(message)
        if self.reference not in (names := [c.name for c in self.contestants]):
            message = f"reference {self.reference} is no contestant; there are: {', '.join(names)}"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _controls_agree(self) -> Campaign:
        competing = [c.name for c in self.competing]
        if self.reference not in competing:
            message = f"reference {self.reference} is a control"
            raise ValueError(message)
        [reference] = [c for c in self.competing if c.name == self.reference]
        if reference.apart or reference.work != OwnWork():
            message = f"reference {self.reference} has work of its own, so that none could be ranked with it"
            raise ValueError(message)
        if self.cold and self.work.processes > 1:
            message = "a cold trial is the first epoch of one process: with several ranks or jobs say cold = []"
            raise ValueError(message)
        feeding = ((f"consumers.{name}", f.contestants) for name, f in self.feedings.items())
        remote = ((f"stream ({transport})", names) for transport, names in self.transports.items())
        for table, names in (("cold", self.cold), ("best", self.best), *feeding, *remote):
            if unknown := sorted(set(names) - set(competing)):
                message = f"{table} names no contestant: {', '.join(unknown)}; there are: {', '.join(competing)}"
                raise ValueError(message)
        for control in ("twin", "ceiling"):
            if len(several := [c.name for c in self.contestants if c.control == control]) > 1:
                message = f"more than one control is the {control}: {', '.join(several)}"
                raise ValueError(message)
        for contestant in self.contestants:
            if contestant.control == "known" and not contestant.options.get("images_per_s"):
                message = (
                    f"the control {contestant.name} must have the option images_per_s, which is what is known of it"
                )
                raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _published_agrees(self) -> Campaign:
        publication.agree(self.published, self.changes, [c.name for c in self.competing], self.reference)
        return self

    @model_validator(mode="after")
    def _adapters_agree(self) -> Campaign:
        writers, loaders = registry.adapters("writer"), registry.adapters("loader")
        for f in self.formats:
            if f.writer not in writers:
                message = f"format {f.name} has unknown writer {f.writer}; there are: {', '.join(sorted(writers))}"
                raise ValueError(message)
            if f.mode not in (modes := registry.writer(f.writer).modes):
                message = f"format {f.name}: writer {f.writer} has no mode {f.mode}; it has: {', '.join(modes)}"
                raise ValueError(message)
        for c in self.contestants:
            if c.loader not in loaders:
                message = f"contestant {c.name} has unknown loader {c.loader}; there are: {', '.join(sorted(loaders))}"
                raise ValueError(message)
            loader = registry.loader(c.loader)
            asked = self.work_on(1, 1, c)
            if asked.normalised and asked.dtype == "uint8":
                message = f"contestant {c.name}: {NO_UINT8}"
                raise ValueError(message)
            if loader.reads and (written_by := self.format_of(c).writer) not in loader.reads:
                message = (
                    f"contestant {c.name}: loader {c.loader} reads what {' or '.join(loader.reads)} writes, "
                    f"and {c.format} is written by {written_by}"
                )
                raise ValueError(message)
            options = _options(c.loader)
            tried = self.best[c.name].settings.keys() - {"workers"} if c.name in self.best else set()
            if unknown := sorted((c.options.keys() | tried) - options.keys()):
                message = (
                    f"contestant {c.name}: loader {c.loader} has no option {', '.join(unknown)}; "
                    f"it has: {', '.join(sorted(options))}"
                )
                raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _streaming_agrees(self) -> Campaign:
        if self.stream is None:
            return self
        if self.stream.bounded and not self.stream.cache_mib:
            message = "stream.bounded names contestants, and stream.cache_mib, the bound, is missing"
            raise ValueError(message)
        if self.work.processes > 1:
            message = "stream is for one process: leave out work.ranks and work.jobs"
            raise ValueError(message)
        for c in self.competing:
            used = [transport for transport, names in self.transports.items() if c.name in names]
            if {"stream", "bounded"} & set(used) and not registry.loader(c.loader).streams:
                message = f"contestant {c.name}: loader {c.loader} reads no bucket itself: name it in downloading"
                raise ValueError(message)
            if used and self.format_of(c).mode == "original":
                message = f"contestant {c.name}: {c.format} is links to the images themselves, which no bucket holds"
                raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _searches_begin_with_own_settings(self) -> Campaign:
        workers = self.work.count_workers()
        own = {c.name: {**_options(c.loader), **c.options, "workers": workers} for c in self.contestants}
        return self.model_copy(update={"best": {name: b.beginning_with(own[name]) for name, b in self.best.items()}})

    @property
    def competing(self) -> tuple[Contestant, ...]:
        """The contestants that are no controls."""
        return tuple(contestant for contestant in self.contestants if not contestant.control)

    @property
    def feedings(self) -> dict[Consumer, Feeding]:
        """The consumers that are not hungry, by name."""
        names: tuple[Consumer, ...] = ("paced", "train", "lightning")
        return {name: feeding for name in names if (feeding := getattr(self.consumers, name))}

    @property
    def transports(self) -> dict[Transport, tuple[str, ...]]:
        """Who gets the data from a bucket, by how."""
        if self.stream is None:
            return {}
        return {transport: getattr(self.stream, table) for transport, table in STREAM_TABLES.items()}

    def work_on(self, samples: int, block: int, contestant: Contestant | None = None) -> Work:
        """Return what every contestant delivers in one block (0: in a search): the same, in an order of its own.

        `contestant`: one that may have work of its own.
        """
        work = Work(
            batch_size=self.work.batch_size,
            workers=self.work.count_workers(),
            image_size=self.work.image_size,
            dtype=self.work.dtype,
            passes=max(1, round(self.work.epoch_images / samples)),
            seed=self.work.seed + block,
            shuffle=self.work.shuffle,
            ranks=self.work.ranks,
            normalised=self.work.normalised,
            device=self.work.device,
        )
        return replace(work, **contestant.work.model_dump(exclude_none=True)) if contestant else work

    def expected_s(self, trials: Sequence[Trial], searching: int = 0) -> float:
        """Return about how long trials and the limits of their blocks take, to be told before they start;
        without what a limited network adds, see `loaderbench.run.bucket_under_test.network_s`.

        `searching`: trials of searches.
        """
        blocks = len({trial.block for trial in trials})
        cold = sum(trial.cache == "cold" for trial in trials)
        feeding = [self.feedings[trial.consumer] for trial in trials if trial.consumer != "hungry"]
        remote = sum(bool(trial.transport) for trial in trials)
        warm = len(trials) - cold - len(feeding) - remote
        stages_s = blocks * (_AROUND_STAGES_S + _STAGES * self.timing.stage_s) if self.timing.stage_s else 0
        warm_s = warm * (self.timing.warmup_s + self.timing.window_s + _AROUND_WINDOW_S)
        search_s = searching * (self.tuning.warmup_s + self.tuning.window_s + _AROUND_WINDOW_S)
        feeding_s = sum(f.warmup_s + f.window_s + _AROUND_FEEDING_S for f in feeding)
        images = self.stream.epochs * (self.data.samples or self.work.epoch_images) if self.stream else 0
        fetched_s = remote * (_AROUND_FETCHING_S + images / _FETCHED_IMAGES_PER_S)
        return search_s + warm_s + feeding_s + cold * _COLD_S + stages_s + fetched_s

    def caches_of(self, contestant: Contestant) -> tuple[Cache, ...]:
        """Return the states of the page cache that a contestant runs in, once each in every block."""
        return ("warm", "cold") if contestant.name in self.cold else ("warm",)

    def format_of(self, contestant: Contestant) -> Format:
        """Return the format that a contestant reads."""
        return next(f for f in self.formats if f.name == contestant.format)


def _options(loader: str) -> dict[str, Any]:
    """Return a loader's options with their defaults."""
    parameters = inspect.signature(registry.loader(loader).stream).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def load(name_or_path: str, overrides: dict[str, dict[str, Any]] | None = None) -> Campaign:
    """Return a shipped campaign by name, or one from a TOML file. `overrides`: table to keys that replace the file's.

    Raises CampaignError.
    """
    content = _extended(_merged(_content(name_or_path), overrides or {}))
    try:
        return Campaign.model_validate(content)
    except ValidationError as error:
        faults = [f"  {'.'.join(map(str, e['loc'])) or 'campaign'}: {e['msg']}" for e in error.errors()]
        message = f"{name_or_path} is not a valid campaign:\n" + "\n".join(faults)
        raise CampaignError(message) from None


def _content(name_or_path: str) -> dict[str, Any]:
    path = Path(name_or_path) if name_or_path.endswith(".toml") else CAMPAIGNS / f"{name_or_path}.toml"
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        shipped = ", ".join(sorted(p.stem for p in CAMPAIGNS.glob("*.toml")))
        message = f"no campaign {name_or_path}: shipped are {shipped}; or give the path of a .toml file"
        raise CampaignError(message) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        message = f"{path} is not TOML: {error}"
        raise CampaignError(message) from None


def _extended(content: dict[str, Any]) -> dict[str, Any]:
    """Put the content over that of the shipped campaign it names in `extends`, key by key, tables within tables too."""
    if "extends" not in content:
        return content
    base = str(content["extends"])
    if base.endswith(".toml"):  # a file could come round to itself
        message = f"extends names a shipped campaign, for example quick, and not a file: {base}"
        raise CampaignError(message)
    return _merged(_extended(_content(base)), {key: value for key, value in content.items() if key != "extends"})


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = {k: _merged(below[k], v) for k, v in above.items() if isinstance(v, dict) and isinstance(below.get(k), dict)}
    return {**below, **above, **both}
