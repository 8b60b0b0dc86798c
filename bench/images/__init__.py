"""Turn whatever `--data` names into canonical images, which every format stores.

`find` lists the images, wherever they come from: a folder, a bucket, an archive, or the synthetic set. `canonical`
decodes, resizes and encodes each of them once. `CanonicalImages` reads the result.
"""

from loaderbench.images.canonical_build import canonical
from loaderbench.images.canonical_form import CanonicalSettings
from loaderbench.images.canonical_store import CanonicalImages
from loaderbench.images.sources import find
from loaderbench.images.tree import ImageTree, Rejected, SourceError

__all__ = ["CanonicalImages", "CanonicalSettings", "ImageTree", "Rejected", "SourceError", "canonical", "find"]
