"""What is at hand while a bundle is being loaded: it is asked first, and then the bus, or a registry."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from harmony_core.nearby import NearbyImages

from .assets import ChunkSource

if TYPE_CHECKING:
    from .bundle import Bundle  # most devices never load one

__all__ = ["AtHand"]


class AtHand:
    """Where pieces of assets come from, and images: a bundle while there is one, else *bus*."""

    def __init__(self, bus: ChunkSource) -> None:
        self._bus = bus
        self._bundle: Bundle | None = None
        self.images = NearbyImages()

    async def fetch_chunk(self, key: str) -> bytes | None:
        """As `ChunkSource.fetch_chunk`."""
        if self._bundle is not None and (found := await self._bundle.fetch_chunk(key)) is not None:
            return found
        return await self._bus.fetch_chunk(key)

    @contextmanager
    def having(self, bundle: Bundle) -> Generator[None]:
        """Have *bundle* at hand within the block."""
        self._bundle = self.images.blobs = bundle
        try:
            yield
        finally:
            self._bundle = self.images.blobs = None
