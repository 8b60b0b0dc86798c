"""Turn canonical images into stored formats, verified and cached.

`prepare` makes all formats of a campaign, `estimate` says beforehand what that will take, `publish` uploads them. For
one step alone: `jobs` makes the canonical images, `write` the formats. `MODES` says what each encoding mode stores.
"""

from loaderbench.formats.modes import MODES, deviation
from loaderbench.formats.preparation import Prepared, estimate, prepare, publish
from loaderbench.formats.writing import PrepareError, jobs, write

__all__ = ["MODES", "PrepareError", "Prepared", "deviation", "estimate", "jobs", "prepare", "publish", "write"]
