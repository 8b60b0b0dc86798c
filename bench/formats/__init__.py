"""Turn canonical images into stored formats, verified and cached.

`prepare` makes all formats of a campaign, `estimate` says beforehand what that will take, `publish` uploads them.
"""

from loaderbench.formats.modes import deviation
from loaderbench.formats.preparation import Prepared, estimate, prepare, publish
from loaderbench.formats.writing import PrepareError

__all__ = ["PrepareError", "Prepared", "deviation", "estimate", "prepare", "publish"]
