"""The base revision of a push: what the next manifest is built upon, and what its generation must exceed.

    bucket, own store, what is on its way -> verified with the keys trusted here -> the newest of them

Verified before anything is built on it: else whoever can write the bucket would get their Scores signed.
The newest of what the bucket holds and what it once took from us: a server may lose its last writes, and a
deleted key means "no instruction", so what we pushed stays the truth.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import attrs
from nats.aio.client import Client

from harmony_control.bus.connection import Bucket
from harmony_control.bus.reports import Reports
from harmony_control.bus.roots import refresh
from harmony_control.store import operator_key
from harmony_control.store.home import Home
from harmony_control.store.roots import Believed, read_believed
from harmony_core.errors import (
    ManifestRejected,
    OutOfScope,
    StaleGeneration,
    UntrustedSignature,
    WrongEpoch,
)
from harmony_core.wire.actual_state import ActualState
from harmony_core.wire.envelope import Signer
from harmony_core.wire.manifest import (
    GENERATION_MAX,
    Accepted,
    Manifest,
    reinstate,
    target_of,
)
from harmony_core.wire.names import DESIRED_STATE

__all__ = ["BaseRevision", "PushTarget", "read_base_revision", "read_push_target", "refuse_undoing"]


@attrs.frozen(kw_only=True)
class PushTarget:
    """Whose manifest it is, who signs it, and whose signatures count."""

    home: Home
    client: Client
    agent_id: str
    fleet: str
    signers: Sequence[Signer]
    """The operator's own key first."""
    believed: Believed

    def accept(self, envelope: bytes) -> Accepted:
        """Return the manifest in *envelope*. Raise `ManifestRejected` unless somebody trusted here signed it
        for this device."""
        trusted = self.believed.find_built_upon(target_of(self.agent_id))
        return reinstate(envelope, trusted=trusted, fleet=self.fleet, agent_id=self.agent_id)

    def is_void(self, envelope: bytes) -> bool:
        """Return whether a new epoch has invalidated the manifest in *envelope*."""
        try:
            trusted = self.believed.find_void(target_of(self.agent_id))
            reinstate(envelope, trusted=trusted, fleet=self.fleet, agent_id=self.agent_id)
        except ManifestRejected:
            return False
        return True

    def find_epoch(self, own: Accepted | None, in_force: Accepted | None) -> int:
        """Return the epoch of the next push. Without a root document, nobody begins another epoch than that
        of *own*, what was pushed from here last, or else of *in_force*, what the device has."""
        if self.believed.root is not None:
            return self.believed.root.epoch
        known = own or in_force
        return known.manifest.epoch if known is not None else 0


@attrs.frozen(kw_only=True)
class BaseRevision:
    """All that is known of one device's manifest."""

    revision: int | None
    """Of what is in the bucket; None when nothing is."""
    base: Manifest | None
    """What is built upon."""
    base_sha256: str
    """Of its payload; empty for none."""
    epoch: int
    """Of what is pushed next."""
    highest: int
    """The highest generation that was ever heard of."""
    reported: int
    """The one that the device has taken in last."""
    state: ActualState | None = None
    """What the device has said last, where it can be read."""


async def read_push_target(
    home: Home, client: Client, agent_id: str, signers: Sequence[Signer] = ()
) -> PushTarget:
    """Read the push target from the operator's directory and the newest root document. *signers* sign too.

    Raise `ConfigError` for what is missing or damaged there, and `RootRejected`.
    """
    await refresh(home, client)

    def read() -> PushTarget:
        return PushTarget(
            home=home,
            client=client,
            agent_id=agent_id,
            fleet=home.control().fleet,
            signers=_each_once([operator_key.load(home), *signers]),
            believed=read_believed(home),
        )

    return await asyncio.to_thread(read)


def _each_once(signers: Sequence[Signer]) -> Sequence[Signer]:
    return list({each.public.id: each for each in signers}.values())


async def read_base_revision(place: PushTarget, *, force: bool) -> BaseRevision:
    """Read all that the next push builds on. Raise `UntrustedSignature` for what cannot be verified,
    `WrongEpoch` for what no device accepts. With *force*, leave that out instead."""
    # The device before the bucket: what it has seen by now, the bucket read after it must hold.
    report = await Reports(place.home, place.client).read_report(place.agent_id)
    state = report.state if report else None
    stored = await Bucket(place.client, DESIRED_STATE).get(place.agent_id)
    in_bucket = await _read_bucket(place, stored.value, force) if stored else None
    own, pending = await asyncio.to_thread(_in_store, place, force)
    taken_in = state.manifest_sha256 if state is not None and not force else ""
    is_in_force = in_bucket is not None and in_bucket.payload_sha256 == taken_in
    epoch = place.find_epoch(own, in_bucket if is_in_force else None)
    if in_bucket is not None and in_bucket.manifest.epoch > epoch:
        if not force:
            raise _wrong_epoch(place.agent_id, in_bucket, epoch)
        in_bucket = None
    confirmed = {each.payload_sha256 for each in (own, pending) if each is not None}
    if state is not None:
        confirmed.add(state.manifest_sha256)
    if in_bucket is not None and in_bucket.payload_sha256 not in confirmed:
        in_bucket = _refuse_out_of_scope(place, in_bucket, own, force)
    taken = [each for each in (in_bucket, own) if each is not None]
    if (
        pending is not None
        and state is not None
        and pending.manifest.order == (state.epoch, state.generation)
    ):
        taken.append(pending)  # the answer was lost, the manifest was not
    base = max(taken, key=lambda each: each.manifest.order, default=None)
    # What another epoch has counted up to says nothing: that is what a new one is for.
    reported = state.generation if state is not None and state.epoch == epoch else 0
    known = [each.manifest for each in (*taken, pending) if each is not None]
    generations = [each.generation for each in known if each.epoch == epoch]
    return BaseRevision(
        revision=stored.revision if stored else None,
        base=base.manifest if base else None,
        base_sha256=base.payload_sha256 if base else "",
        epoch=epoch,
        highest=max([reported, *generations]) or _go_on_from(base),
        reported=reported,
        state=state,
    )


def _go_on_from(base: Accepted | None) -> int:
    """Return the generation from which a new epoch counts on: people identify revisions by their numbers."""
    generation = base.manifest.generation if base is not None else 0
    return generation if generation < GENERATION_MAX // 2 else 0


def refuse_undoing(agent_id: str, known: BaseRevision) -> None:
    """Raise `StaleGeneration` when the device has seen a newer manifest than ours, whose content is unknown
    here, or another one of the same generation, as after somebody restored a backup and pushed."""
    newest = known.base.generation if known.base else 0
    taken = known.state.manifest_sha256 if known.state else ""
    is_other = known.reported == newest > 0 and taken not in {"", known.base_sha256}
    if known.reported > newest or is_other:
        here = f"the newest known here is {newest}" if newest else "nothing is known here"
        if is_other:
            here = "what is known here under that number is something else"
        raise StaleGeneration(
            f"{agent_id} has taken in generation {known.reported}, and {here}: pushing would undo what "
            f"came between. Run `harmony push-score {agent_id} --all` from the directory that pushed "
            "it, or use --force to go on from what is known here"
        )


async def _read_bucket(place: PushTarget, newest: bytes, force: bool) -> Accepted | None:
    """Return the manifest in the bucket. If a new epoch has invalidated it, return the newest one that is
    still valid."""
    if not place.is_void(newest):
        return _in_bucket(place, newest, force)
    for each in reversed(await Bucket(place.client, DESIRED_STATE).history(place.agent_id)):
        with suppress(ManifestRejected):
            return place.accept(each.value)
    return None


def _wrong_epoch(agent_id: str, found: Accepted, epoch: int) -> WrongEpoch:
    return WrongEpoch(
        f"what the message server holds for {agent_id} is of epoch {found.manifest.epoch}, and it is "
        f"{epoch}: the device does not take that in, and nothing is built on it. Find out who has pushed "
        f"it; to write over it what was pushed from here: `harmony push-score {agent_id} --all --force`"
    )


def _refuse_out_of_scope(
    place: PushTarget, found: Accepted, own: Accepted | None, force: bool
) -> Accepted | None:
    """Return *found* if its signers may, at present, make the changes that it makes to *own*. Otherwise raise
    `UntrustedSignature`, or, with *force*, return None.

    It is not known whether the device has it in force: the device may refuse it, and would accept its content
    as part of our push.
    """
    root, now = place.believed.root, datetime.now(UTC)
    if root is None:
        return found
    from harmony_core.wire.root import check_scope

    keyids = [each for each in found.keyids if each in place.believed.keys]
    try:
        check_scope(root, found.manifest, own.manifest if own else None, keyids, now)
    except OutOfScope as error:
        if force:
            return None
        raise UntrustedSignature(
            f"what the message server holds for {place.agent_id} is not in force there, and nothing is built "
            f"on it: {error.message}. Find out who has pushed it; to write over it what was pushed from "
            f"here: `harmony push-score {place.agent_id} --all --force`"
        ) from error
    return found


def _in_bucket(place: PushTarget, envelope: bytes, force: bool) -> Accepted | None:
    try:
        return place.accept(envelope)
    except ManifestRejected as error:
        if force or place.is_void(envelope):
            return None
        raise UntrustedSignature(
            f"what the message server holds for {place.agent_id} was not signed by an operator trusted here, "
            f"so nothing is built on it ({error.code}: {error.message}). Find out who writes the bucket; if "
            f"it is another operator, put their operator.pub into {place.home.operators}; to write over it "
            f"what was pushed from here: `harmony push-score {place.agent_id} --all --force`"
        ) from error


def _in_store(place: PushTarget, force: bool) -> tuple[Accepted | None, Accepted | None]:
    """Return what the bus last accepted from us, and what is on its way."""
    home, agent_id = place.home, place.agent_id
    stored = _own(place, home.read_stored_manifest(agent_id), home.manifest_json(agent_id), force)
    on_its_way = home.manifest_json(agent_id, ".pending")
    return stored, _own(place, home.pending_manifest(agent_id), on_its_way, force)


def _own(place: PushTarget, envelope: bytes | None, file: Path, force: bool) -> Accepted | None:
    if envelope is None:
        return None
    try:
        return place.accept(envelope)
    except ManifestRejected as error:
        if force or place.is_void(envelope):
            return None
        raise UntrustedSignature(
            f"nothing is built on {file}: it is damaged, or was not signed by an operator trusted here "
            f"({error.code}: {error.message}). Put back a copy of it; if operator.key is a new one, put the "
            f"earlier operator.pub into {place.home.operators}; or use --force to go on without that file"
        ) from error
