"""Measure how many images/s a model takes in training on this machine, with a batch that is there already."""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from loaderbench.api import Work
from loaderbench.machine.errors import FixableError
from loaderbench.machine.process import run_child

_CLASSES, _SECONDS, _LIMIT_S = 1000, 5.0, 240.0
_CPU_BATCH = 8
"""Images in a batch on a CPU, where a step on 128 of them can take half a minute."""
_NEAR = 5


def measure(model: str, work: Work) -> tuple[float, str]:
    """Return images/s that training a model of torchvision takes, and what takes them: the model and its device.

    `work`: what loaders deliver to it. Raises FixableError.
    """
    with TemporaryDirectory() as scratch:
        report = run_child(f"{__name__}.run", (model, work), Path(scratch, "log"), _LIMIT_S)
    if report["status"] != "ok":
        raise FixableError(f"--model {model}: {report['reason']}; --demand takes images/s instead")
    return report["images_per_s"], f"{model} on this machine's {report['device']}"


def run(task: tuple[str, Work]) -> dict[str, Any]:
    """Train the model that `task` names on one batch, as a task of a child process; return the report with images/s.

    It trains on the GPU, if torch finds one.
    """
    import torch
    from torchvision import models

    from loaderbench.trial.consumers import train

    model, work = task
    known = models.list_models(module=models)
    if model.lower() not in known:
        near = get_close_matches(model.lower(), known, _NEAR)
        reason = f"torchvision has no such model of images; {'near names' if near else 'it has'}: "
        return {"status": "unavailable", "reason": reason + ", ".join(near or known)}
    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        work = replace(work, batch_size=min(work.batch_size, _CPU_BATCH))
    images_per_s = train.cached_images_per_s(train.Training(model, _CLASSES, work), work, _SECONDS)
    return {"status": "ok", "reason": "", "images_per_s": images_per_s, "device": "GPU" if on_gpu else "CPU"}
