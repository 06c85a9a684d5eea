"""One class, as far as it is this device's: what counts of it, what is followed, and what is told of that."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime

import attrs

from harmony_agent.clock import timestamp
from harmony_core.errors import ManifestRejected
from harmony_core.wire.actual_state import LayerPhase
from harmony_core.wire.class_manifest import ClassManifest
from harmony_core.wire.gate import Gate

from .database import Statement
from .in_force import LayerNote

__all__ = ["Fetched", "Kept", "Membership", "note_of"]

_SAVE_CLASS = (
    "INSERT OR REPLACE INTO class (name, gate, gate_keys, manifest, manifest_keys, note) "
    "VALUES (?, ?, ?, ?, ?, ?)"
)


@attrs.frozen(kw_only=True)
class Kept:
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
class Fetched:
    """A class manifest that counts."""

    kept: Kept
    manifest: ClassManifest
    sha256: str


@attrs.define(kw_only=True)
class Membership:
    """One class, as far as it is this device's."""

    gate: Gate | None = None
    refused_gate: ManifestRejected | None = None
    """Why the one that stands there, and is another, does not count."""
    kept_gate: Kept | None = None
    manifest: ClassManifest | None = None
    """The one that is followed."""
    kept_manifest: Kept | None = None
    manifest_sha256: str = ""
    at_hand: Mapping[str, bytes] = attrs.field(factory=dict[str, bytes])
    """Envelopes of class manifests that were fetched to see whether they may be followed, by the hash of what
    is in them. Whether one counts is asked whenever it is used."""
    begun: int = 0
    """The newest generation that this device was let in to."""
    phase: LayerPhase = "Waiting"
    reason: str = ""
    message: str = ""
    since: str = attrs.field(factory=timestamp)
    again_at: datetime | None = None
    stored: Statement | None = None
    """What wrote it down last; None where nothing has."""

    def follow(self, found: Fetched | None) -> None:
        """Note *found* as what is followed; None for nothing of the class."""
        self.at_hand = {}
        self.kept_manifest = found.kept if found else None
        self.manifest = found.manifest if found else None
        self.manifest_sha256 = found.sha256 if found else ""

    def note(self, phase: LayerPhase, reason: str, message: str = "") -> None:
        if (phase, reason) != (self.phase, self.reason):
            self.since = timestamp()
        self.phase, self.reason, self.message = phase, reason, message

    def unstored(self, name: str) -> list[Statement]:
        """Return what must be written of the class *name*: nothing where nothing is new.

        It counts as written from now on.
        """
        row = self._to_row(name)
        if row == self.stored:
            return []
        self.stored = row
        return [row]

    def _to_row(self, name: str) -> Statement:
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


def note_of(ours: Membership, *, is_left_out: bool) -> LayerNote:
    """Return what is to be reported of *ours*. *is_left_out* says that there would be too many Scores with
    it."""
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
