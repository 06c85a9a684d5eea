"""Assets, on the operator's side: files that are too large for a manifest, and are put beside it.

a file -> its hash, in a Score -> a key, as the Score is pushed -> its pieces, encrypted, into the bucket
"""

from __future__ import annotations

from .image import ImageArchive, read_image
from .local import read_asset
from .tree import read_tree

__all__ = ["ImageArchive", "read_asset", "read_image", "read_tree"]
