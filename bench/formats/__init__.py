"""Turn canonical images into the campaign's formats, verified and cached.

`prepare` makes all formats of a campaign, `estimate` says beforehand what that will take, `publish` uploads them. For
one step alone: `jobs` makes the canonical images, `write` the formats. `MODES` says what each encoding mode stores.
"""

from loaderbench.formats.estimation import Estimate
from loaderbench.formats.modes import JPEG, MODES, ORIGINALS, PIXELS, deviation
from loaderbench.formats.preparation import Prepared, estimate, prepare, publish
from loaderbench.formats.writing import Job, PrepareError, jobs, write

__all__ = [
    "JPEG",
    "MODES",
    "ORIGINALS",
    "PIXELS",
    "Estimate",
    "Job",
    "PrepareError",
    "Prepared",
    "deviation",
    "estimate",
    "jobs",
    "prepare",
    "publish",
    "write",
]
