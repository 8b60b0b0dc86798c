"""Name data that is no folder of images, and what to pass instead."""

from collections.abc import Iterable

_ORIGINALS = "loaderbench writes the formats itself: name the images that it was made from"
_KINDS = {
    ".beton": ("FFCV's format", _ORIGINALS),
    "index.json": ("LitData's format, or another index of chunks", _ORIGINALS),
    ".mds": ("MosaicML's streaming format", _ORIGINALS),
    ".tfrecord": ("TensorFlow's format", _ORIGINALS),
    ".rec": ("MXNet's format", _ORIGINALS),
    ".mdb": ("an LMDB database", "write its images as files in class folders first"),
    ".lmdb": ("an LMDB database", "write its images as files in class folders first"),
    ".mat": ("a MATLAB file", "write its images as files in class folders first"),
    ".h5": ("an HDF5 file", "write its images as files in class folders first"),
    ".hdf5": ("an HDF5 file", "write its images as files in class folders first"),
    ".npz": ("NumPy arrays", "write them as image files in class folders first"),
    ".npy": ("NumPy arrays", "write them as image files in class folders first"),
    "-ubyte": ("MNIST's format", "write its images as files in class folders first"),
    "-ubyte.gz": ("MNIST's format", "write its images as files in class folders first"),
    ".arrow": ("Hugging Face's cache", "write it as Parquet, with dataset.to_parquet, and name that file"),
}
"""What files are whose names end so, and what to do with them."""


def advice(names: Iterable[str]) -> str:
    """Return what files of these names are and what to pass instead; empty if that is not known."""
    for name in sorted(names):
        for end, (what, instead) in _KINDS.items():
            if name.lower().endswith(end):
                return f"{name} is {what}; {instead}"
    return ""
