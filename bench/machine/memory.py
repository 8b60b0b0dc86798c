"""How much memory does this process tree hold, with shared pages counted once?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loaderbench.machine.process_tree import Tree

_KIB_PER_MIB = 1024


@dataclass(frozen=True)
class Memory:
    """Proportional set size (PSS) summed over a process tree."""

    total_mib: float
    anon_mib: float
    """Anonymous and shared memory, without file-backed pages."""

    def without(self, anon_mib: float) -> Memory:
        """Return what is left when so much anonymous memory is taken off."""
        return Memory(self.total_mib - anon_mib, self.anon_mib - anon_mib)


def tree_memory(tree: Tree) -> Memory | None:
    """Return the memory of the processes together; None where the kernel does not tell PSS."""
    kib = {"Pss": 0, "Pss_Anon": 0, "Pss_Shmem": 0}
    for process in tree:
        try:
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]
        except ProcessLookupError:
            continue
        except FileNotFoundError:
            if process.is_running():
                return None
            continue
        values = {name: int(rest.split()[0]) for name, rest in (line.split(":") for line in lines)}
        for name in kib:
            kib[name] += values[name]
    return Memory(kib["Pss"] / _KIB_PER_MIB, (kib["Pss_Anon"] + kib["Pss_Shmem"]) / _KIB_PER_MIB)
