"""Which tests run at the same time? A plugin for those that pytest-xdist spreads over processes.

A test that judges times or rates is marked `alone`: no other runs beside it, nor between two of them that follow each
other. What is dear and the same for all processes is made by one of them, while the others wait.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

_FOLDER = Path(__file__).parent


@contextmanager
def one_at_a_time(file: Path) -> Iterator[None]:
    """Hold the lock of a file or folder, which one process at a time can."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # in so many words, for a child may have a copy of it
        os.close(descriptor)


class Turns:
    """Each test holds the lock of this folder; those that are marked do not share it.

    Who waits for it holds the lock of this file, by which all have to pass, so that nobody overtakes.
    """

    def __init__(self) -> None:
        self._running = os.open(_FOLDER, os.O_RDONLY)
        self._kept = False

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        """Run a test, with what it sets up and tears down, in its turn."""
        alone, next_alone = (bool(test and test.get_closest_marker("alone")) for test in (item, nextitem))
        if not self._kept:
            with one_at_a_time(Path(__file__)):
                fcntl.flock(self._running, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        try:
            return (yield)
        finally:
            self._kept = alone and next_alone
            if not self._kept:
                fcntl.flock(self._running, fcntl.LOCK_UN)
