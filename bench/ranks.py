"""How do several processes share one piece of work? torchrun starts them, as it does in training; each reports for
itself, and what they report is put together.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from bench.api import Artifact, Work
from bench.consumers.clock import stall_pct
from bench.monitors.tree import processes
from bench.process import death
from bench.timeline import Timeline
from bench.trial import Epoch, InvalidWorkError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
_MEANT = ("loss_first", "loss_last", "step_p50_ms")


def run(spec: dict[str, Any]) -> dict[str, Any]:
    """Run the task that `spec` names in `spec["work"]["ranks"]` processes, and return what they report together."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    folder = Path(spec["result"]).parent
    own = folder / "ranks.json"
    own.write_text(json.dumps({**spec, "parent": os.getpid()}))
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all ranks are on this machine
    ranks = spec["work"]["ranks"]
    command = [
        "--standalone",
        "--nproc-per-node",
        str(ranks),
        "--monitor-interval",
        "0.1",
        "-m",
        "bench.ranks",
        str(own),
    ]
    try:
        torchrun(command)
    except ChildFailedError as error:
        rank = min(error.failures, key=lambda rank: _failed_at_s(_result(spec, rank)))
        if (result := _result(spec, rank)).exists() and (report := json.loads(result.read_text()))["status"] != "ok":
            return {"status": report["status"], "reason": f"rank {rank}: {report['reason']}"}
        return {"status": "failed", "reason": death(f"rank {rank}", error.failures[rank].exitcode)}
    finally:
        for left in processes()[1:]:  # what a killed rank had started is this process's now
            left.kill()
    reports = [json.loads(_result(spec, rank).read_text()) for rank in range(ranks)]
    return together(spec, reports) if spec["task"] == "trial" else reports[0]


def _result(spec: dict[str, Any], rank: int) -> Path:
    return Path(spec["result"]).with_name(f"rank{rank}.json")


def _failed_at_s(result: Path) -> float:
    """Return when a rank that has failed said so; one that could not say so was the first.

    Those that take steps with it fail after it, since it is gone.
    """
    return result.stat().st_mtime if result.exists() else 0.0


def of_rank(spec: dict[str, Any], rank: int) -> dict[str, Any]:
    """Return the task's description for one rank, with files of its own."""
    result = _result(spec, rank)
    own = {"work": {**spec["work"], "rank": rank}, "result": str(result), "times": str(result.with_suffix(".npz"))}
    return {**spec, **own}


def together(spec: dict[str, Any], reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the columns of a trial's record from those of its ranks, and keep their raw times in one file."""
    artifact, work = Artifact.from_dict(spec["artifact"]), Work(**spec["work"])
    epochs = zip(*(report.pop("epochs") for report in reports), strict=False)  # a rank may be one ahead
    timelines = [Timeline.load(Path(of_rank(spec, rank)["times"])) for rank in range(work.ranks)]
    try:
        for number, parts in enumerate(epochs, 1):
            Epoch(*(sum(part) for part in zip(*parts, strict=True))).check(number, artifact, work)
        timeline = Timeline.together(timelines, [report.pop("first_asked_ns") for report in reports])
    except (InvalidWorkError, ValueError) as error:
        return {"status": "invalid", "reason": str(error)}
    timeline.save(Path(spec["times"]))
    columns = {**reports[0], **timeline.columns()}
    for put_together, names in ((sum, _SUMMED), (max, _LARGEST), (fmean, _MEANT)):
        columns |= {name: _of_all(put_together, name, reports) for name in names if name in columns}
    if cached := columns.get("cached_images_per_s"):
        columns["stall_vs_cached_pct"] = stall_pct(columns["images_per_s"], cached)
    busy_pct = sum(report["cpu_load_pct"] + report["other_cpu_pct"] for report in reports) / work.ranks
    cpu_s = columns["cores_used"] * columns["window_s"]
    return columns | {
        "cpu_s": cpu_s,
        "cpu_s_per_1k_images": 1000 * cpu_s / columns["window_images"],
        "other_cpu_pct": max(0.0, busy_pct - columns["cpu_load_pct"]),
    }


def _of_all(put_together: Callable[[list[float]], float], name: str, reports: Sequence[dict[str, Any]]) -> float | None:
    values = [report[name] for report in reports]
    return None if None in values else put_together(values)


def main() -> None:
    """Be one rank: join the process group, and do the task as a process of its own would."""
    import torch.distributed

    from bench import child

    rank = int(os.environ["RANK"])
    spec = of_rank(json.loads(Path(sys.argv[1]).read_text()), rank)
    backend, gpus = "gloo", torch.cuda.device_count()
    if gpus:
        torch.cuda.set_device(rank % gpus)
        if gpus >= spec["work"]["ranks"]:  # NCCL takes one rank for each
            backend = "cpu:gloo,cuda:nccl"
    torch.distributed.init_process_group(backend)
    result = child.perform(spec["task"], spec)
    # A library's threads may bring a process down as it ends, and torchrun would take that for a failure. When there is
    # one, it ends the other ranks, which would wait for this one.
    os._exit(result["status"] != "ok")


if __name__ == "__main__":
    main()
