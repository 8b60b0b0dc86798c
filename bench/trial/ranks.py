"""How do several processes do one trial? As ranks that share each epoch, started by torchrun as in training, or as jobs
that know nothing of each other. Each reports for itself, and what they report is put together.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from loaderbench.api import Artifact, Work
from loaderbench.machine import gpu
from loaderbench.machine.gpu import GpuLoad
from loaderbench.machine.process import death
from loaderbench.machine.process_tree import processes
from loaderbench.records.timeline import Timeline
from loaderbench.trial.consumers.clock import stall_pct
from loaderbench.trial.trial import Epoch, InvalidWorkError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_SUMMED = (
    "cores_used",
    "cpu_load_pct",
    "context_switches",
    "major_faults",
    "monitor_cpu_pct",
    "peak_anon_memory_mib",
    "peak_memory_mib",
    "read_bytes",
    "cached_images_per_s",
)
_LARGEST = (
    "construct_s",
    "gpu_starved_pct",
    "import_s",
    "starved_pct",
    "steal_pct",
    "teardown_s",
    "throttle_events",
)
_TRIAL = "loaderbench.trial.trial.run"
_MEANT = ("copy_overlap_pct", "copy_p50_ms", "loss_first", "loss_last", "step_p50_ms")


def run(spec: dict[str, Any]) -> dict[str, Any]:
    """Run the task that `spec` names in as many processes as there are ranks or jobs, and return what they report
    together.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    if spec.get("consumer") == "paced":
        raise NotImplementedError("one accelerator is emulated, and fed by one process")
    folder = Path(spec["result"]).parent
    own = folder / "ranks.json"
    who, places = ("job", spec["jobs"]) if _are_jobs(spec) else ("rank", spec["work"]["ranks"])
    own.write_text(json.dumps({**spec, "parent": os.getpid(), "places": places, "environment": [*os.environ]}))
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all ranks are on this machine
    command = [
        "--standalone",
        "--nproc-per-node",
        str(places),
        "--monitor-interval",
        "0.1",
        "-m",
        "loaderbench.trial.ranks",
        str(own),
    ]
    try:
        torchrun(command)
    except ChildFailedError as error:
        exits = {place: failure.exitcode for place, failure in error.failures.items()}
        place = first_to_fail(exits, {place: _result(spec, place) for place in exits})
        if (result := _result(spec, place)).exists() and (report := json.loads(result.read_text()))["status"] != "ok":
            return {"status": report["status"], "reason": f"{who} {place}: {report['reason']}"}
        return {"status": "failed", "reason": death(f"{who} {place}", exits[place])}
    finally:
        for left in processes()[1:]:  # what a killed rank had started is this process's now
            left.kill()
    reports = [json.loads(_result(spec, place).read_text()) for place in range(places)]
    return together(spec, reports) if spec["task"] == _TRIAL else reports[0]


def _are_jobs(spec: dict[str, Any]) -> bool:
    """Return whether the processes know nothing of each other, and are not ranks."""
    return bool(spec.get("jobs", 1) > 1)


def _result(spec: dict[str, Any], place: int) -> Path:
    return Path(spec["result"]).with_name(f"result{place}.json")


def first_to_fail(exits: Mapping[int, int], results: Mapping[int, Path]) -> int:
    """Return which process brought the others down, given how each ended and where it leaves its report.

    torchrun ends the others by SIGTERM. Of those that ended themselves one that could not report was the first: ranks
    that take steps with it fail after it, since it is gone.
    """

    def order(place: int) -> tuple[bool, float]:
        result = results[place]
        return exits[place] == -signal.SIGTERM, result.stat().st_mtime if result.exists() else 0.0

    return min(exits, key=order)


def of_one(spec: dict[str, Any], place: int) -> dict[str, Any]:
    """Return the task's description for one rank, or for one job with a seed of its own, with files of its own."""
    result = _result(spec, place)
    as_rank = {**spec["work"], "rank": place}
    work = {**spec["work"], "seed": Work(**as_rank).own_seed} if _are_jobs(spec) else as_rank
    files = {"result": str(result), "times": str(result.with_suffix(".npz"))}
    return {**spec, "work": work, "place": place, **files}


def together(spec: dict[str, Any], reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the columns of a trial's record from those of its ranks or jobs, and keep their raw times in one file."""
    timelines = [Timeline.load(Path(of_one(spec, place)["times"])) for place in range(len(reports))]
    epochs = [report.pop("epochs") for report in reports]
    try:
        if not _are_jobs(spec):  # which have looked at theirs
            _check_shared(epochs, Artifact.from_dict(spec["artifact"]), Work(**spec["work"]))
        timeline = Timeline.together(timelines, [report.pop("first_asked_ns") for report in reports])
    except (InvalidWorkError, ValueError) as error:
        return {"status": "invalid", "reason": str(error)}
    timeline.save(Path(spec["times"]))
    columns = {**reports[0], **timeline.columns()}
    for put_together, names in ((sum, _SUMMED), (max, _LARGEST), (fmean, _MEANT)):
        columns |= {name: _of_all(put_together, name, reports) for name in names if name in columns}
    if cached := columns.get("cached_images_per_s"):
        columns["stall_vs_cached_pct"] = stall_pct(columns["images_per_s"], cached)
    busy_pct = sum(report["cpu_load_pct"] + report["other_cpu_pct"] for report in reports) / len(reports)
    cpu_s = columns["cores_used"] * columns["window_s"]
    several = "each of several processes may use a GPU of its own" if reports[0]["gpu_util_pct"] is not None else ""
    return columns | {
        **asdict(GpuLoad(gpu_reason=several or reports[0]["gpu_reason"])),
        "cpu_s": cpu_s,
        "cpu_s_per_1k_images": 1000 * cpu_s / columns["window_images"],
        "other_cpu_pct": max(0.0, busy_pct - columns["cpu_load_pct"]),
    }


def _check_shared(epochs: Sequence[Sequence[tuple[int, int, int]]], artifact: Artifact, work: Work) -> None:
    """Raise InvalidWorkError unless every epoch is whole that all ranks have ended; one may be ahead by one."""
    for number, parts in enumerate(zip(*epochs, strict=False), 1):
        Epoch(*(sum(part) for part in zip(*parts, strict=True))).check(number, artifact, work)


def _of_all(put_together: Callable[[list[float]], float], name: str, reports: Sequence[dict[str, Any]]) -> float | None:
    values = [report[name] for report in reports]
    return None if None in values else put_together(values)


def main() -> None:
    """Be one rank or job, and do the task as a process of its own would."""
    from loaderbench.machine import child

    spec = of_one(json.loads(Path(sys.argv[1]).read_text()), int(os.environ["RANK"]))
    if _are_jobs(spec):  # what torchrun has set, its number of threads too, a job on its own would not have
        for name in os.environ.keys() - set(spec["environment"]):
            del os.environ[name]
        os.environ.update(own_gpu(spec["place"], os.environ))
    else:
        _join(spec["place"], spec["places"])
    result = child.perform(spec["task"], spec)
    # A library's threads may bring a process down as it ends, and torchrun would take that for a failure. When there is
    # one, it ends the other ranks, which would wait for this one.
    os._exit(result["status"] != "ok")


def own_gpu(job: int, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variable that shows a job one GPU alone, of those that its environment shows: the same one to as few
    jobs as can be. None without a GPU.
    """
    name = "CUDA_VISIBLE_DEVICES"
    shown = environment[name].split(",") if name in environment else [*map(str, range(gpu.count()))]
    return {name: shown[job % len(shown)]} if shown else {}


def _join(rank: int, ranks: int) -> None:
    """Make the process group, over NCCL for what is on GPUs if there is one for each rank."""
    import torch.distributed

    gpus = torch.cuda.device_count()
    if gpus:
        torch.cuda.set_device(rank % gpus)
    torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if gpus >= ranks else "gloo")


if __name__ == "__main__":
    main()
