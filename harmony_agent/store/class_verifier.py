"""Whose word counts of classes: each document is opened, and refused whole where it does not count here.

envelope -> signed by whom? -> of this fleet and class? -> of this epoch, within its signers' scope? -> counts
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence

from harmony_core.errors import (
    InvalidManifest,
    ManifestRejected,
    StaleGeneration,
    UntrustedSignature,
    WrongEpoch,
)
from harmony_core.wire.class_manifest import (
    CLASS_TYPE,
    ClassManifest,
    class_target,
    parse_class_manifest,
)
from harmony_core.wire.envelope import Opened, VerifyKey, open_envelope, pin_keys
from harmony_core.wire.fleet_index import FLEET_TYPE, FleetIndex, parse_index
from harmony_core.wire.gate import GATE_TYPE, Gate, parse_gate
from harmony_core.wire.names import FLEET_WIDE

from .desired import Desired
from .membership import Fetched, Kept

__all__ = ["ClassVerifier", "reopen"]

log = logging.getLogger(__name__)


class ClassVerifier:
    """Opens what comes from the bus, by what is trusted now. Raises the `ManifestRejected` that says why."""

    def __init__(self, fleet: str, desired: Desired) -> None:
        self._fleet = fleet
        self._desired = desired

    def open_index(self, envelope: bytes, current: FleetIndex | None) -> tuple[Kept, FleetIndex]:
        """Return the fleet index in *envelope*, which is to take the place of *current*."""
        kept, opened = self._open(envelope, FLEET_TYPE, self._manifest_keys())
        index = parse_index(opened.payload, fleet=self._fleet)
        self._refuse_epoch(index.epoch)
        if current is not None and index.order < current.order:
            raise StaleGeneration(
                f"fleet index: generation {index.generation} of epoch {index.epoch} is older than "
                f"{current.generation} of epoch {current.epoch}, which was accepted here; apply again"
            )
        if current is not None and index.order == current.order and index != current:
            raise StaleGeneration(
                f"fleet index: generation {index.generation} is in force with other content; apply again"
            )
        self._refuse_unscoped_index(opened.keyids)
        return kept, index

    def open_gate(self, envelope: bytes, name: str, index: FleetIndex) -> tuple[Kept, Gate]:
        """Return the gate of the class *name* in *envelope*."""
        kept, opened = self._open(envelope, GATE_TYPE, self._gate_keys(index))
        gate = parse_gate(opened.payload, fleet=self._fleet, name=name)
        self._refuse_epoch(gate.epoch)
        self._refuse_over()
        return self._keep_who_may(kept, index, class_target(name)), gate

    def open_manifest(
        self,
        envelope: bytes,
        name: str,
        generation: int,
        sha256: str,
        *,
        before: ClassManifest | None,
    ) -> Fetched:
        """Return that generation of the class *name*, as the gate knows it.

        Those who signed it must be allowed what it changes of *before*: what is followed now, or what it
        supersedes. Of None, all is new, and nothing goes.
        """
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
        self._refuse_unscoped(manifest, before, opened.keyids)
        return Fetched(kept=kept, manifest=manifest, sha256=sha256)

    def refuse_return(
        self, before: ClassManifest, stable: ClassManifest | None, keyids: Sequence[str]
    ) -> None:
        """Raise `OutOfScope` unless *keyids*, who signed what supersedes *stable*, may go back to it from
        *before*, which is followed now; None is for no Score at all."""
        self._refuse_unscoped(stable or _without_scores(before), before, keyids)

    def _open(
        self, envelope: bytes, payload_type: str, trusted: Mapping[str, bytes]
    ) -> tuple[Kept, Opened]:
        opened = open_envelope(envelope, trusted, payload_type=payload_type)
        keys = {each: trusted[each] for each in opened.keyids}
        return Kept(envelope=envelope, keys=keys), opened

    def _manifest_keys(self) -> Mapping[str, bytes]:
        trust = self._desired.trust
        if trust.is_lost:
            raise UntrustedSignature(
                "the root document that counted here is lost; it is fetched again"
            )
        return trust.find_keys("manifest", self._desired.now_at_least())

    def _gate_keys(self, index: FleetIndex) -> Mapping[str, bytes]:
        """Return the keys that may sign gates: those of operators, and those that an operator has named for
        it."""
        return {**self._pin_gate_keys(index), **self._manifest_keys()}

    def _keep_who_may(self, kept: Kept, index: FleetIndex, target: str) -> Kept:
        """Return *kept*, a gate of *target*, with only those keys that may sign it: with one more, an
        operator would count as having signed it. Raise `OutOfScope` where none may."""
        root = self._desired.trust.root
        if root is None:
            return kept
        from harmony_core.wire.root import check_target  # noqa: PLC0415 - a fleet without one

        now = self._desired.now_at_least()
        may = {*self._pin_gate_keys(index), *root.find_keys("manifest", now, target)}
        keys = {keyid: key for keyid, key in kept.keys.items() if keyid in may}
        if not keys:
            check_target(root, kept.keyids, now, target)
        return Kept(envelope=kept.envelope, keys=keys)

    def _pin_gate_keys(self, index: FleetIndex) -> Mapping[str, bytes]:
        """Return the keys that may sign gates by *index*; none by one of an earlier epoch: whoever has signed
        that may be who the new one is to keep out."""
        if index.epoch != self._desired.epoch:
            return {}
        return pin_keys(map(VerifyKey.from_text, index.gate_keys))

    def is_by_operator(self, kept: Kept, index: FleetIndex) -> bool:
        """Return whether an operator has signed the gate *kept*, and not only a key for gates."""
        gate_keys = self._pin_gate_keys(index)
        return any(each not in gate_keys for each in kept.keyids)

    def _refuse_over(self) -> None:
        """Raise `RootExpired` where the root document has expired."""
        root = self._desired.trust.root
        if root is None:
            return
        from harmony_core.wire.root import refuse_over  # noqa: PLC0415 - as above

        refuse_over(root, self._desired.now_at_least())

    def _refuse_epoch(self, epoch: int) -> None:
        if epoch == (here := self._desired.epoch):
            return
        root = self._desired.trust.root
        if root is None:
            raise WrongEpoch(
                f"epoch: {epoch}, and it is {here} here; only a root document begins another, which `harmony "
                "trust init` makes. Apply again, and find out who has signed this one"
            )
        raise WrongEpoch(
            f"epoch: {epoch}, and by the root document, version {root.version}, it is {here}; apply again"
        )

    def _refuse_unscoped_index(self, keyids: Sequence[str]) -> None:
        """Raise `OutOfScope` unless those who signed the index may sign everything."""
        root = self._desired.trust.root
        if root is None:
            return
        from harmony_core.wire.root import (  # noqa: PLC0415 - as above
            check_kinds,
            check_target,
            refuse_over,
        )

        now = self._desired.now_at_least()
        refuse_over(root, now)
        check_target(root, keyids, now, FLEET_WIDE)
        check_kinds(root, ["*"], keyids, now, FLEET_WIDE)

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
        check_scope(root, manifest, before or _without_scores(manifest), keyids, now)


def _without_scores(manifest: ClassManifest) -> ClassManifest:
    return manifest.model_copy(update={"scores": (), "removals_allowed": 0})


def reopen(envelope: bytes | None, keys: str, payload_type: str) -> tuple[Kept, Opened] | None:
    """Open what was kept, with the keys that counted when it was accepted, whatever has happened to them
    since."""
    if envelope is None:
        return None
    then = pin_keys(VerifyKey(bytes.fromhex(each)) for each in json.loads(keys))
    try:
        opened = open_envelope(envelope, then, payload_type=payload_type)
    except ManifestRejected as error:
        log.warning("what was kept of a class no longer counts: %s", error.message)
        return None
    return Kept(envelope=envelope, keys=then), opened
