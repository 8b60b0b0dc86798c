"""A home folder for a user that has none, because libraries look for one as they are imported."""

import os
from pathlib import Path


def settle(spare: Path) -> None:
    """Let HOME name the folder `spare` for this process and its children, if the user's home folder does not exist."""
    try:
        if Path.home().is_dir():
            return
    except RuntimeError:  # HOME is not set, and the user has no entry in the passwd database
        pass
    spare.mkdir(parents=True, exist_ok=True)
    os.environ["HOME"] = str(spare.absolute())
