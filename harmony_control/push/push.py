"""Push Scores: check, merge and sign them, and put the manifest into the bucket.

    what is known -> merge -> check -> assets -> sign -> own store -> compare-and-swap

The generation is one more than the highest that anybody knows, the device included; and when the device has
seen a newer manifest than we, nothing is pushed, since that would undo what we know nothing of.

An envelope is kept by us before it is sent, but nothing is built on it before the bus has taken it, or the
device has: it may have lost against somebody else's.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import product
from typing import ParamSpec, Self, TypeVar

import attrs
from nats.aio.client import Client
from pydantic import ValidationError

from harmony_control.assets.seal import assets_of, give_keys
from harmony_control.assets.upload import upload
from harmony_control.bus.connection import Bucket
from harmony_control.bus.device_keys import DeviceKeys
from harmony_control.store.home import Home
from harmony_control.store.named_entries import NamedEntries
from harmony_control.store.roots import find_signing_keyids
from harmony_core.close_names import did_you_mean
from harmony_core.errors import (
    BusUnreachable,
    FactMissing,
    ManifestRejected,
    OutOfScope,
    RevisionConflict,
    StoreError,
    UsageError,
)
from harmony_core.references import find_references
from harmony_core.resources import first_problem
from harmony_core.wire.admission import SLOT_LABEL, explain_slot
from harmony_core.wire.envelope import Signer, seal
from harmony_core.wire.manifest import GENERATION_MAX, Manifest, SerializedScore, target_of
from harmony_core.wire.names import DESIRED_STATE
from harmony_core.wire.ordering import graph_faults

from .base_revision import (
    BaseRevision,
    PushTarget,
    read_base_revision,
    read_push_target,
    refuse_undoing,
)
from .downstream import downstream, in_order
from .seal import SealedEntries, Sealer, refers_to_secrets

__all__ = ["Change", "Contents", "Pushed", "check_push", "push", "seal_secrets"]

P = ParamSpec("P")
T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Contents:
    """What a device is to be."""

    scores: Mapping[str, SerializedScore] = attrs.field(factory=dict[str, SerializedScore])
    """By id."""
    labels: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """What its Scores may read of it beside its own facts."""
    without: Sequence[str] = ()
    """The ids of Scores of its classes that it does without."""
    generation: int = 0
    """Of the manifest that says so; 0 for none."""

    @classmethod
    def of(cls, manifest: Manifest | None) -> Self:
        """Return the contents of *manifest*; empty contents for None."""
        if manifest is None:
            return cls()
        scores = {each.id: each for each in manifest.scores}
        return cls(
            scores=scores,
            labels=manifest.labels,
            without=manifest.without,
            generation=manifest.generation,
        )

    def says_the_same_as(self, other: Contents) -> bool:
        """Return whether both have the same content, including the order of Scores, whatever their
        generations."""
        is_equal = attrs.evolve(self, generation=other.generation) == other
        return is_equal and [*self.scores] == [*other.scores]


Change = Callable[[Contents], Contents]
"""From the contents of the manifest so far to those of the next one."""

TRIES = 20
_LOOK_AGAIN_S = 0.005


@attrs.frozen(kw_only=True, slots=False)
class Pushed:
    """What was put into the bucket."""

    generation: int
    epoch: int = 0
    manifest_sha256: str
    """Of what was signed: the device says it of what it has taken in."""
    entries: Mapping[str, SerializedScore]
    """The whole manifest, by id."""
    changed: frozenset[str] = frozenset()
    """The ids that were added or replaced."""
    removed: frozenset[str] = frozenset()
    before: Mapping[str, SerializedScore] = attrs.field(factory=dict[str, SerializedScore])
    """The whole manifest before this one, by id."""
    in_order: frozenset[str] = frozenset()
    """The ids of what was in order before, as far as is known: it is to be so again."""
    warnings: tuple[str, ...] = ()

    @property
    def awaited(self) -> frozenset[str]:
        """The ids of what was changed, and of everything that it waits for, directly or not."""
        found: set[str] = set()
        left = list(self.changed)
        while left:
            name = left.pop()
            if name in self.entries and name not in found:
                found.add(name)
                left += self.entries[name].after
        return frozenset(found)

    @cached_property
    def dependents(self) -> frozenset[str]:
        """The ids of Scores that state that they depend on what was changed or removed."""
        return downstream(self.changed | self.removed, self.entries, self.before)

    @property
    def concerned(self) -> frozenset[str]:
        """The ids of all Scores that must be in order for the push to have succeeded."""
        return self.awaited | self.dependents | (self.in_order & self.entries.keys())


async def push(
    home: Home,
    client: Client,
    agent_id: str,
    change: Change,
    *,
    named: Collection[str] = (),
    force: bool = False,
    removals_allowed: int = 0,
    expires_in: timedelta | None = None,
    signers: Sequence[Signer] = (),
) -> Pushed:
    """Merge, sign and write the manifest.

    *named* are the Scores that this operator has written himself, changed or not: a new value of a secret is
    given to no other Score, unless this home named it before as it is now. *removals_allowed* is how many
    resources may be removed at once without being held back. *expires_in* is how long a device may take this
    manifest in; None means for ever. *signers* sign it beside the operator's own key.

    Raise `UntrustedSignature` where the bucket or the operator's own store has a manifest that nobody trusted
    here signed, `WrongEpoch` where the bucket has one that no device accepts, `StaleGeneration` when the
    device has seen a manifest that is unknown here (not with *force*, which overwrites it and keeps nothing
    of it), `OutOfScope` or `RootExpired` for what no device would accept from these signers,
    `UnknownDependency` or `DependencyCycle`, `UsageError` for an invalid label and for an asset that is
    neither on the server nor in a file that was read here, and `StoreError`s.
    """
    place = await read_push_target(home, client, agent_id, signers)
    for _ in range(TRIES):
        async with _alone(place):
            merged = await _merge(
                place, change, removals_allowed, expires_in, named=named, force=force
            )
            manifest, known = merged.manifest, merged.known
            in_force = assets_of(known.base.scores if known.base else ())
            await upload(client, assets_of(manifest.scores), in_force)
            if key_id := merged.sealed.key_id:
                await _to_its_end(home.note_sealed_to, agent_id, key_id)
            if named_now := merged.sealed.named:
                await _to_its_end(_note_named, home, agent_id, named_now)
            try:
                await _write(place, manifest.generation, merged.payload, known.revision)
            except RevisionConflict:
                # Another operator pushed meanwhile: read, merge and sign again.
                continue
            return Pushed(
                epoch=manifest.epoch,
                generation=manifest.generation,
                manifest_sha256=hashlib.sha256(merged.payload).hexdigest(),
                entries=merged.wanted.scores,
                before=Contents.of(known.base).scores,
                in_order=in_order(known.state, merged.wanted.scores),
                warnings=tuple(merged.sealed.warnings),
            )
    raise StoreError(f"others keep pushing to {agent_id} at the same time; try again")


async def check_push(
    home: Home,
    client: Client,
    agent_id: str,
    change: Change,
    *,
    named: Collection[str] = (),
    force: bool = False,
    signers: Sequence[Signer] = (),
) -> None:
    """Raise what `push` would raise, as far as is known now. Sign and write nothing."""
    place = await read_push_target(home, client, agent_id, signers)
    async with _alone(place):
        await _merge(place, change, named=named, force=force)


@attrs.frozen(kw_only=True)
class _Merged:
    """What would be signed next, and all that it is built upon."""

    known: BaseRevision
    wanted: Contents
    manifest: Manifest
    payload: bytes
    sealed: SealedEntries


async def _merge(
    place: PushTarget,
    change: Change,
    removals_allowed: int = 0,
    expires_in: timedelta | None = None,
    *,
    named: Collection[str],
    force: bool,
) -> _Merged:
    """Return the manifest that *change* results in, as far as is known now."""
    known = await read_base_revision(place, force=force)
    if not force:
        refuse_undoing(place.agent_id, known)
    before = Contents.of(known.base)
    wanted = change(before)
    for fault in graph_faults(list(wanted.scores.values())).values():
        raise fault
    _refuse_slot(place.agent_id, wanted, before)
    if not force:
        _refuse_missing_labels(place.agent_id, wanted, before)
    keyed = await asyncio.to_thread(give_keys, place.home, wanted.scores, [*before.scores.values()])
    wanted = attrs.evolve(wanted, scores=keyed)
    sealed = await seal_secrets(
        place, wanted.scores, before.scores, known.epoch, known.highest + 1, named=named
    )
    wanted = attrs.evolve(wanted, scores=sealed.entries)
    manifest = _next(place, known, wanted, removals_allowed, expires_in)
    manifest = _within_scope(place, manifest, known.base)
    return _Merged(
        known=known,
        wanted=wanted,
        manifest=manifest,
        payload=_payload(manifest),
        sealed=sealed,
    )


async def seal_secrets(
    place: PushTarget,
    wanted: Mapping[str, SerializedScore],
    before: Mapping[str, SerializedScore],
    epoch: int,
    generation: int,
    *,
    named: Collection[str],
) -> SealedEntries:
    """Return *wanted*, with the secrets to which it refers sealed for the device, where *before* is in force,
    and those of *named* are as this operator has written them.

    Raise what `Sealer.seal` raises.
    """
    if not refers_to_secrets(wanted):
        return SealedEntries(entries=wanted)
    keys = DeviceKeys(place.home, place.client)
    await keys.load([place.agent_id])
    sealer = Sealer(
        home=place.home,
        agent_id=place.agent_id,
        report_key=keys.of(place.agent_id),
        is_enrolled_here=keys.are_enrolled_here,
        epoch=epoch,
        generation=generation,
        named=named,
    )
    return await asyncio.to_thread(sealer.seal, wanted, before)


def _refuse_slot(agent_id: str, wanted: Contents, before: Contents) -> None:
    """Raise `UsageError` for a new value of the label ``slot`` that is not a number. A value that is there
    already prevents no push: the device reports that it waits."""
    is_other = wanted.labels.get(SLOT_LABEL) != before.labels.get(SLOT_LABEL)
    if is_other and (why := explain_slot(wanted.labels)):
        raise UsageError(f"{agent_id}: label slot: {why}")


def _note_named(home: Home, agent_id: str, entries: Mapping[str, SerializedScore]) -> None:
    NamedEntries(home, agent_id).note(entries)


def _refuse_missing_labels(agent_id: str, wanted: Contents, before: Contents) -> None:
    """Raise `FactMissing` where something new or changed refers to a label that the device will not have. A
    Score whose label is removed later reports that itself, on the device."""
    for name, entry in wanted.scores.items():
        if not entry.references or before.scores.get(name) == entry:
            continue
        for each in find_references(entry.spec):
            if each.namespace == "labels" and each.member not in wanted.labels:
                hint = did_you_mean(each.member, wanted.labels)
                raise FactMissing(
                    f"{name}: {agent_id} has no label {each.member!r}, to which {each} refers{hint}; set it "
                    f"with `harmony label {agent_id} {each.member}=VALUE`, or push with --force"
                )


@asynccontextmanager
async def _alone(place: PushTarget) -> AsyncGenerator[None]:
    """Make every other push of this operator to this device wait meanwhile, from any process."""
    while True:
        with ExitStack() as stack:
            if await _to_its_end(stack.enter_context, place.home.pushing(place.agent_id)):
                yield
                return
        await asyncio.sleep(_LOOK_AGAIN_S)


async def _to_its_end(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run *function* in a thread. If cancelled, wait for it: its effect must not come once others may
    push."""
    done = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        await asyncio.wait([done])
        raise


async def _write(place: PushTarget, generation: int, payload: bytes, revision: int | None) -> None:
    envelope = seal(payload, *place.signers)
    home = place.home
    await _to_its_end(home.store_pending, place.agent_id, envelope)
    bucket = Bucket(place.client, DESIRED_STATE)
    try:
        if revision is None:
            await bucket.create(place.agent_id, envelope)
        else:
            await bucket.update(place.agent_id, envelope, last=revision)
    except BusUnreachable:
        raise  # it may have arrived all the same
    except StoreError:
        await _to_its_end(home.drop_pending, place.agent_id)
        raise
    await _to_its_end(home.confirm_pending, place.agent_id, generation)


def _next(
    place: PushTarget,
    known: BaseRevision,
    wanted: Contents,
    removals_allowed: int,
    expires_in: timedelta | None,
) -> Manifest:
    generation = 1 + known.highest
    if generation > GENERATION_MAX:
        raise UsageError(
            f"{place.agent_id}: no generation is left in this epoch; begin a new one: harmony trust renew "
            "--new-epoch"
        )
    now = datetime.now(UTC)
    try:
        return Manifest(
            fleet=place.fleet,
            target=target_of(place.agent_id),
            epoch=known.epoch,
            generation=generation,
            issued_at=now,
            expires_at=None if expires_in is None else now + expires_in,
            labels=dict(wanted.labels),
            removals_allowed=removals_allowed,
            scores=tuple(wanted.scores.values()),
            without=tuple(wanted.without),
        )
    except ValidationError as error:
        raise UsageError(f"{place.agent_id}: {first_problem(error)}") from error


def _within_scope(place: PushTarget, manifest: Manifest, base: Manifest | None) -> Manifest:
    """Return *manifest*. Where its signers may not do that, return it without the permission for removals, so
    that many are held back, or in the order of *base*.

    Raise the error with which a device that has *base* in force would refuse it.
    """
    root, now = place.believed.root, datetime.now(UTC)
    if root is None:
        return manifest
    from harmony_core.wire.root import check_scope

    keyids = find_signing_keyids(root, place.signers, now)
    kept = _keep_order(manifest, base)
    for allowed, scores in product((manifest.removals_allowed, 0), (manifest.scores, kept)):
        asked = manifest.model_copy(update={"removals_allowed": allowed, "scores": scores})
        with suppress(OutOfScope):
            check_scope(root, asked, base, keyids, now)
            return asked
    check_scope(root, manifest, base, keyids, now)
    return manifest


def _keep_order(manifest: Manifest, base: Manifest | None) -> tuple[SerializedScore, ...]:
    """Return the Scores of *manifest*: those of *base* in the order of *base*, then the new ones."""
    places = {each.id: place for place, each in enumerate(base.scores)} if base else {}
    return tuple(sorted(manifest.scores, key=lambda each: places.get(each.id, len(places))))


def _payload(manifest: Manifest) -> bytes:
    try:
        return manifest.payload()
    except ManifestRejected as error:
        raise type(error)(f"all Scores of this device together: {error.message}") from error
