"""A home folder for a user that has none, or that cannot write to it: libraries look for one as they are imported."""

import os
from pathlib import Path

from loaderbench.machine.disk import obstacle


def settle(spare: Path) -> None:
    """Let HOME name the folder `spare` for this process and its children, if the user's home folder does not exist.

    If it exists and cannot be written, it stays, for what is read there. Then matplotlib alone, which writes, gets
    `spare`.
    """
    variable = "MPLCONFIGDIR"
    try:
        home = Path.home()
    except RuntimeError:  # HOME is not set, and the user has no entry in the passwd database
        variable = "HOME"
    else:
        if not home.is_dir():
            variable = "HOME"
        elif variable in os.environ or not obstacle(home):
            return
    spare.mkdir(parents=True, exist_ok=True)
    os.environ[variable] = str(spare.absolute())
