"""Where a reconciler has the content of assets and downloads from: a cache on the device, which is filled."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from .errors import AssetMissing
from .resources import Asset, Download

__all__ = ["Assets", "NoAssets"]


class Assets(Protocol):
    """Content by its hash, as files of the agent's own. They are copied, never changed."""

    async def fetch(self, content: Asset | Download, *, resource: str) -> None:
        """Return once the whole of *content* is here, and its hash is right.

        Raise `NotReady`, with progress, while it is being fetched for *resource*: call again to go on. For an
        asset, raise `AssetMissing`, `AssetDamaged`, and `InvalidResource` for one that was never pushed; for
        a download, `DownloadFailed`, `DownloadRefused`, `PolicyRefused`; for both, `AssetsFull`.
        """
        ...

    def find(self, content: Asset | Download) -> Path | None:
        """Return the file that contains *content*; None where it is not here whole."""
        ...

    async def drop(self, content: Asset | Download) -> None:
        """Delete *content*: what was kept has turned out to be something else."""
        ...

    async def refuse_without_room(self, contents: Collection[Asset], *, resource: str) -> None:
        """Raise `AssetsFull` unless there is room here for all *contents* of an image at once."""
        ...

    async def let_go(self, contents: Collection[Asset]) -> None:
        """Stop keeping *contents* for the image that consists of them. What is also needed as a file
        stays."""
        ...


class NoAssets:
    """For a place that no bus leads to."""

    async def fetch(self, content: Asset | Download, *, resource: str) -> None:
        """Raise `AssetMissing`: no asset can be fetched here."""
        raise AssetMissing(
            f"{content.summary} cannot be fetched here; have a device with a control plane do it",
            resource=resource,
        )

    def find(self, content: Asset | Download) -> Path | None:  # noqa: ARG002 - the others'
        return None

    async def drop(self, content: Asset | Download) -> None:
        """Do nothing: no asset is kept here."""

    async def refuse_without_room(self, contents: Collection[Asset], *, resource: str) -> None:
        """Do nothing: no asset is kept here, so none needs room."""

    async def let_go(self, contents: Collection[Asset]) -> None:
        """Do nothing: no asset is kept here."""
