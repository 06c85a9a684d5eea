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

from harmony_agent.clock import find_zone, timestamp
from harmony_agent.config import AgentConfig
from harmony_core.errors import (
    BusUnreachable,
    InvalidManifest,
    ManifestExpired,
    ManifestRejected,
    StaleGeneration,
)
from harmony_core.wire.admission import Choice, find_place, is_let_in, may_begin
from harmony_core.wire.class_manifest import CLASS_TYPE, parse_class_manifest
from harmony_core.wire.envelope import VerifyKey, pin_keys
from harmony_core.wire.fleet_index import FLEET_TYPE, ClassRule, FleetIndex, parse_index
from harmony_core.wire.gate import GATE_TYPE, Gate, parse_gate

from .class_verifier import ClassVerifier, reopen
from .database import Database, Statement
from .desired import Desired
from .in_force import FollowedClass, LayerNote
from .membership import Fetched, Kept, Membership, note_of

__all__ = ["Classes", "Source"]

log = logging.getLogger(__name__)

_SAVE_INDEX = "INSERT OR REPLACE INTO fleet_index (only, envelope, keys) VALUES (1, ?, ?)"
_FORGET_CLASS = "DELETE FROM class WHERE name = ?"
_FETCH_AGAIN = timedelta(minutes=1)


class Source(Protocol):
    """Where the documents are: `harmony_agent.bus.connection.Bus`. Each is None where there is none; raises
    `BusUnreachable`."""

    async def fetch_index(self) -> bytes | None: ...
    async def fetch_gate(self, name: str) -> bytes | None: ...
    async def fetch_class_manifest(self, name: str, generation: int) -> bytes | None: ...


class Classes:
    """Knows the fleet index and this device's classes."""

    def __init__(self, config: AgentConfig, database: Database, desired: Desired) -> None:
        self._fleet = config.fleet
        self._agent_id = config.agent_id
        self._database = database
        self._desired = desired
        self._verifier = ClassVerifier(config.fleet, desired)
        self._kept_index: Kept | None = None
        self.index: FleetIndex | None = None
        self.rejected = ""
        """Why the index that stands there, and is newer, does not count."""
        self._ours: dict[str, Membership] = {}
        self._in_force: Sequence[FollowedClass] = ()
        """What was put in force last."""

    async def load(self) -> None:
        """Read what the last run left, and make effective what was followed."""
        for envelope, keys in await self._database.read("SELECT envelope, keys FROM fleet_index"):
            if (kept := reopen(envelope, keys, FLEET_TYPE)) is not None:
                self._kept_index = kept[0]
                self.index = parse_index(kept[1].payload, fleet=self._fleet)
        for name, gate, gate_keys, manifest, manifest_keys, note in await self._database.read(
            "SELECT name, gate, gate_keys, manifest, manifest_keys, note FROM class"
        ):
            ours = self._ours[name] = Membership(**json.loads(note))
            if (kept := reopen(gate, gate_keys, GATE_TYPE)) is not None:
                ours.kept_gate = kept[0]
                ours.gate = parse_gate(kept[1].payload, fleet=self._fleet, name=name)
            if (kept := reopen(manifest, manifest_keys, CLASS_TYPE)) is not None:
                ours.kept_manifest = kept[0]
                ours.manifest_sha256 = hashlib.sha256(kept[1].payload).hexdigest()
                ours.manifest = parse_class_manifest(kept[1].payload, fleet=self._fleet, name=name)
            ours.unstored(name)  # that is how it was read
        self._follow()

    @property
    def again_at(self) -> datetime | None:
        """Return when it is worth while to look again, though nothing new was said; None for never."""
        return min((each.again_at for each in self._ours.values() if each.again_at), default=None)

    def notes(self) -> Mapping[str, LayerNote]:
        """Return what is to be reported of each class of this device, by its layer's name."""
        in_force = self._desired.in_force
        left_out = in_force.left_out if in_force else frozenset[str]()
        return {
            f"class:{name}": note_of(each, is_left_out=f"class:{name}" in left_out)
            for name, each in sorted(self._ours.items())
        }

    def find_refused(self) -> str:
        """Return in words which classes cannot be followed as they are signed; empty for none."""
        return "; ".join(
            f"{name}: {each.reason}: {each.message}"
            for name, each in self.notes().items()
            if each.phase == "Refused"
        )

    async def look(self, source: Source, hinted: str | None = None) -> None:
        """Look for what is newest, and make it effective where this device may follow it.

        *hinted* says that only the gate of that class may be new; None: anything may be. Raise
        `BusUnreachable` where something could not be fetched: what is followed stays followed.
        """
        if hinted is None:
            await self._update_index(source)
        if self.index is None or not self._desired.knows_own:
            return  # by which labels it belongs to classes is not known: what is followed stays so
        statements: list[Statement] = []
        labels = self._desired.labels
        try:
            for name, rule in self.index.classes.items():
                if not rule.may_select(labels):
                    continue
                ours = self._ours.setdefault(name, Membership())
                if hinted in {None, name}:
                    await self._update_gate(source, name, ours)
                await self._choose(source, name, rule, ours)
                statements += ours.unstored(name)
        finally:
            for name in self._find_left(labels):
                del self._ours[name]
                statements.append((_FORGET_CLASS, (name,)))
            if statements:
                self._database.along(*statements)
            # Also where something could not be fetched: what was, is followed.
            self._follow()

    def _find_left(self, labels: Mapping[str, str]) -> list[str]:
        """Return the classes that this device no longer belongs to, whatever gates say."""
        assert self.index is not None
        rules = self.index.classes
        return [
            name for name in self._ours if name not in rules or not rules[name].may_select(labels)
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
        """Make effective what is followed, if it has changed."""
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
            kept, index = self._verifier.open_index(envelope, self.index)
        except ManifestRejected as error:
            self.rejected = error.message
            log.warning("fleet index refused: %s", error.message)
            return
        self.rejected = ""
        self._kept_index, self.index = kept, index
        self._database.along((_SAVE_INDEX, (envelope, kept.keys_text)))

    async def _update_gate(self, source: Source, name: str, ours: Membership) -> None:
        envelope = await source.fetch_gate(name)
        if envelope is None or (ours.kept_gate and envelope == ours.kept_gate.envelope):
            ours.refused_gate = None
            return
        assert self.index is not None
        try:
            kept, gate = self._verifier.open_gate(envelope, name, self.index)
            if ours.gate is not None and gate.order <= ours.gate.order:
                raise StaleGeneration(
                    f"gate {gate.order} is not newer than {ours.gate.order}, which was accepted here"
                )
        except ManifestRejected as error:
            log.warning("gate of %s refused: %s", name, error.message)
            ours.refused_gate = error
            return
        ours.kept_gate, ours.gate, ours.refused_gate = kept, gate, None

    async def _choose(self, source: Source, name: str, rule: ClassRule, ours: Membership) -> None:
        """Follow what the gate, the index and the class manifest let this device follow."""
        gate = ours.gate
        ours.again_at = None
        if gate is None:
            ours.note("Waiting", "NoGate", "nothing was ever rolled out to this class")
            return
        try:
            if await self._begins(source, name, ours, gate):
                ours.begun = gate.generation
                ours.since = timestamp()  # the phase may be what it was of the generation before
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

    async def _begins(self, source: Source, name: str, ours: Membership, gate: Gate) -> bool:
        """Return whether this device may begin with what *gate* allows now. The reason why not is
        recorded."""
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
        find_zone()  # somebody may have set another time zone since the agent began
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

    def _is_by_operator(self, ours: Membership) -> bool:
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
        ours: Membership,
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
        self, source: Source, name: str, generation: int, sha256: str, ours: Membership
    ) -> Fetched:
        """Return that generation of the class, as the gate knows it and an operator has signed it."""
        if ours.candidate is not None and ours.candidate.sha256 == sha256:
            return ours.candidate
        envelope = await source.fetch_class_manifest(name, generation)
        if envelope is None:
            raise InvalidManifest(
                f"generation {generation} of the class {name} is not on the server; apply it again"
            )
        ours.candidate = self._verifier.open_manifest(
            envelope, name, generation, sha256, before=ours.manifest
        )
        return ours.candidate


def _find_shut(gate: Gate, place: int, labels: Mapping[str, str]) -> Choice | None:
    """Return why there is no use in fetching what *gate* is about; None where there is."""
    if is_let_in(gate, place, labels):
        return None
    return Choice(False, "NotOpen", f"the gate is {gate.state}, at wave {gate.step + 1}")
