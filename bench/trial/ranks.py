"""Run a task in several ranks that share each epoch, started by torchrun as in training."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loaderbench.machine import child
from loaderbench.machine.counters import processes
from loaderbench.machine.process import death
from loaderbench.trial import combined
from loaderbench.trial.processes import TRIAL
from loaderbench.trial.spec import Several


def run(several: Several) -> dict[str, Any]:
    """Run the task in all ranks at the same time and return their combined report."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    combined.refuse_one_accelerator(several)
    specs = several.folder / "ranks"
    specs.write_bytes(pickle.dumps((os.getpid(), several)))
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all ranks are on this machine
    options = ["--standalone", "--nproc-per-node", str(several.count), "--monitor-interval", "0.1"]
    try:
        torchrun([*options, "-m", "loaderbench.trial.ranks", str(specs)])
    except ChildFailedError as error:
        exits = {rank: failure.exitcode for rank, failure in error.failures.items()}
        rank = first_to_fail(exits, {rank: _result(several, rank) for rank in exits})
        if _result(several, rank).exists() and (report := _report(several, rank))["status"] != "ok":
            return {"status": report["status"], "reason": f"rank {rank}: {report['reason']}"}
        return {"status": "failed", "reason": death(f"rank {rank}", exits[rank])}
    finally:
        for left in processes()[1:]:  # processes that a killed rank had started belong to this process now
            left.kill()
    reports = [_report(several, rank) for rank in range(several.count)]
    return combined.columns(several, reports) if several.task == TRIAL else reports[0]


def _result(several: Several, rank: int) -> Path:
    return several.folder / f"result{rank}"


def _report(several: Several, rank: int) -> dict[str, Any]:
    report: dict[str, Any] = pickle.loads(_result(several, rank).read_bytes())  # noqa: S301 - written by our own rank
    return report


def first_to_fail(exits: Mapping[int, int], results: Mapping[int, Path]) -> int:
    """Return the rank that failed first. `exits`: exit codes by rank. `results`: the file for each rank's report.

    torchrun ends the others by SIGTERM. Among ranks that exited on their own, one without a report failed first; its
    peers fail later because it is gone.
    """

    def order(rank: int) -> tuple[bool, float]:
        result = results[rank]
        return exits[rank] == -signal.SIGTERM, result.stat().st_mtime if result.exists() else 0.0

    return min(exits, key=order)


def main() -> None:
    """Perform the task as the rank that torchrun's variable `RANK` names."""
    parent, several = pickle.loads(Path(sys.argv[1]).read_bytes())  # noqa: S301 - written by `run`
    rank = int(os.environ["RANK"])
    _join(rank, several.count)
    report = child.perform(several.task, several.of(rank), _result(several, rank), parent)
    # A library's threads may crash the process as it exits, which torchrun would take for a failure. If there is a
    # failure, the exit makes torchrun end the other ranks, which would wait for this one.
    os._exit(report["status"] != "ok")


def _join(rank: int, ranks: int) -> None:
    """Join the process group: over NCCL for data on GPUs if each rank has one."""
    import torch.distributed

    gpus = torch.cuda.device_count()
    if gpus:
        torch.cuda.set_device(rank % gpus)
    torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if gpus >= ranks else "gloo")


if __name__ == "__main__":
    main()
