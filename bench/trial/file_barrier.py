"""Let the ranks or jobs of one trial wait for each other, by files in a shared folder."""

import time

from loaderbench.machine.files import write_whole
from loaderbench.trial.spec import Peers

_LOOK_S = 0.01


class FileBarrier:
    """A point that every rank or job reaches. One look at the files costs some microseconds."""

    def __init__(self, name: str, peers: Peers) -> None:
        self.last = 0
        """The largest number of batches after which a known process has reached the point."""
        self._own = peers.folder / f"{name}{peers.index}"
        self._missing = [peers.folder / f"{name}{index}" for index in range(peers.count)]

    def reached(self, batches: int) -> bool:
        """Report that this process has reached the point after `batches` batches; return whether all have."""
        if self._own in self._missing and not self._own.exists():
            write_whole(self._own, str(batches), durable=False)
        there = [path for path in self._missing if path.exists()]
        self.last = max([self.last, *(int(path.read_text()) for path in there)])
        self._missing = [path for path in self._missing if path not in there]
        return not self._missing

    def wait(self) -> None:
        """Wait until all processes have reached the point."""
        while not self.reached(0):
            time.sleep(_LOOK_S)
