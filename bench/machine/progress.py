"""What does a person see while a campaign runs? A live table on a terminal, plain lines in a log."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from loaderbench.campaign import plan
from loaderbench.records.record import TRANSPORTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from loaderbench.campaign.campaign import Campaign
    from loaderbench.campaign.plan import Trial
    from loaderbench.records.record import Record

_LINE_S = 30.0
"""Time between the lines in a log that tell how far a transfer is."""


LOGGED_EVERY = 50_000
"""Items of a stage after which a log gets a line."""


class Display:
    """Shows stages of the preparation and the trials as they end."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._live = self._console.is_terminal
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
        )

    def say(self, text: str) -> None:
        """Print one line."""
        self._console.print(text, markup=False)

    @contextmanager
    def stage(self, what: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """Show a stage of the preparation; call what is given with the number of items done."""
        if not self._live:
            self.say(f"{what}{f' ({total:,})' if total else ''} ...")

            def line(done: int) -> None:
                if not done % LOGGED_EVERY:
                    self.say(f"{what}: {done:,}")

            yield line
            return
        with self._bars:
            bar = self._bars.add_task(what, total=total)
            try:
                yield lambda done: self._bars.update(bar, completed=done)
            finally:
                self._bars.remove_task(bar)
        self.say(f"{what}: done")

    @contextmanager
    def transfer(self, what: str) -> Iterator[Callable[[int, int | None], None]]:
        """Show bytes on their way, their rate and the time left; call what is given with the bytes that have come and
        those that come in all, None while that is not known.
        """
        columns = DownloadColumn(), TransferSpeedColumn(), TextColumn("left"), TimeRemainingColumn()
        description = TextColumn("{task.description}", markup=False)
        bars = Progress(SpinnerColumn(), description, BarColumn(), *columns, console=self._console)
        bar = bars.add_task(what, total=None)
        if self._live:
            with bars:
                yield lambda done, total: bars.update(bar, completed=done, total=total)
            self.say(f"{what}: done")
            return
        self.say(f"{what} ...")
        lines = 1

        def line(done: int, total: int | None) -> None:
            nonlocal lines
            bars.update(bar, completed=done, total=total)
            [task] = bars.tasks
            if (task.elapsed or 0) > lines * _LINE_S:
                lines += 1
                self.say(" ".join(str(column.render(task)) for column in columns))

        yield line

    @contextmanager
    def campaign(self, campaign: Campaign, records: list[Record]) -> Iterator[Callable[[Trial | None], None]]:
        """Show the trials. `records` is read anew at each call of what is given, whose argument is the trial that now
        starts, or None after the last.
        """
        if not self._live:
            shown = len(records)

            def lines(_: Trial | None) -> None:
                nonlocal shown
                for number, record in enumerate(records[shown:], shown + 1):
                    self.say(_line(record, number, _planned(campaign, records)))
                shown = len(records)

            yield lines
            return
        bar = self._bars.add_task("starting", total=None)
        with Live(console=self._console, auto_refresh=False) as live:  # while a trial runs, this process sleeps

            def table(trial: Trial | None) -> None:
                title = trial.contestant.title if trial else "done"
                self._bars.update(bar, completed=len(records), total=_planned(campaign, records), description=title)
                live.update(Group(_table(campaign, records), self._bars), refresh=True)

            try:
                yield table
            finally:
                self._bars.remove_task(bar)
                live.update(_table(campaign, records), refresh=True)


def _planned(campaign: Campaign, records: list[Record]) -> int:
    """Return how many trials there will be, as far as known: those of every attempt begun, and of the blocks left; and
    before them those of the searches for best settings.
    """
    attempts = {(record.block, record.attempt) for record in records if record.kind == "load"}
    blocks = campaign.timing.blocks - len({block for block, _ in attempts})
    searched = sum(record.kind == "tune" for record in records)
    searching, _ = plan.searching(campaign, {record.trial: record for record in records})
    return searched + searching + (len(attempts) + blocks) * len(plan.trials(campaign, 1))


def _speed(record: Record) -> str:
    return f"{record.images_per_s:,.0f}" if record.images_per_s is not None else record.status


def _line(record: Record, number: int, planned: int) -> str:
    what = f"{_speed(record)} images/s" if record.status == "ok" else f"{record.status}: {record.reason}"
    if record.kind == "tune":
        where, how = "search", f", {record.options}, {record.workers} workers" if record.workers else ""
    else:
        where = f"block {record.block}" + (f" (attempt {record.attempt})" if record.attempt != 1 else "")
        how = ", cold" if record.cache == "cold" else ", at its best" if record.track == "best" else ""
        how += "" if record.consumer in {"", "hungry"} else f", {record.consumer}"
        how += f", {TRANSPORTS[record.transport]}" if record.transport else ""
    return f"[{number}/{planned}] {where}, {record.title}{how}: {what}"


def _table(campaign: Campaign, records: list[Record]) -> Table:
    """Return the newest attempt's speeds by contestant and block."""
    table = Table("contestant", *(f"block {block + 1}" for block in range(campaign.timing.blocks)), title="images/s")
    cells = {
        (r.contestant, r.cache or "warm", r.track, r.consumer, r.transport, r.block): _speed(r)
        for r in records
        if r.kind == "load"
    }
    for trial in sorted(plan.trials(campaign, 1), key=lambda t: campaign.contestants.index(t.contestant)):
        which = (trial.contestant.name, trial.cache, trial.track, trial.consumer, trial.transport)
        speeds = (cells.get((*which, block), "") for block in range(1, campaign.timing.blocks + 1))
        title = trial.contestant.title if trial.track == "same" else campaign.best[trial.contestant.name].title
        other = ["cold"] * (trial.cache == "cold") + ["at its best"] * (trial.track == "best")
        other += [trial.consumer] * (trial.consumer != "hungry")
        other += [TRANSPORTS[trial.transport]] * bool(trial.transport)
        table.add_row(", ".join([title, *other]), *speeds)
    return table
