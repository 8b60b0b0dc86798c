"""Read mutated files of one kind: `python -m tests.fuzzing KIND FIRST END FOLDER`; prints what was seen as JSON."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import sys
from collections import Counter
from pathlib import Path

from tests.fuzzing.kinds import KINDS
from tests.fuzzing.mutations import mutated

_CPU_S = 20
"""The kernel ends this process if one file takes more."""
_ADDRESSES_BYTES = 12 << 30


def main(name: str, first: int, end: int, folder: Path) -> None:
    """Read the files of these numbers. `case` in the folder holds the number under way."""
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESSES_BYTES, _ADDRESSES_BYTES))
    kind, around = KINDS[name], folder / "around"
    case, out, path = folder / "case", around / "out", around / "in" / kind.file
    path.parent.mkdir(parents=True)
    (path.parent / "meta").touch()  # marks CIFAR-100
    seeds = kind.seeds(folder)
    seen = Counter[str]()
    for number in range(first, end):
        case.write_text(str(number))
        path.write_bytes(mutated(seeds, name, number))
        out.mkdir()
        signal.setitimer(signal.ITIMER_PROF, _CPU_S)
        reason = kind.read(path, out)
        signal.setitimer(signal.ITIMER_PROF, 0)
        seen["refused" if reason else "read"] += 1
        if (found := {entry.name for entry in around.iterdir()}) != {"in", "out"}:
            raise AssertionError(f"{name} {number} wrote outside its folder: {found}")
        if any(entry.is_symlink() for entry in out.rglob("*")):
            raise AssertionError(f"{name} {number} made a link")
        shutil.rmtree(out)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(json.dumps({"seen": seen, "peak_mib": peak_mib}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
