"""Run a task in several processes at the same time: as ranks that share each epoch, or as independent jobs."""

import atexit
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from multiprocessing.connection import wait
from typing import Any

from loaderbench.machine import gpu, process
from loaderbench.machine.child import call
from loaderbench.trial import combined
from loaderbench.trial.spec import Several

_LATER_S = 0.5
"""Time in which the guardian of a process that died has noticed it, though its peers may have reported before."""


def run(several: Several) -> dict[str, Any]:
    """Run all processes and return their combined report; the first that fails ends the others."""
    combined.refuse_one_accelerator(several)
    with ExitStack() as stack:
        reports = _reports(several, [stack.enter_context(_started(several, n)) for n in range(several.count)])
    failed = next((report for report in reports.values() if report["status"] != "ok"), None)
    return failed or combined.columns(several, [reports[index] for index in range(several.count)])


def _reports(several: Several, children: list[process.Child]) -> dict[int, dict[str, Any]]:
    """Return the reports by process, or only that of the first that failed."""
    who = "job" if several.jobs > 1 else "rank"
    reports: dict[int, dict[str, Any]] = {}
    running = {child: index for index, child in enumerate(children)}
    while running:
        ended = _ended(running)
        if any(report is None or report["status"] != "ok" for report in ended.values()):
            time.sleep(_LATER_S)
            ended |= _ended(running.keys() - ended.keys(), 0)
        # A process that died without a report failed first; its peers fail later because it is gone.
        for child in sorted(ended, key=lambda child: (child.reported_s(), running[child])):
            index, report = running.pop(child), ended[child]
            if report is None:
                return {index: child.death(f"{who} {index}")}
            if report["status"] != "ok":
                return {index: {**report, "reason": f"{who} {index}: {report['reason']}"}}
            reports[index] = report
    return reports


def _ended(
    children: Iterable[process.Child], limit_s: float | None = None
) -> dict[process.Child, dict[str, Any] | None]:
    """Wait until one of the processes has ended, for at most `limit_s`, and return the reports of all that have."""
    ended: list[Any] = wait(children, limit_s)  # type: ignore[arg-type] # they have a `fileno`
    return {child: child.report() for child in ended}


def _started(several: Several, index: int) -> Any:
    if several.jobs > 1:
        environment = {**os.environ, **own_gpu(index, os.environ)}
        return process.started(several.task, several.of(index), environment=environment)
    # As torchrun sets them, its default of one thread for each rank included.
    numbers = {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": several.count, "LOCAL_WORLD_SIZE": several.count}
    defaults = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}  # all ranks are on this machine
    environment = {**defaults, **os.environ, **{name: str(number) for name, number in numbers.items()}}
    return process.started("loaderbench.trial.several.run_rank", (several, index), environment=environment)


def own_gpu(job: int, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variable that shows a job one GPU only, of those that `environment` shows; empty without a GPU.

    Jobs share a GPU only if there are more jobs than GPUs.
    """
    name = "CUDA_VISIBLE_DEVICES"
    shown = environment[name].split(",") if name in environment else [*map(str, range(gpu.count()))]
    return {name: shown[job % len(shown)]} if shown else {}


def run_rank(one: tuple[Several, int]) -> dict[str, Any]:
    """Join the process group as one rank, over NCCL for data on GPUs if each rank has one, and run the task."""
    import torch.distributed

    several, rank = one
    gpus = torch.cuda.device_count()
    if gpus:
        torch.cuda.set_device(rank % gpus)
    torch.distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if gpus >= several.count else "gloo",
        init_method=f"file://{several.folder}/group",
        rank=rank,
        world_size=several.count,
    )
    report = call(several.task, several.of(rank))
    atexit.register(os._exit, 0)  # the process group's threads may hang or crash as the process exits
    return report
