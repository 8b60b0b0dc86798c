"""A log shows the progress of a long stage, and no time left is shown before it can be estimated."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from loaderbench.machine.progress import Display, counting_bars


def test_a_log_gets_a_line_after_every_50000_items(capsys):
    with Display().stage("reading", 120_000) as on_progress:
        for done in range(1, 120_001):
            on_progress(done)
    assert capsys.readouterr().out.splitlines() == ["reading (120,000) ...", "reading: 50,000", "reading: 100,000"]


@pytest.mark.parametrize(("step", "left"), [(1, "-:--:--"), (10**8, "0:01:20")])
def test_remaining_time_is_shown_once_it_can_be_estimated(monkeypatch, step, left):
    bars = counting_bars(Console(file=io.StringIO(), width=200))
    bar = bars.add_task("copying", total=10**9)
    for seconds in (0.0, 10.0, 20.0):
        monkeypatch.setattr(bars, "get_time", lambda now=seconds: now)
        bars.update(bar, completed=step * seconds / 10)
    assert bars.columns[-1].render(bars.tasks[0]).plain == left
