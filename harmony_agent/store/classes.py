"""Classes: what this device is to be as a member of classes, kept across restarts.

    fleet index -> which classes are ours? -> gate of each -> may we begin? -> class manifest -> followed

Every device finds out by itself, from labels that were signed for it and from documents that are the same for
all. Nothing is written for it anywhere. What is followed is followed until something newer may be, with or
without a network.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

import attrs

from harmony_agent.clock import timestamp
from harmony_agent.config import AgentConfig
from harmony_core.errors import (
    BusUnreachable,
    InvalidManifest,
    ManifestExpired,
    ManifestRejected,
    StaleGeneration,
    UntrustedSignature,
    WrongEpoch,
)
from harmony_core.wire.actual_state import LayerPhase
from harmony_core.wire.admission import Choice, find_place, is_let_in, may_begin
from harmony_core.wire.class_manifest import CLASS_TYPE, ClassManifest, parse_class_manifest
from harmony_core.wire.envelope import Opened, VerifyKey, open_envelope, pin_keys
from harmony_core.wire.fleet_index import FLEET_TYPE, ClassRule, FleetIndex, parse_index
from harmony_core.wire.gate import GATE_TYPE, Gate, parse_gate

from .database import Database, Statement
from .desired import Desired
from .in_force import FollowedClass, LayerNote

__all__ = ["Classes", "Source"]

log = logging.getLogger(__name__)

_SAVE_INDEX = "INSERT OR REPLACE INTO fleet_index (only, envelope, keys) VALUES (1, ?, ?)"
_SAVE_CLASS = (
    "INSERT OR REPLACE INTO class (name, gate, gate_keys, manifest, manifest_keys, note) "
    "VALUES (?, ?, ?, ?, ?, ?)"
)
_FORGET_CLASS = "DELETE FROM class WHERE name = ?"
_FETCH_AGAIN = timedelta(minutes=1)


class Source(Protocol):
    """Where the documents are: `harmony_agent.bus.connection.Bus`. Each is None where there is none; raises
    `BusUnreachable`."""

    async def fetch_index(self) -> bytes | None: ...
    async def fetch_gate(self, name: str) -> bytes | None: ...
    async def fetch_class_manifest(self, name: str, generation: int) -> bytes | None: ...


@attrs.frozen(kw_only=True)
class _Kept:
    """An envelope, and the public keys that counted as it was accepted, by key id."""

    envelope: bytes
    keys: Mapping[str, bytes]

    @property
    def keyids(self) -> tuple[str, ...]:
        return tuple(self.keys)

    @property
    def keys_text(self) -> str:
        return json.dumps([each.hex() for each in self.keys.values()])


@attrs.frozen(kw_only=True)
class _Fetched:
    """A class manifest that counts."""

    kept: _Kept
    manifest: ClassManifest
    sha256: str


@attrs.define(kw_only=True)
class _Membership:
    """One class, as far as it is this device's."""

    gate: Gate | None = None
    refused_gate: ManifestRejected | None = None
    """Why the one that stands there, and is another, does not count."""
    kept_gate: _Kept | None = None
    manifest: ClassManifest | None = None
    """The one that is followed."""
    kept_manifest: _Kept | None = None
    manifest_sha256: str = ""
    candidate: _Fetched | None = None
    """The one that was fetched last, to see whether it may be followed."""
    begun: int = 0
    """The newest generation that this device was let in to."""
    phase: LayerPhase = "Waiting"
    reason: str = ""
    message: str = ""
    since: str = attrs.field(factory=timestamp)
    again_at: datetime | None = None

    def note(self, phase: LayerPhase, reason: str, message: str = "") -> None:
        if (phase, reason) != (self.phase, self.reason):
            self.since = timestamp()
        self.phase, self.reason, self.message = phase, reason, message

    def to_row(self, name: str) -> Statement:
        told = {
            "begun": self.begun,
            "phase": self.phase,
            "reason": self.reason,
            "message": self.message,
            "since": self.since,
        }
        gate, manifest = self.kept_gate, self.kept_manifest
        row = (
            name,
            gate.envelope if gate else None,
            gate.keys_text if gate else "[]",
            manifest.envelope if manifest else None,
            manifest.keys_text if manifest else "[]",
            json.dumps(told),
        )
        return (_SAVE_CLASS, row)


class Classes:
    """Knows the fleet index and this device's classes."""

    def __init__(self, config: AgentConfig, database: Database, desired: Desired) -> None:
        self._fleet = config.fleet
        self._agent_id = config.agent_id
        self._database = database
        self._desired = desired
        self._kept_index: _Kept | None = None
        self.index: FleetIndex | None = None
        self.rejected = ""
        """Why the index that stands there, and is newer, does not count."""
        self._ours: dict[str, _Membership] = {}
        self._in_force: Sequence[FollowedClass] = ()
        """What was put in force last."""

    async def load(self) -> None:
        """Read what the last run left, and put in force what was followed."""
        for envelope, keys in await self._database.read("SELECT envelope, keys FROM fleet_index"):
            kept = self._reopen(envelope, keys, FLEET_TYPE)
            if kept is not None:
                self._kept_index = kept[0]
                self.index = parse_index(kept[1].payload, fleet=self._fleet)
        for name, gate, gate_keys, manifest, manifest_keys, note in await self._database.read(
            "SELECT name, gate, gate_keys, manifest, manifest_keys, note FROM class"
        ):
            ours = self._ours[name] = _Membership(**json.loads(note))
            if (kept := self._reopen(gate, gate_keys, GATE_TYPE)) is not None:
                ours.kept_gate = kept[0]
                ours.gate = parse_gate(kept[1].payload, fleet=self._fleet, name=name)
            if (kept := self._reopen(manifest, manifest_keys, CLASS_TYPE)) is not None:
                ours.kept_manifest = kept[0]
                ours.manifest_sha256 = hashlib.sha256(kept[1].payload).hexdigest()
                ours.manifest = parse_class_manifest(kept[1].payload, fleet=self._fleet, name=name)
        self._follow()

    def _reopen(
        self, envelope: bytes | None, keys: str, payload_type: str
    ) -> tuple[_Kept, Opened] | None:
        """Open what was kept: by the keys that counted as it was accepted, whatever has become of them."""
        if envelope is None:
            return None
        then = pin_keys(VerifyKey(bytes.fromhex(each)) for each in json.loads(keys))
        try:
            opened = open_envelope(envelope, then, payload_type=payload_type)
        except ManifestRejected as error:
            log.warning("what was kept of a class no longer counts: %s", error.message)
            return None
        return _Kept(envelope=envelope, keys=then), opened

    @property
    def again_at(self) -> datetime | None:
        """Return when it is worth while to look again, though nothing new was said; None for never."""
        return min((each.again_at for each in self._ours.values() if each.again_at), default=None)

    def notes(self) -> Mapping[str, LayerNote]:
        """Return what is to be told of each class of this device, by its layer's name."""
        in_force = self._desired.in_force
        left_out = in_force.left_out if in_force else frozenset[str]()
        return {
            f"class:{name}": _to_note(each, is_left_out=f"class:{name}" in left_out)
            for name, each in sorted(self._ours.items())
        }

    async def look(self, source: Source, hinted: str | None = None) -> None:
        """Look what is newest, and put it in force where this device may follow it.

        *hinted*: only the gate of that class may be new; None: anything may be. `BusUnreachable` where
        something could not be fetched: what is followed stays followed.
        """
        if hinted is None:
            await self._update_index(source)
        if self.index is None or not self._desired.knows_own:
            return  # by which labels it belongs to classes is not known: what is followed stays so
        statements: list[Statement] = []
        labels = self._desired.labels
        try:
            for name, rule in self.index.classes.items():
                if not _may_concern(rule, labels):
                    continue
                ours = self._ours.setdefault(name, _Membership())
                if hinted in {None, name}:
                    await self._update_gate(source, name, ours)
                await self._choose(source, name, rule, ours)
                statements.append(ours.to_row(name))
        finally:
            for name in self._find_left(labels):
                del self._ours[name]
                statements.append((_FORGET_CLASS, (name,)))
            self._database.along(*statements)
            # Also where something could not be fetched: what was, is followed.
            self._follow()

    def _find_left(self, labels: Mapping[str, str]) -> list[str]:
        """Return the classes that this device belongs to no more, whatever gates say."""
        assert self.index is not None
        rules = self.index.classes
        return [
            name
            for name in self._ours
            if name not in rules or not _may_concern(rules[name], labels)
        ]

    def _followed(self) -> list[FollowedClass]:
        rules = self.index.classes if self.index else {}
        return [
            FollowedClass(
                manifest=each.manifest,
                priority=rules[name].priority if name in rules else 0,
                keyids=each.kept_manifest.keyids if each.kept_manifest else (),
            )
            for name, each in sorted(self._ours.items())
            if each.manifest is not None
        ]

    def _follow(self) -> None:
        """Put in force what is followed, if that is another thing than before."""
        followed = self._followed()
        if followed == self._in_force:
            return
        new = [each for each in followed if each not in self._in_force]
        by = new[0].keyids if new else self._kept_index.keyids if self._kept_index else ()
        self._in_force = followed
        self._desired.follow(followed, by)

    async def _update_index(self, source: Source) -> None:
        envelope = await source.fetch_index()
        if envelope is None or (self._kept_index and envelope == self._kept_index.envelope):
            self.rejected = ""
            return
        try:
            kept, opened = self._open(envelope, FLEET_TYPE, self._manifest_keys())
            index = parse_index(opened.payload, fleet=self._fleet)
            self._refuse_epoch(index.epoch)
            if self.index is not None and index.order < self.index.order:
                raise StaleGeneration(
                    f"fleet index: generation {index.generation} of epoch {index.epoch} is older than "
                    f"{self.index.generation} of epoch {self.index.epoch}, which was accepted here; apply "
                    "again"
                )
            if self.index is not None and index.order == self.index.order and index != self.index:
                raise StaleGeneration(
                    f"fleet index: generation {index.generation} is in force with other content; apply again"
                )
            self._refuse_unscoped_index(opened.keyids)
        except ManifestRejected as error:
            self.rejected = error.message
            log.warning("fleet index refused: %s", error.message)
            return
        self.rejected = ""
        self._kept_index, self.index = kept, index
        self._database.along((_SAVE_INDEX, (envelope, kept.keys_text)))

    async def _update_gate(self, source: Source, name: str, ours: _Membership) -> None:
        envelope = await source.fetch_gate(name)
        if envelope is None or (ours.kept_gate and envelope == ours.kept_gate.envelope):
            ours.refused_gate = None
            return
        try:
            kept, opened = self._open(envelope, GATE_TYPE, self._gate_keys())
            gate = parse_gate(opened.payload, fleet=self._fleet, name=name)
            self._refuse_epoch(gate.epoch)
            if ours.gate is not None and gate.order <= ours.gate.order:
                raise StaleGeneration(
                    f"gate {gate.order} is not newer than {ours.gate.order}, which was accepted here"
                )
        except ManifestRejected as error:
            log.warning("gate of %s refused: %s", name, error.message)
            ours.refused_gate = error
            return
        ours.kept_gate, ours.gate, ours.refused_gate = kept, gate, None

    async def _choose(self, source: Source, name: str, rule: ClassRule, ours: _Membership) -> None:
        """Follow what the gate, the index and the class manifest let this device follow."""
        gate = ours.gate
        ours.again_at = None
        if gate is None:
            ours.note("Waiting", "NoGate", "nothing was ever rolled out to this class")
            return
        try:
            if await self._begins(source, name, ours, gate):
                ours.begun = gate.generation
            if ours.begun == gate.generation and gate.state != "aborted":
                await self._take(source, name, rule, ours, gate.generation, gate.sha256)
                ours.note("Admitted", "")
                return
            await self._take(
                source, name, rule, ours, gate.stable_generation, gate.stable_sha256 or ""
            )
            if gate.state == "aborted":
                reached = ours.begun == gate.generation
                ours.note(
                    "RolledBack" if reached else "Waiting", "Aborted", gate.reason or "aborted"
                )
        except ManifestRejected as error:
            log.warning("class %s refused: %s", name, error.message)
            ours.note("Refused", error.code, error.message)
        except BusUnreachable:
            ours.again_at = datetime.now(UTC) + _FETCH_AGAIN
            raise

    async def _begins(self, source: Source, name: str, ours: _Membership, gate: Gate) -> bool:
        """Return whether this device may begin with what *gate* is about now. Why not is noted."""
        if ours.begun == gate.generation or gate.state == "aborted":
            return False
        assert self.index is not None
        place = find_place(self._fleet, name, gate.generation, self._agent_id)
        labels = self._desired.labels
        if (shut := _find_shut(gate, place, labels)) is not None:
            ours.note("Waiting", shut.reason, shut.message)
            return False
        fetched = await self._fetch_manifest(source, name, gate.generation, gate.sha256, ours)
        manifest = fetched.manifest
        if manifest.supersedes != gate.stable_generation:
            raise InvalidManifest(
                f"the gate would go back to generation {gate.stable_generation}, and what it opens "
                f"supersedes {manifest.supersedes}: apply again"
            )
        clock, now = datetime.now(UTC), self._desired.now_at_least()
        if manifest.expires_at is not None and manifest.expires_at <= now:
            raise ManifestExpired(f"generation {manifest.generation} has expired; apply again")
        if manifest.rollout.windows and clock < manifest.issued_at:
            message = "its clock is behind what was signed, so no window can be told"
            ours.note("Waiting", "ClockNotTrusted", message)
            ours.again_at = clock + _FETCH_AGAIN
            return False
        choice = may_begin(
            manifest,
            gate,
            self.index,
            place=place,
            labels=labels,
            now=now,
            by_operator=self._is_by_operator(ours),
        )
        if not choice.may:
            ours.note("Waiting", choice.reason, choice.message)
            ours.again_at = choice.again_at
        return choice.may

    def _is_by_operator(self, ours: _Membership) -> bool:
        assert self.index is not None
        gate_keys = pin_keys(map(VerifyKey.from_text, self.index.gate_keys))
        return ours.kept_gate is not None and any(
            each not in gate_keys for each in ours.kept_gate.keyids
        )

    async def _take(
        self,
        source: Source,
        name: str,
        rule: ClassRule,
        ours: _Membership,
        generation: int,
        sha256: str,
    ) -> None:
        """Follow that *generation*, or none where this device does not belong to the class by it."""
        selector = rule.find_selector(generation) if generation else None
        if selector is None or not selector.matches(self._desired.labels):
            ours.manifest = ours.kept_manifest = None
            ours.manifest_sha256 = ""
            return
        if ours.manifest is not None and ours.manifest_sha256 == sha256:
            return
        fetched = await self._fetch_manifest(source, name, generation, sha256, ours)
        ours.candidate = None
        ours.kept_manifest, ours.manifest = fetched.kept, fetched.manifest
        ours.manifest_sha256 = fetched.sha256

    async def _fetch_manifest(
        self, source: Source, name: str, generation: int, sha256: str, ours: _Membership
    ) -> _Fetched:
        """Return that generation of the class, as the gate knows it and an operator has signed it."""
        if ours.candidate is not None and ours.candidate.sha256 == sha256:
            return ours.candidate
        envelope = await source.fetch_class_manifest(name, generation)
        if envelope is None:
            raise InvalidManifest(
                f"generation {generation} of the class {name} is not on the server; apply it again"
            )
        kept, opened = self._open(envelope, CLASS_TYPE, self._manifest_keys())
        if hashlib.sha256(opened.payload).hexdigest() != sha256:
            raise InvalidManifest(
                f"generation {generation} of the class {name} is another than the gate was opened for; apply "
                "it again"
            )
        manifest = parse_class_manifest(
            opened.payload, fleet=self._fleet, name=name, generation=generation
        )
        self._refuse_epoch(manifest.epoch)
        self._refuse_unscoped(manifest, ours.manifest, opened.keyids)
        ours.candidate = _Fetched(kept=kept, manifest=manifest, sha256=sha256)
        return ours.candidate

    def _open(
        self, envelope: bytes, payload_type: str, trusted: Mapping[str, bytes]
    ) -> tuple[_Kept, Opened]:
        opened = open_envelope(envelope, trusted, payload_type=payload_type)
        keys = {each: trusted[each] for each in opened.keyids}
        return _Kept(envelope=envelope, keys=keys), opened

    def _manifest_keys(self) -> Mapping[str, bytes]:
        trust = self._desired.trust
        if trust.is_lost:
            raise UntrustedSignature(
                "the root document that counted here is lost; it is fetched again"
            )
        return trust.find_keys("manifest", self._desired.now_at_least())

    def _gate_keys(self) -> Mapping[str, bytes]:
        """Who may sign gates: operators, and those whom an operator has named for it."""
        assert self.index is not None
        named = pin_keys(map(VerifyKey.from_text, self.index.gate_keys))
        return {**named, **self._manifest_keys()}

    def _refuse_epoch(self, epoch: int) -> None:
        root = self._desired.trust.root
        if root is not None and epoch != root.epoch:
            raise WrongEpoch(
                f"epoch: {epoch}, and by the root document, version {root.version}, it is {root.epoch}; "
                "apply again"
            )

    def _refuse_unscoped_index(self, keyids: Sequence[str]) -> None:
        """Raise `OutOfScope` unless those who signed the index may sign everything."""
        root = self._desired.trust.root
        if root is None:
            return
        from harmony_core.wire.root import check_kinds, refuse_over  # noqa: PLC0415 - a fleet without one

        now = self._desired.now_at_least()
        refuse_over(root, now)
        check_kinds(root, ["*"], keyids, now)

    def _refuse_unscoped(
        self, manifest: ClassManifest, before: ClassManifest | None, keyids: Sequence[str]
    ) -> None:
        """Raise `OutOfScope` unless those who signed *manifest* may change what it changes here."""
        root = self._desired.trust.root
        if root is None:
            return
        from harmony_core.wire.root import check_scope, refuse_over  # noqa: PLC0415 - as above

        now = max(self._desired.now_at_least(), manifest.issued_at)
        refuse_over(root, now)
        # Of a class that this device has nothing of, all is new, and nothing goes.
        nothing = manifest.model_copy(update={"scores": (), "removals_allowed": 0})
        check_scope(root, manifest, before or nothing, keyids, now)


def _may_concern(rule: ClassRule, labels: Mapping[str, str]) -> bool:
    """Return whether a device with *labels* belongs to the class by any generation of it."""
    return any(
        (selector := rule.find_selector(each.since)) is not None and selector.matches(labels)
        for each in rule.selectors
    )


def _find_shut(gate: Gate, place: int, labels: Mapping[str, str]) -> Choice | None:
    """Return why it is not worth while to fetch what *gate* is about; None where it is."""
    if is_let_in(gate, place, labels):
        return None
    return Choice(False, "NotOpen", f"the gate is {gate.state}, at wave {gate.step + 1}")


def _to_note(ours: _Membership, *, is_left_out: bool) -> LayerNote:
    gate = ours.gate
    phase, reason, message = ours.phase, ours.reason, ours.message
    if ours.refused_gate is not None:
        phase, reason, message = "Refused", ours.refused_gate.code, ours.refused_gate.message
    if is_left_out:
        phase, reason = "Refused", "TooManyScores"
        message = "with its Scores there would be more than a device can report on"
    return LayerNote(
        generation=ours.manifest.generation if ours.manifest else 0,
        wanted=gate.generation if gate else 0,
        gate=(gate.term, gate.seq) if gate else None,
        phase=phase,
        reason=reason,
        message=message,
        since=ours.since,
    )
