"""Pushing: from Scores to a signed manifest in the bucket.

    stored envelope -> verify with our own key -> merge -> check -> sign -> own store -> compare-and-swap

Verified before merging: else whoever can write the bucket would get their Scores signed by us. The
generation is one more than the highest that anybody knows (the bucket, the device's report, our own store),
since a server that lost its last writes must not make a device refuse the next ones.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

import attrs
from nats.aio.client import Client

from harmony_core.actual_state import ActualState, from_json
from harmony_core.envelope import SigningKey, pinned, seal
from harmony_core.errors import (
    ManifestRejected,
    MissingCapability,
    RevisionConflict,
    StoreError,
    UnknownKind,
    UnsupportedVersion,
    UntrustedSignature,
    UsageError,
)
from harmony_core.manifest import (
    GENERATION_MAX,
    Manifest,
    SerializedScore,
    reinstate,
    target_of,
)
from harmony_core.ordering import graph_faults

from . import operator_key
from ._nats import Bucket
from .home import Home, checked_agent_id

__all__ = ["Change", "Pushed", "check_device", "push", "read_state"]

Change = Callable[[Mapping[str, SerializedScore]], Mapping[str, SerializedScore]]
"""From the entries of the manifest so far to those of the next one."""

TRIES = 20


@attrs.frozen(kw_only=True)
class Pushed:
    """What was put into the bucket."""

    generation: int
    entries: Mapping[str, SerializedScore]
    warnings: tuple[str, ...] = ()


async def read_state(client: Client, agent_id: str) -> ActualState | None:
    """What the device said last; None when it never said anything."""
    found = await Bucket(client, "actual-state").get(agent_id)
    return from_json(found.value, ActualState) if found is not None and found.value else None


async def push(home: Home, client: Client, agent_id: str, change: Change) -> Pushed:
    """Merge, sign and put. Raises `UntrustedSignature` for a bucket that somebody else wrote,
    `UnknownDependency` or `DependencyCycle`, and `StoreError`s."""
    checked_agent_id(agent_id)
    key = await asyncio.to_thread(operator_key.load, home)
    for _ in range(TRIES):
        try:
            return await _push_once(home, client, agent_id, change, key)
        except RevisionConflict:
            # Somebody pushed meanwhile: read, merge and sign again, not in step with them.
            await asyncio.sleep(random.uniform(0, 0.05))  # noqa: S311
    raise StoreError(f"{agent_id} is pushed to by others all the time; try again")


async def _push_once(
    home: Home, client: Client, agent_id: str, change: Change, key: SigningKey
) -> Pushed:
    fleet = home.control().fleet
    bucket = Bucket(client, "desired-state")
    stored = await bucket.get(agent_id)
    in_bucket = _verified(stored.value, key, fleet, agent_id) if stored and stored.value else None
    own_bytes = home.stored_manifest(agent_id)
    own = _verified(own_bytes, key, fleet, agent_id) if own_bytes else None
    state = await read_state(client, agent_id)
    base = max((m for m in (in_bucket, own) if m is not None), key=lambda m: m.order, default=None)
    entries = change({entry.id: entry for entry in base.scores} if base else {})
    for fault in graph_faults(list(entries.values())).values():
        raise fault
    manifest = _next(base, state, fleet, agent_id, list(entries.values()))
    envelope = seal(manifest.payload(), key)
    # Ours first: what a device may have seen must never be unknown to us.
    await asyncio.to_thread(home.store_manifest, agent_id, envelope)
    if stored is None:
        await bucket.create(agent_id, envelope)
    else:
        await bucket.update(agent_id, envelope, last=stored.revision)
    return Pushed(generation=manifest.generation, entries=entries)


def check_device(
    agent_id: str,
    state: ActualState | None,
    entries: Sequence[SerializedScore],
    needs: Mapping[str, frozenset[str]],
) -> tuple[str, ...]:
    """Raise what the device would refuse *entries* with; return what cannot be known, in words.

    *needs* are the capabilities that each entry requires, by id.
    """
    if state is None:
        return (f"{agent_id} was never heard of; what it can do is checked only when it appears",)
    for entry in entries:
        _check_kind(agent_id, state, entry)
        for name in sorted(needs[entry.id]):
            offered = state.capabilities.get(name)
            if offered is None or not offered.offered:
                why = f": {offered.reason}" if offered is not None and offered.reason else ""
                raise MissingCapability(
                    f"{entry.id} needs {name}, which {agent_id} does not offer{why}; "
                    "push it to another device, or with --force"
                )
    return ()


def _check_kind(agent_id: str, state: ActualState, entry: SerializedScore) -> None:
    versions = state.kinds.get(entry.kind)
    if versions is None:
        raise UnknownKind(
            f"{entry.id}: {agent_id} does not know the kind {entry.kind}; "
            "install the package that provides it there, or push with --force"
        )
    if entry.version not in versions:
        raise UnsupportedVersion(
            f"{entry.id}: {agent_id} knows {entry.kind} in version {max(versions)}, not "
            f"{entry.version}; update the package there, or push with --force"
        )


def _verified(envelope: bytes, key: SigningKey, fleet: str, agent_id: str) -> Manifest:
    try:
        accepted = reinstate(envelope, trusted=pinned([key.public]), fleet=fleet, agent_id=agent_id)
    except ManifestRejected as error:
        raise UntrustedSignature(
            f"what is stored for {agent_id} was not signed here, so nothing is built on it "
            f"({error.code}: {error.message}). Find out who writes the bucket"
        ) from error
    return accepted.manifest


def _next(
    base: Manifest | None,
    state: ActualState | None,
    fleet: str,
    agent_id: str,
    entries: list[SerializedScore],
) -> Manifest:
    generation = 1 + max(base.generation if base else 0, state.generation if state else 0)
    if generation > GENERATION_MAX:
        raise UsageError(
            f"{agent_id}: no generation is left in this epoch; the fleet needs a new epoch"
        )
    return Manifest(
        fleet=fleet,
        target=target_of(agent_id),
        epoch=base.epoch if base else 0,
        generation=generation,
        issued_at=datetime.now(UTC),
        labels=base.labels if base else {},
        scores=tuple(entries),
    )
