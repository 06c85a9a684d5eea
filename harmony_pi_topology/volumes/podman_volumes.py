"""Volumes of podman: the reconciler behind `VolumeHost`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

from harmony_core.errors import TimedOut
from harmony_core.reconciler import Availability, OnChange, Records
from harmony_core.volumes import FoundUse
from harmony_pi_topology.containers.podman import DEFAULT_URL, Podman, can_be_a_name
from harmony_pi_topology.containers.podman_reply import FoundVolume

from .reconciler import Volumes

__all__ = ["PodmanVolumes"]


class PodmanVolumes(Volumes):
    """A `Reconciler` of `Volume`. podman tells nobody of its volumes: what changed is found by looking."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        records: Records | None = None,
        answer_within_s: float = 60.0,
    ) -> None:
        self._podman = Podman(url, answer_within_s=answer_within_s)
        super().__init__(_Store(self._podman), records)

    async def list_volumes(self) -> Sequence[FoundUse]:
        """As `ListsVolumes.list_volumes`."""
        found = await self._podman.list_volumes()
        sizes: Mapping[str, int] = {}
        with suppress(TimedOut):  # so many files that counting takes too long
            sizes = await self._podman.volume_sizes()
        return [
            FoundUse(
                name=each.name,
                created_at=each.created_at,
                size_bytes=sizes.get(each.name),
                used_by=tuple(sorted(await self._podman.list_users("volume", each.name))),
            )
            for each in found
        ]

    async def availability(self) -> Availability:
        """As `Reconciler.availability`. Does not wake podman, but when it did not answer last time."""
        reason = await self._podman.is_expected_to_answer()
        return Availability(available=reason is None, reason=reason or "")

    async def watch(self, keys: Collection[str], on_change: OnChange) -> None:
        """Never tells anything."""

    async def close(self) -> None:
        """As `Reconciler.close`."""
        self._podman.close()


class _Store:
    """A `VolumeStore`."""

    def __init__(self, podman: Podman) -> None:
        self._podman = podman

    async def look(self, name: str) -> FoundVolume | None:
        return await self._podman.inspect_volume(name) if can_be_a_name(name) else None

    async def make(self, name: str, labels: Mapping[str, str]) -> None:
        await self._podman.create_volume(name, {}, labels)

    async def users(self, name: str) -> Collection[str]:
        return await self._podman.list_users("volume", name)

    async def remove(self, name: str) -> None:
        await self._podman.remove_volume(name)
