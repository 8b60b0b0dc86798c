"""The folder for temporary files: writable, and with a path short enough for sockets."""

import os
import tempfile
from pathlib import Path

from loaderbench.machine.disk import obstacle
from loaderbench.machine.errors import FixableError

_SOCKET_PATH_BYTES = 107
"""Longest path of a socket, without the zero at its end; see unix(7)."""
_LONGEST_NAME = "/torch-shm-dir-XXXXXX/manager.sock"
"""Longest name that torch and multiprocessing give a socket below the folder."""
LONGEST_BYTES = _SOCKET_PATH_BYTES - len(_LONGEST_NAME)
_USUAL = ("/tmp", "/var/tmp")  # noqa: S108 - the folders that the system has for it


def settle(spare: Path) -> None:
    """Let this process and its children use TMPDIR, or the system's folder, or `spare`: the first that suits.

    In a folder with a longer path than `LONGEST_BYTES`, torch's workers cannot open their sockets, and hang. Raises
    FixableError.
    """
    wished = [Path(folder) for folder in (os.environ.get("TMPDIR"), *_USUAL) if folder]
    for folder in (*wished, spare.absolute()):
        fits = len(os.fsencode(folder)) <= LONGEST_BYTES and folder.is_absolute()
        if fits and (folder == spare.absolute() or folder.is_dir()) and not obstacle(folder):
            folder.mkdir(parents=True, exist_ok=True)
            os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
            return
    raise FixableError(
        f"no folder for temporary files: set TMPDIR to one that can be written and has a path of at most "
        f"{LONGEST_BYTES} characters"
    )
