"""Read a NumPy file of arrays that may be a stranger's: bounded, and with one error for whatever is wrong with it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from loaderbench.machine.files import open_plain
from loaderbench.machine.text import one_line, printable

MOST_BYTES, _MOST_UNPACKED_BYTES = 128 << 20, 512 << 20


@contextmanager
def opened(path: Path) -> Iterator[Mapping[str, NDArray[np.generic]]]:
    """Give the arrays of a file to a block that makes raw times of them.

    Raises FileNotFoundError, or ValueError if the file is too large or none that loaderbench writes, and for any error
    of the block.
    """
    with open_plain(path, MOST_BYTES) as file:
        try:
            with ZipFile(file) as packed:
                unpacked_bytes = sum(array.file_size for array in packed.infolist())
            if unpacked_bytes > _MOST_UNPACKED_BYTES:
                raise ValueError(f"it unpacks to {unpacked_bytes >> 20:,} MiB")  # noqa: TRY301
            file.seek(0)
            with np.load(file) as arrays:
                yield arrays
        except Exception as error:
            raise ValueError(f"{printable(path)} holds no raw times: {one_line(str(error))}") from error
