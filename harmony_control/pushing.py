"""Pushing: from Scores to a signed manifest in the bucket.

    stored envelope -> verify with our own key -> merge -> check -> sign -> own store -> compare-and-swap

Verified before merging: else whoever can write the bucket would get their Scores signed by us. Built on the
newest of what the bucket holds and what it once took from us: a server may lose its last writes, and a
deleted key means "no instruction", so what we pushed stays the truth. The generation is one more than the
highest that anybody knows, the device included; and when the device has seen a newer manifest than either,
nothing is pushed, since that would undo what we know nothing of.

An envelope is kept by us before it is sent, but nothing is built on it before the bus has taken it, or the
device has: it may have lost against somebody else's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import attrs
from nats.aio.client import Client

from harmony_core.envelope import SigningKey, pinned, seal
from harmony_core.errors import (
    BusUnreachable,
    ManifestRejected,
    RevisionConflict,
    StaleGeneration,
    StoreError,
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
from .home import Home
from .reports import read_report

__all__ = ["Change", "Pushed", "push"]

Change = Callable[[Mapping[str, SerializedScore]], Mapping[str, SerializedScore]]
"""From the entries of the manifest so far to those of the next one."""

TRIES = 20
_LOOK_AGAIN_S = 0.005


@attrs.frozen(kw_only=True)
class Pushed:
    """What was put into the bucket."""

    generation: int
    entries: Mapping[str, SerializedScore]
    """The whole manifest, by id."""
    changed: frozenset[str] = frozenset()
    """The ids that were added or replaced."""
    removed: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()

    @property
    def awaited(self) -> frozenset[str]:
        """What was changed, and everything that it waits for, directly or not."""
        found: set[str] = set()
        left = list(self.changed)
        while left:
            name = left.pop()
            if name in self.entries and name not in found:
                found.add(name)
                left += self.entries[name].after
        return frozenset(found)


async def push(
    home: Home,
    client: Client,
    agent_id: str,
    change: Change,
    *,
    force: bool = False,
    removals_allowed: int = 0,
) -> Pushed:
    """Merge, sign and put. *removals_allowed*: how many resources may go at once without being held.

    Raises `UntrustedSignature` for a bucket that somebody else wrote, `StaleGeneration` when the device
    has seen what we have not (neither with *force*: then it is written over, and nothing of it is
    kept), `UnknownDependency` or `DependencyCycle`, and `StoreError`s.
    """
    key = await asyncio.to_thread(operator_key.load, home)
    place = _Place(home=home, client=client, agent_id=agent_id, fleet=home.control().fleet, key=key)
    for _ in range(TRIES):
        async with _alone(place):
            try:
                return await _push_once(place, change, force, removals_allowed)
            except RevisionConflict:
                # Another operator pushed meanwhile: read, merge and sign again.
                continue
    raise StoreError(f"{agent_id} is pushed to by others all the time; try again")


@attrs.frozen(kw_only=True)
class _Place:
    """Whose manifest it is, and who signs it."""

    home: Home
    client: Client
    agent_id: str
    fleet: str
    key: SigningKey


@attrs.frozen(kw_only=True)
class _Known:
    """All that is known of one device's manifest."""

    revision: int | None
    """Of what is in the bucket; None when nothing is."""
    base: Manifest | None
    """What is built upon."""
    highest: int
    """The highest generation that was ever heard of."""
    reported: int
    """The one that the device has taken in last."""


@asynccontextmanager
async def _alone(place: _Place) -> AsyncGenerator[None]:
    """No other push of ours to this device meanwhile, from whatever process."""
    while True:
        with place.home.pushing(place.agent_id) as is_ours:
            if is_ours:
                yield
                return
        await asyncio.sleep(_LOOK_AGAIN_S)


async def _push_once(place: _Place, change: Change, force: bool, removals_allowed: int) -> Pushed:
    known = await _read(place, force)
    if not force:
        _check_nothing_is_undone(place.agent_id, known)
    before = known.base.scores if known.base else ()
    entries = change({entry.id: entry for entry in before})
    for fault in graph_faults(list(entries.values())).values():
        raise fault
    manifest = _next(place, known, tuple(entries.values()), removals_allowed)
    await _write(place, manifest, known.revision)
    return Pushed(generation=manifest.generation, entries=entries)


async def _read(place: _Place, force: bool) -> _Known:
    # The device before the bucket: what it has seen by now, the bucket read after it must hold.
    report = await read_report(place.client, place.agent_id)
    reported = report.state.generation if report and report.state else 0
    stored = await Bucket(place.client, "desired-state").get(place.agent_id)
    in_bucket = None
    if stored is not None:
        try:
            in_bucket = _verified(stored.value, place)
        except UntrustedSignature:
            if not force:
                raise
    own = _verified(place.home.stored_manifest(place.agent_id), place)
    pending = _verified(place.home.pending_manifest(place.agent_id), place)
    taken = [each for each in (in_bucket, own) if each is not None]
    generations = [each.generation for each in (*taken, pending) if each is not None]
    if pending is not None and pending.generation == reported:
        taken.append(pending)  # the answer was lost, the manifest was not
    return _Known(
        revision=stored.revision if stored else None,
        base=max(taken, key=lambda each: each.order, default=None),
        highest=max([reported, *generations]),
        reported=reported,
    )


async def _write(place: _Place, manifest: Manifest, revision: int | None) -> None:
    envelope = seal(_payload(manifest), place.key)
    await asyncio.to_thread(place.home.store_pending, place.agent_id, envelope)
    bucket = Bucket(place.client, "desired-state")
    try:
        if revision is None:
            await bucket.create(place.agent_id, envelope)
        else:
            await bucket.update(place.agent_id, envelope, last=revision)
    except BusUnreachable:
        raise  # it may have arrived all the same
    except StoreError:
        place.home.drop_pending(place.agent_id)
        raise
    place.home.confirm_pending(place.agent_id, manifest.generation)


def _verified(envelope: bytes | None, place: _Place) -> Manifest | None:
    if envelope is None:
        return None
    try:
        return reinstate(
            envelope,
            trusted=pinned([place.key.public]),
            fleet=place.fleet,
            agent_id=place.agent_id,
        ).manifest
    except ManifestRejected as error:
        raise UntrustedSignature(
            f"what is stored for {place.agent_id} was not signed here, so nothing is built on it "
            f"({error.code}: {error.message}). Find out who writes the bucket; to write over it what was "
            f"pushed from here: `harmony push-score {place.agent_id} --all --force`"
        ) from error


def _check_nothing_is_undone(agent_id: str, known: _Known) -> None:
    newest = known.base.generation if known.base else 0
    if known.reported > newest:
        here = f"the newest known here is {newest}" if newest else "nothing is known here"
        raise StaleGeneration(
            f"{agent_id} has taken in generation {known.reported}, and {here}: pushing would undo what "
            f"came between. Run `harmony push-score {agent_id} --all` from the directory that pushed "
            "it, or use --force to go on from what is known here"
        )


def _next(
    place: _Place, known: _Known, scores: tuple[SerializedScore, ...], removals_allowed: int
) -> Manifest:
    generation = 1 + known.highest
    if generation > GENERATION_MAX:
        raise UsageError(
            f"{place.agent_id}: no generation is left in this epoch; the fleet needs a new epoch"
        )
    return Manifest(
        fleet=place.fleet,
        target=target_of(place.agent_id),
        epoch=known.base.epoch if known.base else 0,
        generation=generation,
        issued_at=datetime.now(UTC),
        labels=known.base.labels if known.base else {},
        removals_allowed=removals_allowed,
        scores=scores,
    )


def _payload(manifest: Manifest) -> bytes:
    try:
        return manifest.payload()
    except ManifestRejected as error:
        raise type(error)(f"all Scores of this device together: {error.message}") from error
