"""What the bucket has of assets, who needs it, and having the server forget what nobody does.

Needed is what any manifest names that somebody can still be given: of each device all that the bucket still
has, and what this home has kept to roll back to; of each class its newest generations, and those of its gate.
Nothing goes by its age: a device that was off for months finds what its manifest names.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import attrs
from nats.aio.client import Client

from harmony_control.bus.classes import class_key
from harmony_control.bus.connection import Bucket
from harmony_control.store.home import Home
from harmony_core.errors import ManifestRejected, StoreError, UsageError
from harmony_core.resources import Asset
from harmony_core.wire import strict_json
from harmony_core.wire.assets import CHUNK_BYTES, asset_id, find_assets, key_prefix
from harmony_core.wire.class_manifest import CLASS_TYPE
from harmony_core.wire.envelope import PAYLOAD_MAX_BYTES, PAYLOAD_TYPE, split_envelope
from harmony_core.wire.gate import GATE_TYPE
from harmony_core.wire.names import ASSETS, DESIRED_CLASS, DESIRED_STATE, ROLLOUT

from .upload import list_stored

__all__ = ["FleetAssets", "StoredAsset", "list_assets", "prune", "remove"]

_SHARDS = "0123456789abcdef"
_GENERATIONS_KEPT = 8
"""Of a class, the newest; as many as the bucket has of a device."""
_YOUNG_S = 86_400.0
"""What is younger may be of a push that goes on right now."""


@attrs.frozen(kw_only=True)
class StoredAsset:
    """One asset in the bucket."""

    id: str
    pieces: frozenset[int]
    names: tuple[str, ...] = ()
    """What it is called in the manifests that name it."""
    needed_by: tuple[str, ...] = ()
    """Which manifests name it, such as ``pi-1`` or ``class kiosk``."""

    @property
    def most_bytes(self) -> int:
        """How much it takes at most; its last piece may be smaller than the others."""
        return len(self.pieces) * CHUNK_BYTES


class FleetAssets:
    """What the server of a fleet has of assets."""

    def __init__(self, home: Home, client: Client) -> None:
        self._home = home
        self._client = client

    async def list(self) -> list[StoredAsset]:
        """Return all assets on the server, with who needs them. `StoreError` where a manifest cannot be
        read."""
        return await list_assets(self._home, self._client)

    async def prune(self, found: Iterable[StoredAsset]) -> Sequence[StoredAsset]:
        """Delete those of *found* that nobody needs and that are a day old; return them. See `prune`."""
        return await prune(self._client, found)

    async def remove(self, name: str) -> int:
        """Delete the asset whose id is *name*, whoever needs it; return how many pieces it had. `UsageError`
        where there is none."""
        return await remove(self._client, name)


async def list_assets(home: Home, client: Client) -> list[StoredAsset]:
    """Return all that is in the bucket, with who needs it. `StoreError` where a manifest cannot be read."""
    bucket = Bucket(client, ASSETS)
    pieces: dict[str, set[int]] = {}
    for shard in _SHARDS:
        for key in await bucket.list_keys(f"{shard}.>"):
            _, _, rest = key.partition(".")
            name, _, number = rest.partition(".")
            if number.isdecimal():
                pieces.setdefault(name, set()).add(int(number))
    # Only now: what a push has put there since is not among them.
    needed = await _find_needed(home, client)
    return [
        StoredAsset(
            id=name,
            pieces=frozenset(each),
            names=tuple(sorted({asset.name for asset, _ in needed.get(name, ())})),
            needed_by=tuple(sorted({by for _, by in needed.get(name, ())})),
        )
        for name, each in sorted(pieces.items())
    ]


async def prune(client: Client, found: Iterable[StoredAsset]) -> list[StoredAsset]:
    """Delete those of *found* that nobody needs and that are a day old. Return them.

    Raise `StoreError` where a part of one is still there afterwards.
    """
    bucket, pruned = Bucket(client, ASSETS), list[StoredAsset]()
    for each in found:
        if each.needed_by:
            continue
        newest = await bucket.get(f"{key_prefix(each.id)}.{max(each.pieces)}")
        if newest is not None and datetime.now(UTC) - newest.written_at < timedelta(
            seconds=_YOUNG_S
        ):
            continue
        await _erase(client, each.id)
        pruned.append(each)
    return pruned


async def remove(client: Client, name: str) -> int:
    """Delete the asset whose id is *name*, whoever needs it. Return how many pieces it had.

    Raise `UsageError` where there is none.
    """
    # What is no id could be a pattern.
    pieces = await list_stored(client, name) if name.isalnum() else set[int]()
    if not pieces:
        raise UsageError(f"there is no asset {name}; see: harmony assets list")
    await _erase(client, name)
    return len(pieces)


async def _erase(client: Client, name: str) -> None:
    await Bucket(client, ASSETS).erase(f"{key_prefix(name)}.*")
    if left := await list_stored(client, name):
        raise StoreError(
            f"{len(left)} pieces of {name} are there again: somebody is pushing it; look at it later"
        )


async def _find_needed(home: Home, client: Client) -> Mapping[str, list[tuple[Asset, str]]]:
    """Return, by the id of each asset that is needed, what it is and who names it."""
    needed: dict[str, list[tuple[Asset, str]]] = {}

    def note(envelope: bytes, payload_type: str, by: str) -> None:
        for asset in _read_assets(envelope, payload_type, by):
            needed.setdefault(asset_id(asset), []).append((asset, by))

    desired = Bucket(client, DESIRED_STATE)
    for agent_id in await desired.list_keys():
        for entry in await desired.history(agent_id):
            note(entry.value, PAYLOAD_TYPE, agent_id)
    classes = Bucket(client, DESIRED_CLASS)
    for name, generations in (await _find_generations(client)).items():
        for generation in sorted(generations):
            if (found := await classes.get(class_key(name, generation))) is not None:
                note(found.value, CLASS_TYPE, f"class {name}")
    for agent_id, envelope in await asyncio.to_thread(_read_kept, home):
        note(envelope, PAYLOAD_TYPE, agent_id)
    return needed


def _read_kept(home: Home) -> list[tuple[str, bytes]]:
    """Return the manifests that this home has kept, each with its device."""
    kept: list[tuple[str, bytes]] = []
    for agent_id in home.agents_pushed_to():
        own = [home.read_stored_manifest(agent_id), home.pending_manifest(agent_id)]
        kept += [(agent_id, each) for each in own if each is not None]
        kept += [(agent_id, each) for each in home.past_manifests(agent_id)]
    return kept


async def _find_generations(client: Client) -> dict[str, set[int]]:
    """Return which generations of each class a device may still get."""
    found: dict[str, set[int]] = {}
    for key in await Bucket(client, DESIRED_CLASS).list_keys():
        name, _, generation = key.rpartition(".")
        found.setdefault(name, set()).add(int(generation))
    gates = Bucket(client, ROLLOUT)
    for name, generations in found.items():
        kept = set(sorted(generations)[-_GENERATIONS_KEPT:])
        for entry in await gates.history(name):
            gate = _read(entry.value, GATE_TYPE, f"the gate of {name}")
            for field in ("generation", "stable_generation"):
                value = gate.get(field)
                if isinstance(value, int):
                    kept.add(value)
        found[name] = kept & generations
    return found


def _read_assets(envelope: bytes, payload_type: str, by: str) -> Iterator[Asset]:
    for asset in find_assets(dict(_read(envelope, payload_type, by))):
        if asset.key is not None:
            yield asset


def _read(envelope: bytes, payload_type: str, what: str) -> Mapping[str, object]:
    """Return the content of *envelope*, whoever has signed it: a forged one keeps more assets, and never
    fewer.

    Raise `StoreError` where it cannot be read: what it needs is not known then.
    """
    try:
        payload, _ = split_envelope(envelope, payload_type=payload_type)
        value = strict_json.loads(payload, max_bytes=PAYLOAD_MAX_BYTES)
    except ManifestRejected as error:
        raise StoreError(
            f"a manifest of {what} cannot be read, so that nobody knows what it needs, and nothing is "
            f"removed: {error.message}"
        ) from error
    return value if isinstance(value, dict) else {}
