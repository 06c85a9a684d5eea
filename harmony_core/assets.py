"""Where a reconciler has the content of assets from: a cache on the device, filled from the bus."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from .errors import AssetMissing
from .resources import Asset

__all__ = ["Assets", "NoAssets"]


class Assets(Protocol):
    """Content by its hash, as files of the agent's own. They are copied, never changed."""

    async def fetch(self, asset: Asset, *, resource: str) -> None:
        """Return once the whole content of *asset* is here, and is what its hash says.

        `NotReady`, with progress, while it is being fetched for *resource*: asking again goes on with it.
        `AssetMissing`, `AssetDamaged`, `AssetsFull`, and `InvalidResource` for one that was never pushed.
        """
        ...

    def find(self, asset: Asset) -> Path | None:
        """Return the file that has the content of *asset*; None where it is not here whole."""
        ...

    async def drop(self, asset: Asset) -> None:
        """Keep nothing of *asset*: what was kept has turned out to be something else."""
        ...


class NoAssets:
    """For a place that no bus leads to."""

    async def fetch(self, asset: Asset, *, resource: str) -> None:
        """As `Assets.fetch`: there is none."""
        raise AssetMissing(
            f"{asset.summary} cannot be fetched here; have a device with a control plane do it",
            resource=resource,
        )

    def find(self, asset: Asset) -> Path | None:  # noqa: ARG002 - the others'
        """As `Assets.find`."""
        return None

    async def drop(self, asset: Asset) -> None:
        """As `Assets.drop`."""
