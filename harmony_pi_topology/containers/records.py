"""How often a container was started again, as Kubernetes counts it: by whomever, until it is made anew.

podman counts its own restarts only, and from nothing again when somebody else starts the container: in a
crash loop, which the agent keeps, just when the number matters. So what was lost is kept in a record.
"""

from __future__ import annotations

from harmony_core.reconciler import Records
from harmony_core.resources import Container, resource_id

from .podman_reply import FoundContainer

__all__ = ["ContainerRestarts"]


class ContainerRestarts:
    """Those of one device. Reading is free; each start of ours that follows an end is one write."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def count(self, found: FoundContainer) -> int:
        """Return how often *found* was started again."""
        record = self._records.get(_record(found.name))
        if record is None or record["container"] != found.id:
            return found.restarts
        return int(record["before"]) + found.restarts

    async def record_restart(self, found: FoundContainer) -> None:
        """*found*, which has ended, is about to be started by us: podman forgets what it has counted."""
        record = {"container": found.id, "before": self.count(found) + 1}
        await self._records.put(_record(found.name), record)

    async def record_start(self, found: FoundContainer, now: FoundContainer) -> None:
        """*found* was to be started by us, and is *now* so: where podman was quicker, it has counted that."""
        if now.id == found.id and now.restarts > found.restarts:
            before = self.count(found) - 1 - found.restarts
            await self._records.put(_record(found.name), {"container": found.id, "before": before})

    async def forget(self, name: str) -> None:
        """The container *name* is gone."""
        await self._records.forget(_record(name))


def _record(name: str) -> str:
    return f"{resource_id(Container.resource_type, name)}#restarts"
