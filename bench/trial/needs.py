"""What a trial needs of the machine, and whether it is there."""

from typing import Any

from loaderbench.api import Work
from loaderbench.campaign import registry
from loaderbench.machine.disk import size
from loaderbench.machine.reasons import reason
from loaderbench.machine.shared_memory import FOLDER, free_bytes

_STEP_MIB = 64
_FILES, _FILES_OF_A_WORKER = 56, 4
"""Open files of the process that measures; two workers were seen to run with a limit of 64."""


def shared_memory_shortage(loader: str, work: Work, options: dict[str, Any], jobs: int = 1) -> str:
    """Return why /dev/shm is too small for a trial, with what would help; empty if it is large enough.

    `jobs`: as in `TrialSpec`. A loader that does not say what it needs there is taken to need nothing. One that fails
    as it is asked has its error as the reason.
    """
    need = getattr(registry.loader(loader), "shared_memory_bytes", None)
    try:
        needed_bytes = work.ranks * jobs * int(need(work, **options)) if need else 0
    except (Exception, SystemExit) as error:  # noqa: BLE001 - another package's function may raise anything
        return f"its shared_memory_bytes fails: {reason(error)}"
    if needed_bytes <= (room_bytes := free_bytes()):
        return ""
    enough_mib = -(-needed_bytes // (_STEP_MIB << 20)) * _STEP_MIB
    batch_size = work.batch_size * room_bytes // needed_bytes
    smaller = f"; or use --batch-size {batch_size}" if batch_size else ""
    return (
        f"its workers pass batches on through {FOLDER}, which needs {size(needed_bytes)} and has {size(room_bytes)} "
        f"free; use docker run --shm-size={enough_mib}m, or as root: mount -o remount,size={enough_mib}m {FOLDER}"
        f"{smaller}"
    )


def open_files(workers: int) -> int:
    """Return about how many files a trial's process opens."""
    return _FILES + _FILES_OF_A_WORKER * workers
