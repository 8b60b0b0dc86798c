"""Make up campaigns, for tests of the code that reads them."""

from tests.fabricate.cast import CAST, SAMPLES, STREAM, Actor
from tests.fabricate.folder import campaign, environment, finished, publication
from tests.fabricate.rows import (
    at_best,
    certificate,
    course,
    failed,
    fed,
    fetched,
    gpu_uses,
    limit,
    load,
    searched,
    write,
)

__all__ = [
    "CAST",
    "SAMPLES",
    "STREAM",
    "Actor",
    "at_best",
    "campaign",
    "certificate",
    "course",
    "environment",
    "failed",
    "fed",
    "fetched",
    "finished",
    "gpu_uses",
    "limit",
    "load",
    "publication",
    "searched",
    "write",
]
