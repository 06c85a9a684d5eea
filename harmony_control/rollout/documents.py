"""The documents of classes on the server: read and verified, signed and written by compare-and-swap.

Nothing is built on what nobody trusted here has signed: else who can write the buckets would get it signed.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Generic, TypeVar

import attrs
from nats.aio.client import Client

from harmony_control.bus.classes import class_key
from harmony_control.bus.connection import Bucket, Entry
from harmony_control.bus.roots import refresh
from harmony_control.store import operator_key
from harmony_control.store.gate_key import gate_key_path
from harmony_control.store.home import Home
from harmony_control.store.roots import Believed, find_signing_keyids, read_believed
from harmony_core.errors import (
    ConfigError,
    ManifestRejected,
    OutOfScope,
    UnknownClass,
    UntrustedSignature,
    UsageError,
)
from harmony_core.wire.class_manifest import (
    CLASS_TYPE,
    ClassManifest,
    Rollout,
    class_target,
    parse_class_manifest,
)
from harmony_core.wire.envelope import Opened, Signer, VerifyKey, open_envelope, pin_keys, seal
from harmony_core.wire.fleet_index import FLEET_TYPE, ClassRule, FleetIndex, parse_index
from harmony_core.wire.gate import GATE_TYPE, Gate, parse_gate
from harmony_core.wire.names import DESIRED_CLASS, FLEET, FLEET_WIDE, INDEX_KEY, ROLLOUT

__all__ = ["ClassDocuments", "Known", "Read", "Standing"]

_GENERATIONS_AHEAD_MOST = 1_000
_HOW_TO_GO_ON = (
    "To do: if it was signed before the root document said so, let its signers sign it again (`harmony trust "
    "add`), have those who may sign it in the end sign what is there anew, and limit the others then. Else "
    "make void what was signed: harmony trust renew --new-epoch"
)
T = TypeVar("T", FleetIndex, ClassManifest, Gate)


@attrs.frozen(kw_only=True)
class Read(Generic[T]):
    """A document that counts."""

    value: T
    revision: int
    sha256: str
    written_at: datetime
    keyids: Sequence[str]
    """Of those who have signed it, as far as they count for it."""


@attrs.frozen(kw_only=True)
class Known:
    """All that is said of one class."""

    name: str
    index: Read[FleetIndex]
    gate: Read[Gate]
    gates: Sequence[Read[Gate]]
    """All that the bucket still has of its generation, the oldest first."""
    manifest: ClassManifest
    believed: Believed
    """By whom all that was signed."""

    @property
    def rule(self) -> ClassRule:
        """Who belongs to the class."""
        return self.index.value.classes[self.name]


@attrs.frozen(kw_only=True)
class Standing:
    """What a class is, for who changes it."""

    manifest: ClassManifest | None = None
    """What its devices are to have: of an aborted rollout, what it went back to; None for nothing."""
    rollout: Rollout = attrs.field(factory=Rollout)
    """How its newest generation is rolled out. An abort takes back what devices are to have, and not with how
    much care a class is changed: what puts an aborted generation right does not come to everybody at once."""

    @property
    def upto(self) -> Sequence[tuple[str, int]]:
        """Return the waves as their author wrote them: how many devices, and how many seconds they soak."""
        return [(each.upto, each.soak_s) for each in self.rollout.steps]


class ClassDocuments:
    """Made by `open`."""

    def __init__(
        self, home: Home, client: Client, signers: Sequence[Signer], believed: Believed
    ) -> None:
        self.home = home
        self.client = client
        self.fleet = home.control().fleet
        self.signers = signers
        self.believed = believed

    @classmethod
    async def open(
        cls, home: Home, client: Client, sign_with: Sequence[Signer] = ()
    ) -> ClassDocuments:
        """Open the documents with the operator's directory and the newest root document. *sign_with* sign
        too."""
        await refresh(home, client)

        def read() -> ClassDocuments:
            # Who has only a key for gates can open waves that an operator has signed.
            has_own = home.operator_key.exists() or not gate_key_path(home).exists()
            own = [operator_key.load(home)] if has_own else []
            signers = {each.public.id: each for each in (*own, *sign_with)}
            return cls(home, client, list(signers.values()), read_believed(home))

        return await asyncio.to_thread(read)

    @property
    def epoch(self) -> int:
        """Return the one of all that is signed now."""
        return self.believed.root.epoch if self.believed.root is not None else 0

    async def read_index(self) -> Read[FleetIndex] | None:
        """Return the fleet index; None for none, or one that a new epoch has made void.

        Raise `UntrustedSignature` for what nobody trusted here has signed, and other `ManifestRejected`s.
        """
        found = await Bucket(self.client, FLEET).get(INDEX_KEY)
        if found is None:
            return None
        opened = self._open(found, FLEET_TYPE, FLEET_WIDE)
        if opened is None:
            return None
        self._refuse_out_of_scope(["*"], opened.keyids, FLEET_WIDE)
        index = parse_index(opened.payload, fleet=self.fleet)
        return None if index.epoch != self.epoch else _read(index, found, opened)

    async def read_gate(self, name: str, index: Read[FleetIndex] | None) -> Read[Gate] | None:
        """Return the gate of the class *name*, signed by those whom *index* allows; None for none.

        Raise what `read_index` raises.
        """
        found = await Bucket(self.client, ROLLOUT).get(name)
        return None if found is None else self._open_gate(name, found, index)

    async def read_gates(self, name: str, index: Read[FleetIndex] | None) -> list[Read[Gate]]:
        """Return every gate of the class that the bucket still has and that counts, the oldest first."""
        found = await Bucket(self.client, ROLLOUT).history(name)
        gates: list[Read[Gate]] = []
        for each in found:
            try:
                gate = self._open_gate(name, each, index)
            except ManifestRejected:
                if each is found[-1]:
                    raise
                continue  # who has signed an older one may have been taken out since
            if gate is not None:
                gates.append(gate)
        return gates

    def _open_gate(
        self, name: str, found: Entry, index: Read[FleetIndex] | None
    ) -> Read[Gate] | None:
        named = map(VerifyKey.from_text, index.value.gate_keys if index else ())
        opened = self._open(found, GATE_TYPE, class_target(name), pin_keys(named))
        if opened is None:
            return None
        gate = parse_gate(opened.payload, fleet=self.fleet, name=name)
        return None if gate.epoch != self.epoch else _read(gate, found, opened)

    async def read_manifest(self, name: str, generation: int) -> Read[ClassManifest] | None:
        """Return that generation of the class; None for none. Raises what `read_index` raises."""
        found = await Bucket(self.client, DESIRED_CLASS).get(class_key(name, generation))
        if found is None:
            return None
        opened = self._open_signed(found, CLASS_TYPE, class_target(name))
        manifest = parse_class_manifest(
            opened.payload, fleet=self.fleet, name=name, generation=generation
        )
        return _read(manifest, found, opened)

    async def read_standing(self, name: str, gate: Read[Gate] | None) -> Standing:
        """Return the state of the class according to its *gate*. Raise what `read_index` raises."""
        if gate is None:
            return Standing()
        generation, _ = gate.value.settled
        found = await self._read_base(name, generation) if generation else None
        newest = found
        if generation != gate.value.generation:
            # Nobody is to have it any more, and who has signed it may have been taken out since.
            with suppress(ManifestRejected):
                newest = await self._read_base(name, gate.value.generation) or found
        if newest is None:
            return Standing()
        return Standing(
            manifest=found.value if found is not None else None, rollout=newest.value.rollout
        )

    async def _read_base(self, name: str, generation: int) -> Read[ClassManifest] | None:
        """Return that generation, for who builds upon it: whoever signs the next one signs what it keeps of
        this one, too."""
        found = await self.read_manifest(name, generation)
        if found is not None:
            from harmony_core.wire.root import find_changed_kinds

            manifest = found.value
            nothing = manifest.model_copy(update={"scores": (), "removals_allowed": 0})
            kinds = find_changed_kinds(manifest, nothing)
            self._refuse_out_of_scope(kinds, found.keyids, manifest.target)
        return found

    async def read_known(self, name: str, before: Known | None = None) -> Known:
        """Return all that is published of the class *name*. Raise `UnknownClass` where nothing was rolled out
        to it.

        What was known *before* is read again only where its index or gate has changed since.
        """
        index = await self.read_index()
        if before is not None and (index, self.believed) == (before.index, before.believed):
            newest = await self.read_gate(name, index)
            if newest == before.gate:
                return before
        if index is None or name not in index.value.classes:
            known = ", ".join(sorted(index.value.classes)) if index else ""
            raise UnknownClass(f"there is no class {name!r}; there are: {known or 'none'}")
        gates = await self.read_gates(name, index)
        if not gates:
            raise UnknownClass(f"nothing was rolled out to the class {name} yet")
        gate = gates[-1]
        manifest = await self.read_manifest(name, gate.value.generation)
        if manifest is None or manifest.sha256 != gate.value.sha256:
            raise UsageError(
                f"generation {gate.value.generation} of the class {name} is not the one on the server any "
                "more: apply it again"
            )
        return Known(
            name=name,
            index=index,
            gate=gate,
            gates=[each for each in gates if each.value.generation == gate.value.generation],
            manifest=manifest.value,
            believed=self.believed,
        )

    async def write_index(self, index: FleetIndex, before: Read[FleetIndex] | None) -> None:
        """Sign and write *index* in place of *before*. Raise `RevisionConflict` where somebody else was
        quicker."""
        self.refuse_unscoped(["*"], FLEET_WIDE)
        envelope = seal(index.payload(), *self._find_signers(), payload_type=FLEET_TYPE)
        bucket = Bucket(self.client, FLEET)
        if before is None:
            found = await bucket.get(INDEX_KEY)  # one that an epoch has made void
            revision = found.revision if found else None
        else:
            revision = before.revision
        if revision is None:
            await bucket.create(INDEX_KEY, envelope)
        else:
            await bucket.update(INDEX_KEY, envelope, last=revision)

    async def write_manifest(self, manifest: ClassManifest) -> str:
        """Sign and write *manifest*. Return the hash by which a gate names it.

        Raise `RevisionConflict` where that generation exists already: it is never overwritten.
        """
        self.refuse_unscoped(sorted({each.kind for each in manifest.scores}), manifest.target)
        payload = manifest.payload()
        envelope = seal(payload, *self._find_signers(), payload_type=CLASS_TYPE)
        key = class_key(manifest.name, manifest.generation)
        await Bucket(self.client, DESIRED_CLASS).create(key, envelope)
        return hashlib.sha256(payload).hexdigest()

    async def write_gate(
        self, gate: Gate, before: Read[Gate] | None, signer: Signer | None = None
    ) -> None:
        """Sign *gate*, with *signer* or as an operator, and write it in place of *before*.

        Raise `RevisionConflict` where somebody else was quicker.
        """
        if signer is None:
            self.refuse_target(class_target(gate.name))
        signers = self._find_signers() if signer is None else [signer]
        envelope = seal(gate.payload(), *signers, payload_type=GATE_TYPE)
        bucket = Bucket(self.client, ROLLOUT)
        if before is not None:
            await bucket.update(gate.name, envelope, last=before.revision)
            return
        found = await bucket.get(gate.name)
        if found is None:
            await bucket.create(gate.name, envelope)
        else:
            await bucket.update(gate.name, envelope, last=found.revision)

    def refuse_target(self, target: str) -> None:
        """Raise `OutOfScope` where these signers may sign, by the root document, but not for *target*."""
        root, now = self.believed.root, datetime.now(UTC)
        if root is None:
            return
        from harmony_core.wire.root import check_target

        keys = root.find_keys("manifest", now)
        if keyids := [each.public.id for each in self.signers if each.public.id in keys]:
            check_target(root, keyids, now, target)

    async def find_next_generation(
        self, name: str, before: Read[Gate] | None, told: Sequence[int] = ()
    ) -> int:
        """Return the next generation of the class that was never written: an apply may end half-way.

        *told* are generations whose gates devices report to have: the server may have lost them. One that is
        far ahead is not believed, since no greater one could follow it.
        """
        newest = before.value.generation if before is not None else 0
        generation = 1 + max(
            (each for each in told if each <= newest + _GENERATIONS_AHEAD_MOST), default=newest
        )
        generation = max(generation, newest + 1)
        while await Bucket(self.client, DESIRED_CLASS).get(class_key(name, generation)):
            generation += 1
        return generation

    def _open(
        self,
        found: Entry,
        payload_type: str,
        target: str,
        named: Mapping[str, bytes] = MappingProxyType({}),
    ) -> Opened | None:
        """Open what is stored, signed for *target* or with one of the keys *named*; None for what a new epoch
        has made void."""
        try:
            return self._open_signed(found, payload_type, target, named)
        except UntrustedSignature:
            if not (void := self.believed.find_void(target)):
                raise
            open_envelope(found.value, void, payload_type=payload_type)
            return None

    def _open_signed(
        self,
        found: Entry,
        payload_type: str,
        target: str,
        named: Mapping[str, bytes] = MappingProxyType({}),
    ) -> Opened:
        keys = {**named, **self.believed.find_counting(target)}
        try:
            return open_envelope(found.value, keys, payload_type=payload_type)
        except UntrustedSignature as error:
            earlier = self.believed.find_built_upon(target)
            try:
                opened = open_envelope(found.value, earlier, payload_type=payload_type)
            except UntrustedSignature:
                raise error from None
            raise UntrustedSignature(_explain_limited(opened.keyids, target)) from error

    def _refuse_out_of_scope(
        self, kinds: Sequence[str], keyids: Sequence[str], target: str
    ) -> None:
        """Raise `UntrustedSignature` where those who have signed something may not change all of it."""
        try:
            self.believed.refuse_out_of_scope(kinds, keyids, target)
        except OutOfScope as error:
            raise UntrustedSignature(
                f"nothing is built on what the message server holds as {_describe(target)}: {error.message}. "
                f"Devices that do not have it refuse it, too. {_HOW_TO_GO_ON}"
            ) from error

    def _find_signers(self) -> Sequence[Signer]:
        """Return who signs as an operator. Raise `ConfigError` where nobody can."""
        if not self.signers:
            raise ConfigError(
                f"{self.home.root} has no operator's key, and its key for gates may not sign this; let it "
                "sign gates by `harmony rollout key`, or do it where an operator's key is"
            )
        return self.signers

    def refuse_unscoped(self, kinds: Sequence[str], target: str) -> None:
        """Raise the error with which devices would refuse it, where these signers may not sign all of *kinds*
        for *target*."""
        root, now = self.believed.root, datetime.now(UTC)
        signers = self._find_signers()
        if root is None:
            return
        from harmony_core.wire.root import check_kinds, check_target

        keyids = find_signing_keyids(root, signers, now)
        check_target(root, keyids, now, target)
        check_kinds(root, kinds, keyids, now, target)


def _explain_limited(keyids: Sequence[str], target: str) -> str:
    by = ", ".join(f"{each[:16]}…" for each in keyids)
    return (
        f"what the message server holds as {_describe(target)} was signed by {by}, which signs for less by "
        "the newest root document that has it, or whose time is over there. So nothing is built on it, and "
        f"devices that do not have it refuse it, too. {_HOW_TO_GO_ON}"
    )


def _describe(target: str) -> str:
    return "fleet index" if target == FLEET_WIDE else target


def _read(value: T, found: Entry, opened: Opened) -> Read[T]:
    return Read(
        value=value,
        revision=found.revision,
        sha256=hashlib.sha256(opened.payload).hexdigest(),
        written_at=found.written_at,
        keyids=opened.keyids,
    )
