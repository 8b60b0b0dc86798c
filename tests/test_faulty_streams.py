"""Whatever a loader does wrong while it runs becomes a row and a certificate with the reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest

from loaderbench.campaign.campaign import Campaign
from loaderbench.certify import certification, certify
from loaderbench.machine.progress import Display
from loaderbench.records import trials_csv
from loaderbench.records.record import Record
from loaderbench.run import runner
from tests.campaigns import Ready, campaign

pytestmark = pytest.mark.usefixtures("planted", "forked")

ROWS = {
    "no batch": ("invalid", "epoch 1 delivered 0 images instead of 96"),
    "one epoch": ("invalid", "epoch 2 delivered 0 images instead of 96; each iter() over what stream() opens must"),
    "plain": ("invalid", "stream() returns an object of type generator instead of a context manager; decorate it"),
    "dict": (
        "invalid",
        "a batch is a dict of 'image': uint8 (16, 3, 32, 32), 'label': int64 (16,) instead of a pair of",
    ),
    "three": (
        "invalid",
        "a batch is a tuple of uint8 (16, 3, 32, 32), int64 (16,), an object of type int",
    ),
    "arrays": ("invalid", "a batch is a list of ndarray uint8 (16, 3, 32, 32), ndarray int64 (16,) instead of a pair"),
    "no labels": ("invalid", "a batch is uint8 (16, 3, 32, 32) instead of a pair of tensors, (images, labels)"),
    "float labels": ("invalid", "labels are float32 (16,), on cpu instead of integer (16,), on cpu"),
    "swallows": ("invalid", "a batch is a dict of "),
    "refuses": ("unavailable", "no such work"),
    "gives up": ("failed", "NotImplementedError: no third batch, then RuntimeError: that is no refusal, "),
    "exits": ("failed", "SystemExit: the planted exit"),
    "ends": ("failed", "the process ended with 0 and no result"),
    "interrupts": ("failed", "KeyboardInterrupt"),
    "raises": ("failed", "BaseException: neither an Exception"),
    "crashes": ("failed", "the process was ended by SIGSEGV"),
    "prints": ("ok", ""),
}
"""Status and reason of a trial, by the fault of the planted loader."""
CERTIFICATES = {
    "no batch": ("different work", "epoch 1 delivers no images"),
    "one epoch": ("different work", "epoch 2 delivers no images"),
    "prints": ("different work", ""),
    "float labels": ("different work", "labels are 1-dimensional, float32 instead of 1-dimensional, integer, on cpu"),
    "refuses": ("unavailable", "unavailable: no such work"),
}
"""State and fault of a certificate, where it is no failure with the reason of the row."""


FEW = ("one epoch", "dict", "gives up", "exits", "interrupts")
SOME = pytest.mark.parametrize(
    "faults", [FEW, pytest.param([*ROWS.keys() - {*FEW}], marks=pytest.mark.slow)], ids=["few", "others"]
)


def faulty(faults: Iterable[str], **timing: float) -> Campaign:
    contestants = {fault.replace(" ", "-"): {"loader": "faulty", "options": {"fault": fault}} for fault in faults}
    return campaign(contestants, blocks=1, **timing)


def rows(chosen: Campaign, ready: Ready, folder: Path) -> dict[str, Record]:
    """The campaign's rows by fault."""
    results = runner.run(chosen, ready(chosen), folder, Display())
    return {r.contestant.replace("-", " "): r for r in trials_csv.read(results / "trials.csv") if r.kind == "load"}


@SOME
def test_each_fault_of_a_stream_is_a_row_with_its_reason(faults: Sequence[str], ready: Ready, tmp_path: Path) -> None:
    ended = rows(faulty(faults), ready, tmp_path)
    assert {fault: row.status for fault, row in ended.items()} == {fault: ROWS[fault][0] for fault in faults}
    for fault, row in ended.items():
        assert row.reason.startswith(ROWS[fault][1]), fault


@pytest.mark.slow
def test_a_loader_that_hangs_at_its_beginning_or_end_is_a_row(ready: Ready, tmp_path: Path) -> None:
    ended = rows(faulty(["hangs at its beginning", "hangs at its end"], limit_s=1), ready, tmp_path)
    assert {row.reason for row in ended.values()} == {"killed after its time limit of 1 s"}
    assert {row.status for row in ended.values()} == {"timeout"}


@SOME
def test_each_fault_of_a_stream_is_a_certificate_that_says_why(
    faults: Sequence[str], ready: Ready, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = faulty(faults)
    chosen = chosen.model_copy(update={"data": chosen.data.model_copy(update={"probe": 20})})
    prepared = ready(chosen)
    monkeypatch.setattr(certification, "map_processes", lambda make, _: nullcontext(lambda jobs: map(make, jobs)))
    for name, certificate in certify(chosen, prepared, tmp_path, Display()).items():
        fault = name.replace("-", " ")
        status, reason = ROWS[fault]
        state, said = CERTIFICATES.get(fault, ("unknown", f"{status}: {reason}"))
        assert certificate.state == state, fault
        assert [text for text in (certificate.failure, *certificate.faults) if text.startswith(said)], str(certificate)
