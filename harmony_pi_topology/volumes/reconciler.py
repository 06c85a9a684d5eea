"""Volumes, reconciled: the whole of it but for podman, so that every reconciler of them judges alike.

    look -> not there         -> recorded -> made, with our label -> looked at again
         -> ours, by its label -> left as it is, whatever is in it
         -> anybody else's     -> NotOurs, and left

    removal: its Score says delete_data -> deleted with its data, once no container has it
             else                       -> kept with its data, and told

A volume is never made anew while it is there: nothing that its Score could say is worth its data. What is
recorded of ``volume:NAME`` is whether its data goes with it (`DELETES_DATA`).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Protocol

import attrs

from harmony_core.change import Change
from harmony_core.errors import DidNotStick, InUse, InvalidResource, NotOurs
from harmony_core.reconciler import DELETES_DATA, MemoryRecords, Records
from harmony_core.resources import Volume, VolumePresent, resource_id
from harmony_core.steps import Changed, Created, DeletedData, KeptVolume, Step
from harmony_core.wire.times import rfc3339
from harmony_pi_topology.common.gather import gather_results, name_resource
from harmony_pi_topology.containers.podman_reply import FoundVolume
from harmony_pi_topology.containers.spec import RESOURCE_LABEL

__all__ = ["VolumeStore", "Volumes"]


class VolumeStore(Protocol):
    """What the rules need of podman."""

    async def look(self, name: str) -> FoundVolume | None: ...

    async def make(self, name: str, labels: Mapping[str, str]) -> None: ...

    async def users(self, name: str) -> Collection[str]:
        """Return the names of the containers that have it, running or not."""
        ...

    async def remove(self, name: str) -> None:
        """Delete the volume with its data; one that is gone is fine. Raise `InUse` where a container has
        it."""


class Volumes:
    """The verbs of a `Reconciler` of volumes."""

    def __init__(self, store: VolumeStore, records: Records | None = None) -> None:
        self._store = store
        self._records = records if records is not None else MemoryRecords()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @property
    def resource_class(self) -> type[Volume]:
        return Volume

    async def converge(
        self, resources: Sequence[Volume], *, apply: bool
    ) -> Sequence[Change | Exception]:
        results = await gather_results(resources, partial(self._converge, apply=apply))
        return [
            name_resource(result, each.id) for each, result in zip(resources, results, strict=True)
        ]

    async def observe(self, key: str) -> VolumePresent | None:
        return self._state(await self._store.look(key))

    async def remove(self, keys: Sequence[str], *, apply: bool) -> Sequence[Change | Exception]:
        """Remove *keys*. The data stays, unless the Score says otherwise."""
        results = await gather_results(keys, partial(self._remove, apply=apply))
        return [name_resource(result, _id(key)) for key, result in zip(keys, results, strict=True)]

    async def _converge(self, volume: Volume, *, apply: bool) -> Change:
        async with self._locks[volume.name]:
            found = await self._store.look(volume.name)
            if found is not None:
                _refuse_strangers(found)
                _refuse_other_labels(found, volume)
            record = self._records.get(volume.id)
            steps: tuple[Step, ...] = () if found is not None else (Created(),)
            before = self._state(found)
            had = bool(record[DELETES_DATA]) if record is not None else volume.delete_data
            if found is not None and had != volume.delete_data:
                steps = (Changed("delete_data", _word(had), _word(volume.delete_data)),)
            if apply:
                await self._records.put(volume.id, {DELETES_DATA: volume.delete_data})
            if before is not None:
                after = attrs.evolve(before, deletes_data=volume.delete_data)
                return Change(resource=volume.id, steps=steps, before=before, after=after)
            if not apply:
                return Change(resource=volume.id, steps=steps)
            labels = {**volume.labels, RESOURCE_LABEL: volume.id}
            await self._store.make(volume.name, labels)
            now = await self._store.look(volume.name)
            if now is None or dict(now.labels) != labels:
                raise DidNotStick(
                    f"volume {volume.name}",
                    field="labels",
                    wanted=str(labels),
                    found="no volume" if now is None else str(dict(now.labels)),
                    remedy="look at what else makes or removes volumes here: podman events",
                )
            return Change(resource=volume.id, steps=steps, after=self._state(now))

    async def _remove(self, name: str, *, apply: bool) -> Change:
        async with self._locks[name]:
            rid = _id(name)
            found, record = await self._store.look(name), self._records.get(rid)
            before = self._state(found)
            if found is None or record is None:
                if found is not None:
                    _refuse_strangers(found)
                if apply:
                    await self._records.forget(rid)
                return Change(resource=rid, before=before, after=before)
            _refuse_strangers(found)
            if not record[DELETES_DATA]:
                if apply:
                    await self._records.forget(rid)
                return Change(
                    resource=rid, steps=(KeptVolume(name=name),), before=before, after=before
                )
            if apply:
                await self._delete(found)
                await self._records.forget(rid)
            return Change(resource=rid, steps=(DeletedData(name),), before=before)

    def _state(self, found: FoundVolume | None) -> VolumePresent | None:
        if found is None:
            return None
        record = self._records.get(_id(found.name)) or {}
        return VolumePresent(
            created_at=rfc3339(found.created_at), deletes_data=bool(record.get(DELETES_DATA))
        )

    async def _delete(self, found: FoundVolume) -> None:
        """Raise `InUse` while a container has the volume: its data is in use until then."""
        name = found.name
        if users := sorted(await self._store.users(name)):
            raise InUse(
                f"volume {name} is not deleted while a container has it: {', '.join(users)}; remove that, or "
                "the Score that makes it"
            )
        await self._store.remove(name)
        now = await self._store.look(name)
        if now is not None and now.created_at == found.created_at:
            raise DidNotStick(
                f"volume {name}",
                field="state",
                wanted="deleted",
                found="still there",
                remedy=f"delete it by hand (podman volume rm {name})",
            )


def _refuse_strangers(found: FoundVolume) -> None:
    if found.labels.get(RESOURCE_LABEL) != _id(found.name):
        raise NotOurs(
            f"a volume {found.name} is there that Harmony did not make; containers may see it as it is, "
            "without a VolumeScore; or choose another name, or remove it with its data (podman volume rm "
            f"{found.name})"
        )


def _refuse_other_labels(found: FoundVolume, volume: Volume) -> None:
    labels = {name: value for name, value in found.labels.items() if name != RESOURCE_LABEL}
    if labels != volume.labels:
        raise InvalidResource(
            f"labels: volume {volume.name} was made with {labels or 'none'}, and podman cannot change them "
            "without its data; write these, or choose another name"
        )


def _word(deletes: bool) -> str:
    return "yes" if deletes else "no"


def _id(name: str) -> str:
    return resource_id(Volume.resource_type, name)
