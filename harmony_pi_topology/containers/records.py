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
        return self._before(found) + found.restarts

    async def record_restart(self, found: FoundContainer) -> None:
        """Record that Harmony is about to start *found*, which has ended: podman then forgets its own
        count."""
        await self._note(found, self.count(found) + 1)

    async def record_start(self, found: FoundContainer, now: FoundContainer) -> None:
        """Correct the record after Harmony was to start *found*, whose state is *now* this.

        If podman was quicker and started it, podman has counted that start and kept its count.
        """
        if now.id == found.id and now.restarts > found.restarts:
            await self._note(found, self._before(found) - 1 - found.restarts)

    async def forget(self, name: str) -> None:
        """Delete the record of the container *name*, which is gone."""
        await self._records.forget(_record(name))

    def _before(self, found: FoundContainer) -> int:
        """Return how often *found* was started again without podman counting it."""
        record = self._records.get(_record(found.name))
        if record is None or record["container"] != found.id:
            return 0
        return int(record["before"])

    async def _note(self, found: FoundContainer, before: int) -> None:
        await self._records.put(_record(found.name), {"container": found.id, "before": before})


def _record(name: str) -> str:
    return f"{resource_id(Container.resource_type, name)}#restarts"
