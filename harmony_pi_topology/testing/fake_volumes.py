"""Volumes in memory, those that the containers of a `FakeContainers` see: by the real rules."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from harmony_core.change import Change
from harmony_core.errors import InUse
from harmony_core.reconciler import MemoryRecords, Records
from harmony_core.resources import Volume, VolumePresent
from harmony_core.volumes import FoundUse
from harmony_pi_topology.containers.podman_reply import FoundVolume
from harmony_pi_topology.volumes.reconciler import Volumes

from .fake_containers import FakeAttachments
from .fake_reconciler import FakeReconciler

__all__ = ["FakeVolumes"]

_BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


class FakeVolumes(FakeReconciler):
    """A `VolumeHost`'s reconciler."""

    def __init__(
        self, device: FakeAttachments | None = None, *, records: Records | None = None
    ) -> None:
        super().__init__()
        self.device = device or FakeAttachments()
        store = _Store(self.device)
        self._volumes = Volumes(store, records if records is not None else MemoryRecords())

    @property
    def resource_class(self) -> type[Volume]:
        return Volume

    async def converge(
        self, resources: Sequence[Volume], *, apply: bool
    ) -> Sequence[Change | Exception]:
        """As `Reconciler.converge`."""
        return await self._volumes.converge(resources, apply=apply)

    async def observe(self, key: str) -> VolumePresent | None:
        """As `Reconciler.observe`."""
        return await self._volumes.observe(key)

    async def remove(self, keys: Sequence[str], *, apply: bool) -> Sequence[Change | Exception]:
        """As `Reconciler.remove`."""
        return await self._volumes.remove(keys, apply=apply)

    async def list_volumes(self) -> Sequence[FoundUse]:
        """As `ListsVolumes.list_volumes`: nothing is in them."""
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
