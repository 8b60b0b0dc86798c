"""Progress of a campaign's trials: a live table on a terminal, one line per trial in a log."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from loaderbench.campaign import plan
from loaderbench.campaign.campaign import Campaign
from loaderbench.campaign.plan import Trial
from loaderbench.campaign.variant import Variant
from loaderbench.machine.progress import Display, counting_bars
from loaderbench.machine.text import one_line
from loaderbench.records.record import Record


@contextmanager
def trial_table(
    display: Display, campaign: Campaign, records: list[Record]
) -> Iterator[Callable[[Trial | None], None]]:
    """Show the trials of a campaign while they run.

    `records`: the rows so far, to which the caller appends. Yields a function that updates what is shown; its argument
    is the trial that starts now, or None after the last.
    """
    if not display.console.is_terminal:
        shown = len(records)

        def lines(_: Trial | None) -> None:
            nonlocal shown
            for number, record in enumerate(records[shown:], shown + 1):
                display.say(_line(record, number, _planned(campaign, records)))
            shown = len(records)

        yield lines
        return
    bars = counting_bars(display.console)
    bar = bars.add_task("starting", total=None)
    with Live(console=display.console, auto_refresh=False) as live:  # this process sleeps while a trial runs

        def table(trial: Trial | None) -> None:
            title = one_line(trial.contestant.title) if trial else "done"
            bars.update(bar, completed=len(records), total=_planned(campaign, records), description=title)
            live.update(Group(_table(campaign, records), bars), refresh=True)

        try:
            yield table
        finally:
            live.update(_table(campaign, records), refresh=True)


def _planned(campaign: Campaign, records: list[Record]) -> int:
    """Return how many trials there will be, as far as known: of the searches, every attempt begun, and later blocks."""
    attempts = {(record.block, record.attempt) for record in records if record.kind == "load"}
    blocks = campaign.timing.blocks - len({block for block, _ in attempts})
    searched = sum(record.kind == "tune" for record in records)
    searching, _ = plan.searching(campaign, {record.trial: record for record in records})
    return searched + searching + (len(attempts) + blocks) * len(plan.trials(campaign, 1))


def _speed(record: Record) -> str:
    return f"{record.images_per_s:,.0f}" if record.images_per_s is not None else record.status


def _line(record: Record, number: int, planned: int) -> str:
    """Return the line of a trial in a log."""
    what = f"{_speed(record)} images/s" if record.status == "ok" else f"{record.status}: {record.reason}"
    if record.kind == "tune":
        where, how = "search", f", {record.options}, {record.workers} workers" if record.workers else ""
    else:
        where = f"block {record.block}" + (f" (attempt {record.attempt})" if record.attempt != 1 else "")
        how = "".join(f", {label}" for label in [Variant.of(record).label] if label)
    return f"[{number}/{planned}] {where}, {record.title}{how}: {what}"


def _table(campaign: Campaign, records: list[Record]) -> Table:
    """Return the latest speeds by contestant and block."""
    table = Table("contestant", *(f"block {block + 1}" for block in range(campaign.timing.blocks)), title="images/s")
    cells = {(r.contestant, Variant.of(r), r.block): _speed(r) for r in records if r.kind == "load"}
    for trial in sorted(plan.trials(campaign, 1), key=lambda t: campaign.contestants.index(t.contestant)):
        name, variant = trial.contestant.name, trial.variant
        title = campaign.best[name].title if variant.track == "best" else trial.contestant.title
        speeds = (cells.get((name, variant, block), "") for block in range(1, campaign.timing.blocks + 1))
        table.add_row(Text(one_line(variant.titled(title))), *speeds)
    return table
