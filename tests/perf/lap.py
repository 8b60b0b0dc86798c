"""A loader in a process of its own that delivers a lap of images whenever it is asked to.

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
    from collections.abc import Iterable, Iterator
    from typing import Self

    from loaderbench.api import Artifact, Work
    from loaderbench.campaign.schema import Contestant

WARM_UP_S = 3.0


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
        first = self.images = self._ask(1)
        begun_s = time.perf_counter()
        while (taken_s := time.perf_counter() - begun_s) < WARM_UP_S:
            self.images = self._ask(self.images + 1)
        self._asked = self.images
        self.images_per_s = (self.images - first) / taken_s
        """Speed in the warm-up. `images`: the number delivered so far."""
        self._signal(signal.SIGSTOP)

    def __call__(self, images: int) -> None:
        """Let the loader deliver a number of images.

        A lap ends with a whole batch. The images that it was too long are taken off the next one, so that laps of all
        loaders have the same number of images on average, and exactly if all batches are whole.
        """
        self._asked += images
        self._signal(signal.SIGCONT)
        self.images = self._ask(self._asked)
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


def totals(batches: Iterator[int], asked: Iterable[int]) -> Iterator[int]:
    """Yield the number of images delivered so far, each time as soon as it reaches the next number asked for.

    `batches`: images in each batch.
    """
    delivered = 0
    for total in asked:
        while delivered < total:
            delivered += next(batches)
        yield delivered


def _serve() -> None:
    """The child's side: answer each number of images with the number that was delivered in total."""
    from loaderbench.api import Artifact, Work
    from loaderbench.campaign import registry
    from loaderbench.machine.touch import touch

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a library's own prints are no answers
    spec = json.loads(sys.stdin.readline())
    artifact = Artifact.from_dict(spec["artifact"])
    with registry.loader(spec["loader"]).stream(artifact, Work(**spec["work"]), **spec["options"]) as batches:

        def sizes() -> Iterator[int]:
            while True:
                for images, _ in batches:
                    touch(images)
                    yield len(images)

        print(0, file=answers, flush=True)
        for total in totals(sizes(), map(int, sys.stdin)):
            print(total, file=answers, flush=True)


if __name__ == "__main__":
    _serve()
