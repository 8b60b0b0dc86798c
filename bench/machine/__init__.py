"""What the machine has and does: counters, page cache, child processes, locks, atomic files, progress bars."""

from loaderbench.machine.files import locked, write_whole
from loaderbench.machine.process import run_child

__all__ = ["locked", "run_child", "write_whole"]
