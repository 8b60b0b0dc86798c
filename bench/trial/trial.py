"""Measure a single contestant in a fresh process.

A consumer opens the loader and takes its batches through a `Meter`, which times and checks them and opens and closes
the window. Batch times are taken there, never by the loader.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from loaderbench.api import Artifact, Loader, Work
from loaderbench.campaign import registry
from loaderbench.machine.counters import difference, processes, tree_counters
from loaderbench.machine.gpu import Gpu
from loaderbench.trial import consumers, device
from loaderbench.trial.checks import Glimpses, InvalidWorkError
from loaderbench.trial.file_barrier import FileBarrier
from loaderbench.trial.meter import Meter
from loaderbench.trial.opening import opened
from loaderbench.trial.spec import TrialSpec

if TYPE_CHECKING:
    from torch import Tensor


def run(spec: TrialSpec) -> dict[str, Any]:
    """Run a trial and return its measured columns of `Record`. Wrong work is reported as status `invalid`."""
    if spec.memory_group:
        spec.memory_group.write_text(str(os.getpid()))
    loader = registry.loader(spec.loader)
    consume = consumers.prepare(spec.consumer, spec.artifact, spec.work, spec.consumer_options)
    ready, begun, opened, closed, ended = (
        FileBarrier(name, spec.peers) if spec.peers else None
        for name in ("ready", "begun", "opened", "closed", "ended")
    )
    if ready:  # a consumer may measure without a loader first, and then no other process may have one either
        ready.wait()
    with Gpu() as gpu:
        started = perf_counter_ns()
        for name in loader.requires:
            importlib.import_module(name)
        imported = perf_counter_ns()
        timed = TimedLoader(loader, spec.options)
        copies = device.copies(spec.work)
        # In validation, later passes and epochs show the same images again.
        glimpses = Glimpses() if loader.reads and spec.work.augment == "train" else None
        meter = Meter((), spec.artifact, spec.work, spec.window, gpu, begun, opened, closed, ended, copies, glimpses)
        try:
            consumed = consume(timed, meter)
            if glimpses:
                glimpses.check()
        except InvalidWorkError as error:
            return {"status": "invalid", "reason": str(error)}
    meter.timeline.save(spec.times)
    return {
        "status": "ok",
        "reason": "",
        "import_s": (imported - started) / 1e9,
        **timed.columns,
        **meter.columns(),
        **consumed,
        **(meter.for_peers() if spec.peers else {}),
    }


class TimedLoader:
    """A contestant's loader with its options, which times how long opening and closing it take."""

    def __init__(self, loader: Loader, options: dict[str, Any]) -> None:
        self.requires, self.reads, self.streams = loader.requires, loader.reads, loader.streams
        self.columns: dict[str, float | int | None] = {}
        """Of `Record`; complete once the loader is closed."""
        self._loader, self._options = loader, options

    @contextmanager
    def stream(self, artifact: Artifact, work: Work, **options: Any) -> Iterator[Iterable[tuple[Tensor, Tensor]]]:
        """Open the loader, once. `options`: in addition to the contestant's."""
        before = tree_counters(processes())
        constructing = perf_counter_ns()
        with opened(self._loader, artifact, work, {**self._options, **options}) as batches:
            self.columns["construct_s"] = (perf_counter_ns() - constructing) / 1e9
            yield batches
            after = tree_counters(processes())
            del batches
            ending = perf_counter_ns()
        self.columns["teardown_s"] = (perf_counter_ns() - ending) / 1e9
        self.columns["read_bytes"] = difference(before.read_bytes, after.read_bytes)
