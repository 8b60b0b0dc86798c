"""Turn canonical images into stored formats, verified and cached.

`prepare` makes all formats of a campaign, `estimate` says beforehand what that will take, `publish` uploads them.
`write_format` makes a single one.
"""

from loaderbench.formats.modes import deviation
from loaderbench.formats.preparation import Prepared, estimate, prepare, publish, write_format
from loaderbench.formats.writing import PrepareError

__all__ = ["PrepareError", "Prepared", "deviation", "estimate", "prepare", "publish", "write_format"]
