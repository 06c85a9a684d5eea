"""Images that are at hand beside registries: in a bundle that is being loaded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import attrs

__all__ = ["Blobs", "NearbyImages"]


class Blobs(Protocol):
    """What images consist of: layers, configurations, manifests and indexes, each by the hash of its content.
    Whoever reads compares that."""

    def find_size(self, digest: str) -> int | None:
        """Return how many bytes the blob ``sha256:…`` has; None where it is not here."""
        ...

    def read(self, digest: str) -> Iterator[bytes]:
        """Yield the content of the blob, in parts. Raise OSError. May be called in any thread."""
        ...


@attrs.define
class NearbyImages:
    """Where images are looked for before their registry is asked."""

    blobs: Blobs | None = None
    """None while there are none."""

    def find(self, digest: str | None) -> Blobs | None:
        """Return the source that has the image of that *digest*; None where its registry is to be asked."""
        if self.blobs is None or digest is None or self.blobs.find_size(digest) is None:
            return None
        return self.blobs
