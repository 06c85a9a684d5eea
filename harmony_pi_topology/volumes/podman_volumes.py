"""Volumes of podman: the reconciler behind `VolumeHost`."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from harmony_core.errors import TimedOut, VolumeBusy, VolumeMissing
from harmony_core.reconciler import Availability, MemoryRecords, OnChange, Records
from harmony_core.volumes import ArchivedVolume, FoundUse, LoadedVolume, TellBytes
from harmony_pi_topology.containers.podman import DEFAULT_URL, Podman, can_be_a_name
from harmony_pi_topology.containers.podman_reply import FoundContainer, FoundVolume
from harmony_pi_topology.containers.stops import ContainerStops

from .data import Settle, VolumeData, VolumeDisk
from .reconciler import Volumes

__all__ = ["PodmanVolumes"]


class PodmanVolumes(Volumes):
    """A `Reconciler` of `Volume`. podman tells nobody of its volumes: what changed is found by looking.

    ``root`` is where the device's files are read and written.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        records: Records | None = None,
        root: str | Path = "/",
        answer_within_s: float = 60.0,
    ) -> None:
        records = records if records is not None else MemoryRecords()
        self._podman = Podman(url, answer_within_s=answer_within_s)
        self._disk = VolumeDisk()
        self._data = VolumeData(_Holders(self._podman, Path(root)), self._disk, records)
        super().__init__(_Store(self._podman), records)

    async def save_volume(
        self, name: str, into: Path, *, stop: bool, settle: Settle, tell: TellBytes
    ) -> ArchivedVolume:
        return await self._data.save(name, into, stop=stop, settle=settle, tell=tell)

    async def load_volume(
        self, name: str, archive: Path, *, keep_previous: bool, settle: Settle
    ) -> LoadedVolume:
        return await self._data.load(name, archive, keep_previous=keep_previous, settle=settle)

    async def recover_volumes(self) -> str:
        return await self._data.recover()

    async def list_volumes(self) -> Sequence[FoundUse]:
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
        """Return whether podman is expected to answer. Start podman only if it did not answer last time."""
        reason = await self._podman.is_expected_to_answer()
        return Availability(available=reason is None, reason=reason or "")

    async def watch(self, keys: Collection[str], on_change: OnChange) -> None:
        """Return at once: volumes are not watched."""

    async def close(self) -> None:
        self._disk.close()
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


class _Holders:
    """A `VolumeHolders`."""

    def __init__(self, podman: Podman, root: Path) -> None:
        self._podman = podman
        self._root = root
        self._stops = ContainerStops(podman)

    async def find_place(self, volume: str) -> Path:
        found = await self._podman.inspect_volume(volume) if can_be_a_name(volume) else None
        if found is None:
            raise VolumeMissing(
                f"there is no volume {volume} on this device; make it first (push a VolumeScore of that "
                "name), or correct the name: harmony volumes AGENT lists them"
            )
        if not found.is_plain or not found.place:
            raise VolumeBusy(
                f"volume {volume} was made with options of its own, so that its data may be elsewhere; save "
                "and load it there by hand"
            )
        return self._root / found.place.lstrip("/")

    async def list_holders(self, volume: str) -> Sequence[FoundContainer]:
        found = [
            await self._podman.inspect(name)
            for name in sorted(await self._podman.list_users("volume", volume))
        ]
        return [each for each in found if each is not None]

    async def look(self, name: str) -> FoundContainer | None:
        return await self._podman.inspect(name)

    async def pause(self, found: FoundContainer) -> None:
        await self._podman.pause(found.id, found.name)

    async def stop(self, found: FoundContainer) -> None:
        now: FoundContainer | None = found
        while now is not None and now.id == found.id:
            if (pending := await self._stops.stop(now)) is None:
                return
            await asyncio.sleep(pending.look_again_s)
            now = await self._podman.inspect(found.name)

    async def end(self, found: FoundContainer) -> None:
        if await self._stops.end(found):
            return
        # One that has ended by itself, and that podman does not start again, is never called stopped.
        now = await self._podman.inspect(found.name)
        if now is not None and now.id == found.id and now.alive:
            raise TimedOut(f"{found.name} could not be stopped; it is tried again")

    async def start(self, found: FoundContainer) -> None:
        await self._podman.start(found.id, found.name, paused=found.status == "paused")
