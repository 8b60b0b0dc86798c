"""What does a person see while a campaign runs? A live table on a terminal, plain lines in a log."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.config import Campaign
    from bench.records import Record


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
            yield lambda _: None
            return
        with self._bars:
            bar = self._bars.add_task(what, total=total)
            try:
                yield lambda done: self._bars.update(bar, completed=done)
            finally:
                self._bars.remove_task(bar)
        self.say(f"{what}: done")

    @contextmanager
    def campaign(
        self, campaign: Campaign, planned: int, records: list[Record]
    ) -> Iterator[Callable[[str | None], None]]:
        """Show the trials. `records` is read anew at each call of what is given, whose argument is the title of the
        trial that now starts, or None after the last.
        """
        if not self._live:
            shown = len(records)

            def lines(_: str | None) -> None:
                nonlocal shown
                for record in records[shown:]:
                    self.say(_line(record, len(records), planned))
                shown = len(records)

            yield lines
            return
        bar = self._bars.add_task("starting", total=planned, completed=len(records))
        with Live(console=self._console, auto_refresh=False) as live:  # while a trial runs, this process sleeps

            def table(title: str | None) -> None:
                self._bars.update(bar, completed=len(records), description=title or "done")
                live.update(Group(_table(campaign, records), self._bars), refresh=True)

            table(None)
            try:
                yield table
            finally:
                self._bars.remove_task(bar)
                live.update(_table(campaign, records), refresh=True)


def _speed(record: Record) -> str:
    return f"{record.images_per_s:,.0f}" if record.images_per_s is not None else record.status


def _line(record: Record, number: int, planned: int) -> str:
    what = f"{_speed(record)} images/s" if record.status == "ok" else f"{record.status}: {record.reason}"
    return f"[{number}/{planned}] block {record.block}, {record.title}: {what}"


def _table(campaign: Campaign, records: list[Record]) -> Table:
    table = Table("contestant", *(f"block {block + 1}" for block in range(campaign.timing.blocks)), title="images/s")
    for contestant in campaign.contestants:
        cells = [""] * campaign.timing.blocks
        for record in records:
            if record.contestant == contestant.name and record.block is not None:
                cells[record.block - 1] = _speed(record)
        table.add_row(contestant.title, *cells)
    return table
