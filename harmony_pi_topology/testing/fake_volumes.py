"""Volumes in memory, those that the containers of a `FakeContainers` see: by the real rules."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from harmony_core.errors import InUse
from harmony_core.reconciler import Records
from harmony_core.volumes import FoundUse
from harmony_pi_topology.containers.podman_reply import FoundVolume
from harmony_pi_topology.volumes.reconciler import Volumes

from .fake_containers import FakeAttachments
from .fake_reconciler import FakeReconciler

__all__ = ["FakeVolumes"]

_BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


class FakeVolumes(FakeReconciler, Volumes):
    """A `VolumeHost`'s reconciler."""

    def __init__(
        self, device: FakeAttachments | None = None, *, records: Records | None = None
    ) -> None:
        FakeReconciler.__init__(self)
        self.device = device or FakeAttachments()
        Volumes.__init__(self, _Store(self.device), records)

    async def list_volumes(self) -> Sequence[FoundUse]:
        """Return all volumes, with nothing in them."""
        return [
            FoundUse(
                name=name,
                created_at=each.created_at,
                size_bytes=0,
                used_by=tuple(self.device.users_of_volume(name)),
            )
            for name, each in sorted(self.device.volumes.items())
        ]


class _Store:
    """A `VolumeStore` over a dictionary."""

    def __init__(self, device: FakeAttachments) -> None:
        self._device = device
        self._made = 0

    async def look(self, name: str) -> FoundVolume | None:
        return self._device.volumes.get(name)

    async def make(self, name: str, labels: Mapping[str, str]) -> None:
        self._made += 1
        created_at = _BEGINNING + timedelta(seconds=self._made)
        made = FoundVolume(name=name, labels=dict(labels), created_at=created_at)
        self._device.volumes[name] = made

    async def users(self, name: str) -> Collection[str]:
        return self._device.users_of_volume(name)

    async def remove(self, name: str) -> None:
        if users := self._device.users_of_volume(name):
            raise InUse(f"volume {name} is used by {', '.join(users)}; remove them")
        self._device.volumes.pop(name, None)
