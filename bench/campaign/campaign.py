"""The model of a campaign file, the checks that its tables agree, and how it is loaded."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field, PrivateAttr, ValidationError, model_validator

from loaderbench.api import Loader, Work
from loaderbench.campaign import options, registry
from loaderbench.campaign.names import distinct, known
from loaderbench.campaign.scaling import Scaling
from loaderbench.campaign.schema import (
    NO_UINT8,
    Best,
    ChangeTable,
    Consumers,
    Contestant,
    Data,
    Feeding,
    Format,
    Limited,
    Name,
    OwnWork,
    PublishedTable,
    Stream,
    Table,
    Timing,
    Tuning,
    WorkSettings,
)
from loaderbench.machine.files import expanded
from loaderbench.records.record import STREAM_TABLES, Consumer, Transport

CAMPAIGNS = Path(__file__).parent / "shipped"


class CampaignError(Exception):
    """A campaign file that cannot be run. The message says what is wrong, where, and what would be right."""


class Campaign(Table):
    """A whole campaign file."""

    name: str = Name
    question: str
    """The question that the campaign answers, in one sentence."""
    reference: str
    """The contestant with which the others are compared."""
    data: Data = Data()
    work: WorkSettings = WorkSettings()
    timing: Timing
    formats: tuple[Format, ...] = Field(min_length=1)
    contestants: tuple[Contestant, ...] = Field(min_length=1)
    cold: tuple[str, ...] = ()
    """Contestants that also run with their data outside the page cache, once in every block."""
    consumers: Consumers = Consumers()
    stream: Stream | None = None
    scaling: Scaling | None = None
    limited: Limited | None = None
    published: PublishedTable | None = None
    changes: tuple[ChangeTable, ...] = ()
    """Steps from a published set-up to an equal one, one thing at a time; at most one from each contestant."""
    best: dict[str, Best] = Field(default_factory=dict)
    """Contestants that also run at their best settings, once in every block, and what the search may try."""
    tuning: Tuning = Tuning()
    _selected: frozenset[str] | None = PrivateAttr(None)
    """The contestants that this command deals with; None: all. It is no part of the file, nor of `env.json`."""

    @model_validator(mode="after")
    def _names_agree(self) -> Campaign:
        distinct("format", (f.name for f in self.formats))
        distinct("contestant", (c.name for c in self.contestants))
        distinct("cold contestant", self.cold)
        for contestant in self.contestants:
            known(f"contestant {contestant.name}: unknown format", [contestant.format], [f.name for f in self.formats])
        known("unknown reference", [self.reference], [c.name for c in self.contestants])
        competing = [c.name for c in self.competing]
        trainable = [c.name for c in self.contestants if c.control in {None, "known"}]
        for table, names in self._tables_of_names():
            known(f"{table}: unknown contestant", names, trainable if table == "consumers.train" else competing)
        return self

    def _tables_of_names(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Yield the keys that name contestants, with the names. Only `consumers.train` may name controls."""
        yield "cold", self.cold
        yield "best", self.best
        for consumer, feeding in self.feedings.items():
            yield f"consumers.{consumer}", feeding.contestants
        for transport, names in self.transports.items():
            yield f"stream.{STREAM_TABLES[transport]}", names
        yield "scaling", self.scaling.contestants if self.scaling else ()
        yield "published", self.published.contestants if self.published else ()
        yield "changes", [name for change in self.changes for name in (change.from_, change.to)]

    @model_validator(mode="after")
    def _controls_agree(self) -> Campaign:
        reference = next((c for c in self.competing if c.name == self.reference), None)
        if reference is None:
            raise ValueError(f"reference {self.reference} is a control")
        if reference.apart or reference.work != OwnWork():
            raise ValueError(f"reference {self.reference} has work of its own, so no contestant could be ranked")
        if self.cold and self.work.processes > 1:
            raise ValueError("cold trials need a single process: set cold = [], or ranks = 1 and jobs = 1")
        for control in ("twin", "ceiling"):
            if len(several := [c.name for c in self.contestants if c.control == control]) > 1:
                raise ValueError(f"only one control can be the {control}: {', '.join(several)}")
        for contestant in self.contestants:
            speed = contestant.options.get("images_per_s")
            if contestant.control == "known" and not (isinstance(speed, int | float) and speed > 0):
                raise ValueError(f"control {contestant.name}: set the option images_per_s, its known speed, above 0")
        return self

    @model_validator(mode="after")
    def _published_agrees(self) -> Campaign:
        if self.published:
            figures = self.published.contestants.get(self.reference)
            if not (figures and figures.images_per_s):
                raise ValueError(f"published: images_per_s of the reference, {self.reference}, are missing")
        after: dict[str, str] = {}
        for change in self.changes:
            if change.from_ in after:
                raise ValueError(f"changes: more than one starts from {change.from_}")
            after[change.from_] = name = change.to
            while name in after and name != change.from_:
                name = after[name]
            if name == change.from_:
                raise ValueError(f"changes: those from {change.from_} lead back to it")
        return self

    @model_validator(mode="after")
    def _adapters_agree(self) -> Campaign:
        for f in self.formats:
            known(f"format {f.name}: unknown writer", [f.writer], sorted(registry.adapters("writer")))
            if not registry.adapters("writer")[f.writer].fault:  # else its row says what it is
                known(f"format {f.name}: writer {f.writer} has no mode", [f.mode], registry.writer(f.writer).modes)
        for c in self.contestants:
            known(f"contestant {c.name}: unknown loader", [c.loader], sorted(registry.adapters("loader")))
            work = self.work_on(1, 1, c)
            if work.normalised and work.dtype == "uint8":
                raise ValueError(f"contestant {c.name}: {NO_UINT8}")
            if not registry.adapters("loader")[c.loader].fault:
                self._check_loader(c, registry.loader(c.loader))
        return self

    def _check_loader(self, contestant: Contestant, loader: Loader) -> None:
        """Raise ValueError if the contestant's loader cannot read its format or take its options."""
        who, writer = f"contestant {contestant.name}: loader {contestant.loader}", self.format_of(contestant).writer
        if loader.reads and writer not in loader.reads:
            raise ValueError(
                f"{who} reads what {' or '.join(loader.reads)} writes, but {contestant.format} is written by {writer}"
            )
        best = self.best.get(contestant.name)
        tried = {name: values for name, values in best.settings.items() if name != "workers"} if best else {}
        for fault in options.faults(loader, contestant.options, tried):
            raise ValueError(f"{who} {fault}")

    @model_validator(mode="after")
    def _streaming_agrees(self) -> Campaign:
        if self.stream is None:
            return self
        if self.stream.bounded and not self.stream.cache_mib:
            raise ValueError("stream.cache_mib is missing: the limit for the contestants in stream.bounded")
        if self.work.processes > 1:
            raise ValueError("stream needs a single process: leave out work.ranks and work.jobs")
        for c in self.competing:
            used = {transport for transport, names in self.transports.items() if c.name in names}
            adapter = registry.adapters("loader")[c.loader]
            if {"stream", "bounded"} & used and not adapter.fault and not registry.loader(c.loader).streams:
                raise ValueError(
                    f"contestant {c.name}: loader {c.loader} cannot read from a bucket; list it in stream.downloading"
                )
            if used and self.format_of(c).mode == "original":
                raise ValueError(f"contestant {c.name}: {c.format} links to local files, which no bucket holds")
        return self

    @model_validator(mode="after")
    def _limited_stands_alone(self) -> Campaign:
        others = (self.cold, self.feedings, self.stream, self.scaling, self.best)
        if self.limited and (any(others) or self.work.processes > 1):
            raise ValueError("limited allows no cold, consumers, stream, scaling or best, and no ranks or jobs above 1")
        return self

    @model_validator(mode="after")
    def _own_settings_come_first(self) -> Campaign:
        workers = self.work.count_workers()
        best = dict(self.best)
        for c in self.contestants:
            if c.name in best and not registry.adapters("loader")[c.loader].fault:
                defaults = {name: o.default for name, o in options.declared(registry.loader(c.loader)).items()}
                best[c.name] = best[c.name].beginning_with({**defaults, **c.options, "workers": workers})
        scaling = self.scaling and self.scaling.checked(self.consumers).without(workers)
        return self.model_copy(update={"best": best, "scaling": scaling})

    def limited_to(self, names: Iterable[str] | None) -> Campaign:
        """Return the campaign for a command that selects these contestants; None selects all."""
        limited = self.model_copy()
        limited._selected = None if names is None else frozenset(names)  # noqa: SLF001 - of this class
        return limited

    @property
    def is_whole(self) -> bool:
        """Whether the command deals with all contestants."""
        return self._selected is None

    @property
    def selected(self) -> tuple[Contestant, ...]:
        """The contestants that the command deals with."""
        return tuple(c for c in self.contestants if self._selected is None or c.name in self._selected)

    @property
    def selected_formats(self) -> tuple[Format, ...]:
        """The formats of the contestants that the command deals with; all if it deals with all."""
        read = {contestant.format for contestant in self.selected}
        return tuple(f for f in self.formats if self.is_whole or f.name in read)

    @property
    def competing(self) -> tuple[Contestant, ...]:
        """Those that are no controls."""
        return tuple(contestant for contestant in self.selected if not contestant.control)

    @property
    def feedings(self) -> dict[Consumer, Feeding]:
        """The tables of the consumers other than the default one, by name."""
        names: tuple[Consumer, ...] = ("paced", "train", "lightning")
        return {name: feeding for name in names if (feeding := getattr(self.consumers, name))}

    @property
    def transports(self) -> dict[Transport, tuple[str, ...]]:
        """The contestants whose data comes from a bucket, by transport."""
        if self.stream is None:
            return {}
        return {transport: getattr(self.stream, table) for transport, table in STREAM_TABLES.items()}

    def work_on(self, samples: int, block: int, contestant: Contestant | None = None) -> Work:
        """Return the work of one block (0: of a search), which differs between blocks in its seed.

        `samples`: of the data set. `contestant`: one that may have work of its own.
        """
        work = Work(
            batch_size=self.work.batch_size,
            workers=self.work.count_workers(),
            image_size=self.work.image_size,
            dtype=self.work.dtype,
            # A second visit in an epoch would find in memory what the first one read.
            passes=1 if self.limited else max(1, round(self.work.epoch_images / samples)),
            seed=self.work.seed + block,
            shuffle=self.work.shuffle,
            ranks=self.work.ranks,
            normalised=self.work.normalised,
            device=self.work.device,
        )
        return replace(work, **contestant.work.model_dump(exclude_none=True)) if contestant else work

    def format_of(self, contestant: Contestant) -> Format:
        """Return the format that a contestant reads."""
        return next(f for f in self.formats if f.name == contestant.format)


def load(name_or_path: str, overrides: dict[str, dict[str, Any]] | None = None) -> Campaign:
    """Return a shipped campaign by name, or one from a TOML file. `overrides`: keys by table that replace the file's.

    Raises CampaignError.
    """
    content = _extended(_merged(_content(name_or_path), overrides or {}))
    try:
        return Campaign.model_validate(content)
    except ValidationError as error:
        faults = [f"  {'.'.join(map(str, e['loc'])) or 'campaign'}: {e['msg']}" for e in error.errors()]
        raise CampaignError(f"{name_or_path} is not a valid campaign:\n" + "\n".join(faults)) from None


def _content(name_or_path: str) -> dict[str, Any]:
    path = Path(expanded(name_or_path)) if name_or_path.endswith(".toml") else CAMPAIGNS / f"{name_or_path}.toml"
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        shipped = ", ".join(sorted(p.stem for p in CAMPAIGNS.glob("*.toml")))
        raise CampaignError(f"no campaign {name_or_path}: shipped are {shipped}; or give a .toml file's path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CampaignError(f"{path} is not TOML: {error}") from None


def _extended(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content merged, key by key, into that of the shipped campaign that it extends, if it does."""
    if "extends" not in content:
        return content
    base = str(content["extends"])
    if base.endswith(".toml") or "/" in base:  # a file could extend itself
        raise CampaignError(f"extends must name a shipped campaign, for example quick, and not a file: {base}")
    return _merged(_extended(_content(base)), {key: value for key, value in content.items() if key != "extends"})


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = {k: _merged(below[k], v) for k, v in above.items() if isinstance(v, dict) and isinstance(below.get(k), dict)}
    return {**below, **above, **both}
