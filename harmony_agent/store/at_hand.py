"""What is at hand while a bundle is being loaded: it is asked before bus, web and registry."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from harmony_core.errors import BusUnreachable
from harmony_core.nearby import NearbyImages

from .assets import ChunkSource

if TYPE_CHECKING:
    from .bundle import Bundle  # most devices never load one

__all__ = ["AtHand"]


class AtHand:
    """What a bundle has, while there is one; pieces of assets that it has not are *bus*'s."""

    def __init__(self, bus: ChunkSource) -> None:
        self._bus = bus
        self._bundle: Bundle | None = None
        self.images = NearbyImages()

    async def fetch_chunk(self, key: str) -> bytes | None:
        if self._bundle is not None and (found := await self._bundle.fetch_chunk(key)) is not None:
            return found
        return await self._bus.fetch_chunk(key)

    def find_download(self, sha256: str) -> int | None:
        return None if self._bundle is None else self._bundle.find_download(sha256)

    async def read_download(self, sha256: str, begin: int, size_bytes: int) -> bytes:
        if self._bundle is None:
            raise BusUnreachable("the bundle is not open any more; load it again")
        return await self._bundle.read_download(sha256, begin, size_bytes)

    @contextmanager
    def having(self, bundle: Bundle) -> Generator[None]:
        """Make *bundle* available within the block."""
        self._bundle = self.images.blobs = bundle
        try:
            yield
        finally:
            self._bundle = self.images.blobs = None
