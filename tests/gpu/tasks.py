"""Tasks of the tests that need a GPU, each for a process of its own."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
import torch
from torch.profiler import ProfilerActivity

from loaderbench.api import Artifact, Encoding, Work
from loaderbench.campaign import registry
from loaderbench.machine.gpu import Gpu
from loaderbench.records.timeline import Timeline
from loaderbench.roofline import measure
from loaderbench.roofline.measure import LimitSpec
from loaderbench.trial import device, trial
from loaderbench.trial.consumers import train
from loaderbench.trial.meter import Meter
from loaderbench.trial.spec import TrialSpec, Window
from loaderbench.trial.trial import TimedLoader

if TYPE_CHECKING:
    from tests.gpu.ways import Way

OK = {"status": "ok", "reason": ""}
LATE_CYCLES = 20_000_000
"""How much later a GPU comes to each step, about 10 ms: a batch that is overwritten too early is then seen to be."""
STEPS = 20
COPIES = 50
TRAINING = {"model": "resnet18", "cached_s": 1.0, "loss_steps": 8}
OF_PACE = Work(batch_size=256, workers=1, image_size=224, device="cuda")


def consume(spec: dict[str, Any]) -> dict[str, Any]:
    """Train on each of the ways, and write what the network got, and what the loader delivers on the CPU.

    `spec`: `ways`, each with its artifact, and the `folder` for a file of each: images and labels of both.
    """
    for number, (way, artifact) in enumerate(spec["ways"]):
        on_cpu = delivered(way, artifact) if way.delivers_on_cpu else ((), ())
        np.savez(spec["folder"] / f"{number}.npz", *consumed(way, artifact), *on_cpu)
    return OK


def delivered(way: Way, artifact: Artifact) -> tuple[np.ndarray, np.ndarray]:
    """Return the images, n x 3 x height x width, and labels of one epoch that the loader delivers on the CPU."""
    work = replace(way.work, device="cpu")
    with registry.loader(way.loader).stream(artifact, work, **way.options) as batches:
        images, labels = zip(*((images.clone(), labels.clone()) for images, labels in batches), strict=True)
    return torch.cat(images).numpy(), torch.cat(labels).numpy()


def consumed(way: Way, artifact: Artifact) -> tuple[np.ndarray, np.ndarray]:
    """Return the images, n x 3 x height x width, and labels that the steps of a training got, in their order."""
    images: list[torch.Tensor] = []
    labels: list[torch.Tensor] = []
    normalised, loss = train.Training.normalised, train.Training.loss

    def with_labels(training: train.Training, batch: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        labels.append(classes.clone())
        return loss(training, batch, classes)

    def with_images(training: train.Training, batch: torch.Tensor) -> torch.Tensor:
        if batch.device.type == "cuda":
            torch.cuda._sleep(LATE_CYCLES)
        images.append(batch.clone())
        return normalised(training, batch)

    work = way.work
    run = train.prepare(artifact, work, model="shufflenet_v2_x0_5", cached_s=0.1, loss_steps=8)
    window = Window(0, 0, STEPS, None, whole_epoch_s=0)
    meter = Meter((), artifact, work, window, Gpu(), copies=device.copies(work))
    with (
        patch.object(train.Training, "loss", with_labels),
        patch.object(train.Training, "normalised", with_images),
        patch.object(train, "cached_images_per_s", lambda *_: 1.0),  # its batch is no loader's
    ):
        run(TimedLoader(registry.loader(way.loader), way.options), meter)
    return torch.cat(images).cpu().numpy(), torch.cat(labels).numpy()


def profile(spec: dict[str, Any]) -> dict[str, Any]:
    """Train on a loader of half the speed of the training under torch's profiler.

    `spec`: the `cpu_memory` of the batches, and a `folder`. Returns the trial's columns, its number of steps, and the
    edges of its window; the trace is in `trace.json`.
    """
    step = train.Training.step

    def marked(training: train.Training, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        torch.cuda._sleep(1)
        loss = step(training, images, labels)
        torch.cuda._sleep(1)
        return loss

    folder: Path = spec["folder"]
    artifact = Artifact("any", str(folder), 64_000, 6400 * 45, 0, 0, Encoding("raw"), 10, label_counts=(6400,) * 10)
    training = train.Training(str(TRAINING["model"]), artifact.classes, OF_PACE)
    cached = train.cached_images_per_s(training, OF_PACE, 1.0)
    options = {"images_per_s": cached / 2, "cpu_memory": spec["cpu_memory"]}
    trial_spec = TrialSpec(
        loader="pace",
        artifact=artifact,
        work=OF_PACE,
        window=Window(2.0, 4.0, 20, None, whole_epoch_s=0),
        times=folder / "times.npz",
        options=options,
        consumer="train",
        consumer_options=TRAINING,
    )
    with (
        patch.object(train.Training, "step", marked),
        patch.object(train, "cached_images_per_s", lambda *_: cached),  # so that the last steps are the loader's
        torch.profiler.profile(activities=[ProfilerActivity.CUDA]) as profiler,
    ):
        columns = trial.run(trial_spec)
    profiler.export_chrome_trace(str(folder / "trace.json"))
    times = Timeline.load(folder / "times.npz")
    return columns | {"steps": len(times.exits_ns), "window": times.window}


def bandwidth(spec: dict[str, Any]) -> dict[str, Any]:
    """Return images/s of copies to the GPU by the harness's machine limit, and by a plain loop timed by events."""
    work = OF_PACE
    limits = measure.run(LimitSpec(Path(), {}, work, {spec["step"]}, 1.0))["limits"]
    shape = (work.batch_size, 3, work.image_size, work.image_size)
    host = torch.zeros(shape, dtype=torch.uint8, pin_memory=spec["step"] == "host-to-device")
    there = host.to("cuda")
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(COPIES):
        there.copy_(host, non_blocking=True)
    end.record()
    end.synchronize()
    plain = 1000 * COPIES * work.batch_size / begin.elapsed_time(end)
    return OK | {"limit": limits[spec["step"]], "plain": plain}


def nvml(spec: dict[str, float]) -> dict[str, Any]:
    """Return what NVML says of a window in which the GPU multiplies matrices. `spec`: its length in seconds."""
    matrix = torch.ones(4096, 4096, device="cuda")
    with Gpu() as gpu:
        opened = gpu.open_window()
        started_s = time.perf_counter()
        while time.perf_counter() - started_s < spec["seconds"]:
            matrix @ matrix
            torch.cuda.synchronize()
        load = gpu.close_window(opened, time.perf_counter() - started_s)
    return OK | {"load": asdict(load)}
