"""Progress of long steps: live bars on a terminal, plain lines in a log."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from loaderbench.machine.text import one_line, printable_lines

_LINE_S = 30.0
"""Time between a transfer's lines in a log."""
_LONGEST_S = 99 * 3600
LOGGED_EVERY = 50_000
"""Number of items after which a stage writes a line to a log."""


class _Left(TimeRemainingColumn):
    """The time left, unless the rate is so low that it is no estimate yet."""

    def render(self, task: Task) -> Text:
        if (task.time_remaining or 0) > _LONGEST_S:
            return Text("-:--:--", style="progress.remaining")
        return super().render(task)


class Display:
    """Shows the progress of long steps."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self._live = self.console.is_terminal
        self._bars = counting_bars(self.console)

    def say(self, text: str) -> None:
        """Print a text of one or more lines; what it holds of markup, emoji codes or control characters is shown."""
        self.console.print(Text(printable_lines(text)))

    @contextmanager
    def stage(self, what: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """Show a stage with a number of items. Call the given function with the number of finished items."""
        what = one_line(what)
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
        """Show a transfer's bytes, rate and time left.

        Call the given function with the number of bytes so far and in total, None while the total is unknown.
        """
        what = one_line(what)
        columns = DownloadColumn(), TransferSpeedColumn(), TextColumn("left"), _Left()
        description = TextColumn("{task.description}", markup=False)
        bars = Progress(SpinnerColumn(), description, BarColumn(), *columns, console=self.console)
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


def counting_bars(console: Console) -> Progress:
    """Return bars that show the finished and all items, the time taken and the time left."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        _Left(),
        console=console,
    )
