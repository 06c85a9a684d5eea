"""All volumes of the device, by whatever reconciles volumes here."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from harmony_agent.plan.device import find_reconciler
from harmony_agent.store.ledger import Ledger
from harmony_core.errors import RequestFailed
from harmony_core.reconciler import Offers
from harmony_core.resources import Volume, resource_id
from harmony_core.volumes import ListsVolumes
from harmony_core.wire.replies import ListedVolume
from harmony_core.wire.times import rfc3339

__all__ = ["DeviceVolumes"]


@attrs.frozen(kw_only=True)
class DeviceVolumes:
    """Lists them, and says which Scores want each."""

    offers: Offers
    ledger: Ledger

    async def read(self) -> Sequence[ListedVolume]:
        """Return all volumes, by name. `RequestFailed` where nothing here keeps any, and what
        `ListsVolumes.list_volumes` raises."""
        reconciler: object = find_reconciler(self.offers, Volume.resource_type)
        if not isinstance(reconciler, ListsVolumes):
            raise RequestFailed("this device has no volumes: podman is not installed there")
        return [
            ListedVolume(
                name=each.name,
                created_at=rfc3339(each.created_at),
                size_bytes=each.size_bytes,
                used_by=each.used_by,
                scores=tuple(
                    sorted(self.ledger.holders(resource_id(Volume.resource_type, each.name)))
                ),
            )
            for each in await reconciler.list_volumes()
        ]
