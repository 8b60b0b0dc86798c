"""A loader in a process of its own that delivers a lap of batches whenever it is asked to.

The process group is stopped between laps, so that two loaders can take turns without disturbing each other.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from loaderbench.api import Artifact, Work
    from loaderbench.campaign.schema import Contestant

LAP_S = 0.5  # long against a batch, short against the drift of a shared machine
WARM_UP_LAPS = 6  # the first of them find out how many batches a lap takes


class Laps:
    """The parent's side: starts the loader, warms it up, and asks for laps. Use as a context manager."""

    def __init__(self, contestant: Contestant, artifact: Artifact, work: Work) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tests.perf.lap"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        spec = {"artifact": asdict(artifact), "work": asdict(work)}
        self._ask({**spec, "loader": contestant.loader, "options": contestant.options})
        self._batches = 1
        self._ask(self._batches)
        for _ in range(WARM_UP_LAPS):
            before = time.perf_counter()
            self.images = self._ask(self._batches)
            self._batches = max(1, round(self._batches * LAP_S / (time.perf_counter() - before)))
        self._signal(signal.SIGSTOP)

    def __call__(self) -> None:
        """Let the loader deliver one lap; `images` tells how many images that was."""
        self._signal(signal.SIGCONT)
        self.images = self._ask(self._batches)
        self._signal(signal.SIGSTOP)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._signal(signal.SIGKILL)
        self._child.communicate()

    def _ask(self, question: object) -> int:
        assert self._child.stdin
        assert self._child.stdout
        print(json.dumps(question), file=self._child.stdin, flush=True)
        return int(self._child.stdout.readline())

    def _signal(self, number: int) -> None:
        os.killpg(self._child.pid, number)


def _serve() -> None:
    """The child's side: answer each number of batches with the number of images in them."""
    from loaderbench.api import Artifact, Work
    from loaderbench.campaign import registry
    from loaderbench.machine.touch import touch

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a library's own prints are no answers
    spec = json.loads(sys.stdin.readline())
    artifact = Artifact.from_dict(spec["artifact"])
    with registry.loader(spec["loader"]).stream(artifact, Work(**spec["work"]), **spec["options"]) as batches:

        def delivered() -> Iterator[int]:
            while True:
                for images, _ in batches:
                    touch(images)
                    yield len(images)

        print(0, file=answers, flush=True)
        stream = delivered()
        for line in sys.stdin:
            print(sum(next(stream) for _ in range(int(line))), file=answers, flush=True)


if __name__ == "__main__":
    _serve()
