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
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Protocol

import attrs

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
from harmony_core.wire.class_manifest import CLASS_TYPE, ClassManifest, parse_class_manifest
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
            if gate.state != "aborted":
                if self._has_begun(rule, ours, gate):
                    if not self._belongs(rule, gate.generation):
                        ours.follow(None)
                    ours.note("Admitted", "")
                    return
                if (latest := await self._find_begun(source, name, ours, gate)) is not None:
                    ours.begun = gate.generation
                    # The phase may be what it was of the generation before.
                    ours.since = timestamp()
                    ours.follow(latest if self._belongs(rule, gate.generation) else None)
                    ours.note("Admitted", "")
                    return
            waits = await self._follow_stable(source, name, rule, ours, gate)
            if gate.state == "aborted":
                reached = ours.begun == gate.generation
                ours.note(
                    "RolledBack" if reached and not waits else "Waiting",
                    "Aborted",
                    gate.reason or "aborted",
                )
            if waits:
                ours.note(ours.phase, ours.reason, f"{ours.message}; {waits}")
        except ManifestRejected as error:
            log.warning("class %s refused: %s", name, error.message)
            ours.note("Refused", error.code, error.message)
        except BusUnreachable:
            ours.again_at = datetime.now(UTC) + _FETCH_AGAIN
            raise

    def _belongs(self, rule: ClassRule, generation: int) -> bool:
        """Return whether this device belongs to the class by that *generation* of it; by 0, nobody does."""
        selector = rule.find_selector(generation) if generation else None
        return selector is not None and selector.matches(self._desired.labels)

    def _has_begun(self, rule: ClassRule, ours: Membership, gate: Gate) -> bool:
        """Return whether this device has begun with what *gate* lets in, and has not gone back since."""
        if ours.begun != gate.generation:
            return False
        if ours.manifest is None:
            return not self._belongs(rule, gate.generation)
        return ours.manifest_sha256 == gate.sha256

    async def _find_begun(
        self, source: Source, name: str, ours: Membership, gate: Gate
    ) -> Fetched | None:
        """Return what *gate* lets in, where this device may begin with it now; else None, and record the
        reason."""
        place = find_place(self._fleet, name, gate.generation, self._agent_id)
        if (shut := _find_shut(gate, place, self._desired.labels)) is not None:
            ours.note("Waiting", shut.reason, shut.message)
            return None
        self._verify_gate_again(name, ours)
        latest = await self._fetch_manifest(
            source, name, ours, gate.generation, gate.sha256, before=ours.manifest
        )
        _refuse_unless_superseded(gate, latest.manifest)
        if (wait := self._find_wait(ours, gate, latest.manifest)) is None:
            return latest
        ours.note("Waiting", wait.reason, wait.message)
        ours.again_at = wait.again_at
        return None

    async def _follow_stable(
        self, source: Source, name: str, rule: ClassRule, ours: Membership, gate: Gate
    ) -> str:
        """Follow the stable generation of *gate*; return why this device does not do so yet, empty where it
        does.

        Whoever signs gates names it, and an operator has said what it may be: what the newest generation
        supersedes. If that is newer than what is followed, it is begun as any other is.
        """
        generation, sha256 = gate.stable_generation, gate.stable_sha256 or ""
        followed = ours.manifest
        belongs = self._belongs(rule, generation)
        if ours.manifest_sha256 == sha256 or (followed is None and not belongs):
            if not belongs:
                ours.follow(None)
            return ""
        if followed is not None and followed.epoch != gate.epoch and not generation:
            return ""  # the first generation of an epoch supersedes nothing, whatever is in force
        self._verify_gate_again(name, ours)
        stable = None
        if generation:
            stable = await self._fetch_manifest(
                source, name, ours, generation, sha256, before=followed
            )
        await self._refuse_other_stable(source, name, ours, gate, stable)
        if stable is not None and (followed is None or followed.order <= stable.manifest.order):
            as_done = gate.model_copy(update={"state": "done"})
            if (wait := self._find_wait(ours, as_done, stable.manifest)) is not None:
                again_at = [each for each in (ours.again_at, wait.again_at) if each is not None]
                ours.again_at = min(again_at, default=None)
                return f"generation {generation}, which comes before it: {wait.message}"
        ours.since = timestamp()
        ours.follow(stable if belongs else None)
        return ""

    async def _refuse_other_stable(
        self, source: Source, name: str, ours: Membership, gate: Gate, stable: Fetched | None
    ) -> None:
        """Raise `ManifestRejected` unless what *gate* is about supersedes *stable*, and whoever has signed it
        may take away what is followed now, if that is newer."""
        followed, before = ours.manifest, stable.manifest if stable else None
        is_latest = ours.manifest_sha256 == gate.sha256
        if followed is not None and is_latest and followed.epoch == gate.epoch:
            _refuse_unless_superseded(gate, followed)  # it goes back from that
            return
        latest = await self._fetch_manifest(
            source, name, ours, gate.generation, gate.sha256, before=before
        )
        _refuse_unless_superseded(gate, latest.manifest)
        if followed is not None and (before is None or before.order < followed.order):
            self._verifier.refuse_return(followed, before, latest.kept.keyids)

    def _verify_gate_again(self, name: str, ours: Membership) -> None:
        """Raise `ManifestRejected` where the gate that was accepted here counts no more: who may sign has
        changed, or another epoch has begun."""
        assert self.index is not None
        assert ours.kept_gate is not None
        ours.kept_gate, _ = self._verifier.open_gate(ours.kept_gate.envelope, name, self.index)

    def _find_wait(self, ours: Membership, gate: Gate, manifest: ClassManifest) -> _Wait | None:
        """Return what this device waits for before it begins with *manifest*, by *gate*; None for nothing."""
        assert self.index is not None
        assert ours.kept_gate is not None
        clock, now = datetime.now(UTC), self._desired.now_at_least()
        if manifest.expires_at is not None and manifest.expires_at <= now:
            raise ManifestExpired(f"generation {manifest.generation} has expired; apply again")
        if manifest.rollout.windows and clock < manifest.issued_at:
            message = "its clock is behind what was signed, so no window can be told"
            return _Wait("ClockNotTrusted", message, clock + _FETCH_AGAIN)
        find_zone()  # somebody may have set another time zone since the agent began
        choice = may_begin(
            manifest,
            gate,
            self.index,
            place=find_place(self._fleet, manifest.name, manifest.generation, self._agent_id),
            labels=self._desired.labels,
            now=now,
            by_operator=self._verifier.is_by_operator(ours.kept_gate, self.index),
        )
        return None if choice.may else _Wait(choice.reason, choice.message, choice.again_at)

    async def _fetch_manifest(
        self,
        source: Source,
        name: str,
        ours: Membership,
        generation: int,
        sha256: str,
        *,
        before: ClassManifest | None,
    ) -> Fetched:
        """Return that generation of the class, as the gate knows it and an operator has signed it, who may
        change what it changes of *before*, by what counts now."""
        if (envelope := ours.at_hand.get(sha256)) is not None:
            with suppress(ManifestRejected):  # somebody else may have signed it since
                return self._verifier.open_manifest(
                    envelope, name, generation, sha256, before=before
                )
        envelope = await source.fetch_class_manifest(name, generation)
        if envelope is None:
            raise InvalidManifest(
                f"generation {generation} of the class {name} is not on the server; apply it again"
            )
        found = self._verifier.open_manifest(envelope, name, generation, sha256, before=before)
        assert ours.gate is not None
        named = (ours.gate.sha256, ours.gate.stable_sha256)
        others = {each: kept for each, kept in ours.at_hand.items() if each in named}
        ours.at_hand = {**others, sha256: envelope}
        return found


@attrs.frozen
class _Wait:
    """Why this device does not begin with a generation."""

    reason: str
    message: str
    again_at: datetime | None


def _refuse_unless_superseded(gate: Gate, manifest: ClassManifest) -> None:
    """Raise `InvalidManifest` unless *manifest*, which *gate* is about, supersedes the stable generation."""
    if manifest.supersedes != gate.stable_generation:
        raise InvalidManifest(
            f"the gate would go back to generation {gate.stable_generation}, and what it opens "
            f"supersedes {manifest.supersedes}: apply again"
        )


def _find_shut(gate: Gate, place: int, labels: Mapping[str, str]) -> Choice | None:
    """Return why there is no use in fetching what *gate* is about; None where there is."""
    if is_let_in(gate, place, labels):
        return None
    return Choice(False, "NotOpen", f"the gate is {gate.state}, at wave {gate.step + 1}")
