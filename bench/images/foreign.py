"""Name data that is no folder of images, and what to pass instead."""

import re
from collections.abc import Iterable

_ORIGINALS = "loaderbench writes the formats itself: name the images that it was made from"
_WRITE = (
    "write its images as files in class folders first, or name a torch dataset that reads it: "
    "DATA=my_project.data:make_dataset"
)
_CONVERT = "convert such files to JPEG or PNG first, for example: magick mogrify -format png FILES"
_UNPACK = "unpack it, and name its folder"
_KINDS = {
    (".beton",): ("FFCV's format", _ORIGINALS),
    ("index.json",): ("LitData's format, or another index of chunks", _ORIGINALS),
    (".mds",): ("MosaicML's streaming format", _ORIGINALS),
    (".tfrecord", ".tfrec"): ("TensorFlow's format", _ORIGINALS),
    (".rec",): ("MXNet's format", _ORIGINALS),
    (".mdb", ".lmdb"): ("an LMDB database", _WRITE),
    (".mat",): ("a MATLAB file", _WRITE),
    (".h5", ".hdf5"): ("an HDF5 file", _WRITE),
    (".npz", ".npy"): ("NumPy arrays", _WRITE),
    ("-ubyte", "-ubyte.gz"): ("MNIST's format", _WRITE),
    (".bin",): ("a file of bare pixels, as STL-10 and the binary version of CIFAR have", _WRITE),
    (".pkl", ".pickle", ".pt", ".pth"): ("a file of Python objects, which may run programs", _WRITE),
    (".arrow",): ("Hugging Face's cache", "write it as Parquet, with dataset.to_parquet, and name that file"),
    (".heic", ".heif", ".avif", ".jxl", ".jp2", ".gif", ".jfif", ".dng", ".cr2", ".nef"): (
        "an image of a kind that ImageFolder does not read",
        _CONVERT,
    ),
    (".dcm", ".nii", ".nii.gz", ".svs"): ("a medical image", _CONVERT.partition(",")[0]),
    (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"): ("an archive", "name it, or the folder that holds it"),
    (".7z", ".rar", ".tar.zst", ".zst", ".gz", ".bz2", ".xz", ".lz4"): ("an archive of another kind", _UNPACK),
    (".parquet",): ("a Parquet file", "name the folder that holds it"),
}
"""What files are whose names end so, and what to do with them."""
_SHARD = re.compile(r"-\d+-of-\d+$")


def advice(names: Iterable[str]) -> str:
    """Return what files of these names are and what to pass instead; empty if that is not known."""
    for name in sorted(names):
        for ends, (what, instead) in _KINDS.items():
            if _SHARD.sub("", name.lower()).endswith(ends):
                return f"{name} is {what}; {instead}"
    return ""
