"""A log shows the progress of a long stage."""

from __future__ import annotations

from loaderbench.machine.progress import Display


def test_a_log_gets_a_line_after_every_50000_items(capsys):
    with Display().stage("reading", 120_000) as on_progress:
        for done in range(1, 120_001):
            on_progress(done)
    assert capsys.readouterr().out.splitlines() == ["reading (120,000) ...", "reading: 50,000", "reading: 100,000"]
