"""Desired state: the newest manifest that may be trusted, kept across restarts.

    envelope -> accept (size, signature, target, floor, expiry) -> effective -> stored with claims -> floor

A manifest that fails is refused whole, and the effective one stays so. What is wrong inside an entry
is that entry's own `fault`; the others proceed.
"""

from __future__ import annotations

import errno
import json
import logging
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Self, TypedDict

from harmony_agent.clock import is_set_by_a_time_server
from harmony_agent.config import AgentConfig
from harmony_core.errors import CapabilityError, EntryRefused, FloorLost, ManifestRejected
from harmony_core.wire.envelope import VerifyKey, pin_keys
from harmony_core.wire.manifest import (
    Accepted,
    Floor,
    SerializedScore,
    accept,
    reinstate,
    target_of,
)

from .database import Database, Statement
from .floor import (
    FLOOR_ROWS,
    NO_FLOOR,
    FloorFiles,
    Found,
    RootNote,
    floor_of_row,
    row_of_floor,
)
from .in_force import FollowedClass, InForce
from .trust import Trust

__all__ = ["Desired"]

log = logging.getLogger(__name__)

_REMEDIES = {
    errno.EMFILE: "raise the agent's LimitNOFILE",
    errno.ENFILE: "look for what holds so many files",
    errno.ENOMEM: "look for what uses up the memory",
}
_NEW_FOR_S = 24 * 3600.0
"""From when agent.toml was written: a device that knows of no floor later has lost it."""
_OLDEST_S = 20 * 365 * 24 * 3600.0
_AHEAD_MOST = timedelta(days=1)
_STORE = "INSERT OR REPLACE INTO desired (only, envelope, keys) VALUES (1, ?, ?)"
_RESET = (
    "to accept whatever an operator has signed next, however old, run on the device: "
    "systemctl stop harmony-agent && harmony-agent reset-floor && systemctl start harmony-agent"
)


class _Identity(TypedDict):
    """Who we are."""

    fleet: str
    agent_id: str


class Desired:
    """What this device is asked to be."""

    def __init__(self, config: AgentConfig, database: Database, trust: Trust) -> None:
        self.trust = trust
        self.current: Accepted | None = None
        """The device's own manifest."""
        self._classes: Sequence[FollowedClass] = ()
        self.in_force: InForce | None = None
        """What that and its classes come to; None where nobody has said anything that counts."""
        self._whose = _Identity(fleet=config.fleet, agent_id=config.agent_id)
        self._unstored: list[Statement] = []
        self.floor: Floor | None = None
        """Nothing older is accepted; None on a device that never accepted anything."""
        self.floor_lost = ""
        """Why the floor is doubtful; empty where it is not."""
        self.floor_unkept = ""
        """Why it could not be written down; empty where it is."""
        self.forgotten = 0
        """The generation that is known only from the floor's own files: the database was taken away."""
        self._is_lost = False
        """Whether it is not known at all what was accepted here before."""
        self._is_kept = self._is_copied = self._is_stored = True
        """Whether the floor is in its file; in the copy; and the manifest that made it, in the database."""
        self._noted_root: RootNote | None = None
        """What those files say of the root document."""
        self._database = database
        self._files = FloorFiles.of(config)
        self._toml = config.path

    @classmethod
    async def load(cls, config: AgentConfig, database: Database) -> Self:
        """Read the last accepted manifest. It is verified again: the disk is not trusted either."""
        desired = cls(config, database, await Trust.load(config, database))
        rows = await database.read(FLOOR_ROWS)
        noted = floor_of_row(rows[0], **desired._whose) if rows else None
        found = await database.aside(desired._files.read)
        desired._noted_root = found.root
        if found.root is not None:
            desired.trust.expect({"root": found.root.version, "pinned": found.root.pinned})
        stored = await database.read("SELECT envelope, keys FROM desired")
        accepted = desired._verify_stored(*stored[0]) if stored else None
        desired._look_up_floor(
            found,
            noted,
            accepted,
            # A row of another fleet's is no loss: this device has moved.
            is_lost=database.damaged is not None
            or (bool(stored) and not rows)
            or (not found.is_any and not rows and not await database.aside(desired._is_new)),
        )
        if desired.floor is None and not (desired._is_lost or found.whole or found.foreign):
            await desired._begin_floor()
        if accepted is not None:
            desired._resume(accepted)
        return desired

    def _is_new(self) -> bool:
        """Return whether this device may never have accepted anything, because it was enrolled only now, or
        again.

        Return True also where the clock is wrong: then agent.toml is from the future, or older than any can
        be.
        """
        try:
            age_s = time.time() - self._toml.stat().st_mtime
            return not _NEW_FOR_S <= age_s < _OLDEST_S
        except FileNotFoundError:
            return True

    async def _begin_floor(self) -> None:
        """Make the files before there is anything to lose: if they are missing later, that means
        something."""
        try:
            root = self._note_root()
            await self._database.aside(self._files.write_both, NO_FLOOR, root)
            self._noted_root = root
        except (OSError, CapabilityError) as error:
            # They are made with the first manifest then, and it is said what is wrong if they cannot be.
            log.warning("the files of the floor could not be made: %s", error)

    def _verify_stored(self, envelope: bytes, keys: str) -> Accepted | None:
        """Return the stored *envelope* as accepted, by the keys that counted when it was accepted.

        Who signed it may have been removed since, or the root document be lost; the manifest stays effective.
        """
        stored: dict[str, Any] = json.loads(keys) or {}
        if stored:
            self.trust.expect(stored)
        then = pin_keys(VerifyKey(bytes.fromhex(each)) for each in stored.get("keys", ()))
        target = target_of(self._whose["agent_id"])
        trusted = {**then, **self.trust.find_keys("manifest", datetime.now(UTC), target)}
        try:
            return reinstate(envelope, trusted=trusted, **self._whose)
        except ManifestRejected as error:
            # The operator's key was replaced, or the disk changed: wait for a newer one.
            log.warning("the stored manifest no longer counts: %s", error.message)
            return None

    def _look_up_floor(
        self, found: Found, noted: Floor | None, stored: Accepted | None, *, is_lost: bool
    ) -> None:
        """Set the floor to the highest of what the two files and the database say. Report a missing one.

        *is_lost* says that a value existed and cannot be known: then accept nothing, rather than anything.
        """
        if found.floor == NO_FLOOR and noted is None and stored is None and not is_lost:
            return  # nothing was accepted yet
        if found.floor is not None:
            both = [each for each in (found.floor, noted) if each is not None]
            self.floor = max(both, key=lambda each: each.order)
            self._is_kept = self._is_copied = found.whole and self.floor == found.floor
            if noted is None and stored is None and not is_lost:
                self.forgotten = found.floor.generation
        elif noted is not None:
            self.floor = noted
            self._set_floor_lost(
                f"is only known from the database, as generation {noted.generation} of epoch {noted.epoch}: "
                "if that was put back from a backup, what is newer than the backup was forgotten"
            )
        elif stored is not None and not found.damaged:
            # An agent that kept none has stored it.
            self.floor, self._is_kept, self._is_copied = Floor.of(stored), False, False
        elif found.damaged or is_lost:
            self._is_lost = True
            self._set_floor_lost("is not known any more, and so nothing is accepted")

    def _set_floor_lost(self, what: str) -> None:
        self.floor_lost = f"what was accepted here last {what}; {_RESET}"
        log.error("%s", self.floor_lost)

    def _resume(self, stored: Accepted) -> None:
        """Make *stored* effective again, unless something newer was accepted since it was stored."""
        if self.floor is None or self.floor == NO_FLOOR or self.floor.admits(stored):
            self._make_effective(stored)
            if self.floor is not None and self.floor != NO_FLOOR:
                self._raise_floor(stored)
            return
        log.error(
            "generation %d of epoch %d is stored, and generation %d of epoch %d was accepted: the database "
            "is older than the device; waiting for the control plane",
            stored.manifest.generation,
            stored.manifest.epoch,
            self.floor.generation,
            self.floor.epoch,
        )

    def _raise_floor(self, accepted: Accepted) -> bool:
        """Raise the floor to *accepted*. Return whether it has changed."""
        floor = Floor.of(accepted)
        if floor != self.floor:
            self.floor, self._is_kept, self._is_copied = floor, False, False
            return True
        return False

    async def keep_floor(self) -> None:
        """Store durably, beside the database, what was accepted last, and which root document counts; do
        nothing when that is stored. Raise nothing.

        Never do so before the manifest is stored: a device that knows that it has accepted more than it has
        would wait, without a network, for what nobody can bring. A doubtful floor is certain again once
        something newer is kept.
        """
        if not self._is_stored or self._is_lost:
            return
        root = self._note_root()
        is_due = not (self._is_kept and self._is_copied)
        if not is_due and (root == self._noted_root or self.floor_lost):
            return
        floor, files = self.floor or NO_FLOOR, self._files
        path = files.first
        try:
            if not self._is_kept or root != self._noted_root:
                self._is_copied = False
                await self._database.aside(files.write, floor, root)
                self._is_kept = floor == (self.floor or NO_FLOOR)
                self._noted_root = root
            path = files.copy
            await self._database.aside(files.write_copy, floor, root)
        except (OSError, CapabilityError) as error:
            self.floor_unkept = _format_unkept(path, error, is_copy=path == files.copy)
        else:
            self._is_copied = floor == (self.floor or NO_FLOOR)
            self.floor_lost = self.floor_unkept = ""  # nothing doubtful is written: see above

    def _note_root(self) -> RootNote | None:
        remembered = self.trust.remember()
        if not remembered["root"]:
            return None
        return RootNote(version=remembered["root"], pinned=remembered["pinned"])

    @property
    def generation(self) -> int:
        return self.current.manifest.generation if self.current else 0

    @property
    def entries(self) -> Mapping[str, SerializedScore]:
        return self.in_force.entries if self.in_force is not None else {}

    @property
    def faults(self) -> Mapping[str, EntryRefused]:
        return self.in_force.faults if self.in_force is not None else {}

    @property
    def followers(self) -> Mapping[str, Sequence[str]]:
        return self.in_force.followers if self.in_force is not None else {}

    @property
    def knows_own(self) -> bool:
        """Whether it is known what the device's own manifest is: also that there never was one.

        It is not where one was accepted that cannot be read or believed any more: nothing may be taken away
        then.
        """
        return self.current is not None or (
            self.floor in {None, NO_FLOOR} and not self._is_lost and not self.forgotten
        )

    def generation_of(self, score: str) -> int:
        """Return the generation of the manifest that *score* comes from, in its own layer; 0 without a
        manifest."""
        return self.in_force.generation_of(score) if self.in_force is not None else 0

    @property
    def labels(self) -> Mapping[str, str]:
        return self.current.manifest.labels if self.current else {}

    @property
    def expired(self) -> bool:
        expires_at = self.current.manifest.expires_at if self.current else None
        return expires_at is not None and expires_at <= datetime.now(UTC)

    def accept(self, envelope: bytes) -> bool:
        """Make *envelope* effective if it is newer: return True. Raise `ManifestRejected`; nothing changes
        then.

        It is durable with the first claim that is made for it, in the same transaction: before that it has
        had no effect, and a device that has lost it gets it again.
        """
        if self._is_lost:
            raise FloorLost(self.floor_lost)
        if self.trust.is_lost:
            raise FloorLost(
                "the root document that counted here is lost, and it is not known who may sign; it is "
                "fetched again as soon as the message server gives it"
            )
        now = datetime.now(UTC)
        trusted = self.trust.find_keys("manifest", self.now_at_least())
        accepted = accept(
            envelope,
            trusted=trusted,
            current=self.current,
            now=self.now_at_least(),
            floor=self.floor,
            latest=now + _AHEAD_MOST if is_set_by_a_time_server() else None,
            root=self.trust.root,
            **self._whose,
        )
        if accepted is self.current:
            return False
        if self._raise_floor(accepted):
            self._is_stored = False
        self._unstored = [
            (_STORE, (envelope, self._format_keys(trusted, accepted.keyids))),
            row_of_floor(Floor.of(accepted), **self._whose),
        ]
        self._make_effective(accepted)
        return True

    def _format_keys(self, trusted: Mapping[str, bytes], keyids: Sequence[str]) -> str:
        """Return the root document by which it was accepted, and who has signed it; empty without one."""
        if self.trust.root is None:
            return "[]"
        keys = [trusted[each].hex() for each in keyids]
        return json.dumps({**self.trust.remember(), "keys": keys})

    def now_at_least(self) -> datetime:
        """Return the time, or what an operator has vouched for in this epoch, where the clock is behind
        that."""
        root, floor = self.trust.root, self.floor
        vouched_for = [] if root is None else [root.issued_at]
        if floor is not None and floor.counts_in(root):
            vouched_for.append(floor.issued_at)
        return max([datetime.now(UTC), *vouched_for])

    @property
    def epoch(self) -> int:
        """The one of all that may be accepted now: without a root document, nobody begins another."""
        if self.trust.root is not None:
            return self.trust.root.epoch
        return self.floor.epoch if self.floor is not None else 0

    def unstored_statements(self) -> list[Statement]:
        """Return what is to be written with the next claims."""
        return self._unstored

    def mark_stored(self) -> None:
        """Note that the manifest is durable."""
        self._unstored, self._is_stored = [], True

    def store_later(self) -> None:
        """Write the manifest with whatever is written next, because it could not be written now."""
        self._database.along(*self._unstored, then=partial(self._note_stored, self.floor))
        self._unstored = []

    def _note_stored(self, floor: Floor | None) -> None:
        if floor == self.floor:
            self._is_stored = True

    def _make_effective(self, accepted: Accepted) -> None:
        self.current = accepted
        self._put_in_force(accepted.keyids)

    def follow(self, classes: Sequence[FollowedClass], newest_keyids: Sequence[str]) -> None:
        """Make *classes* effective, and no others; *newest_keyids* have signed the last change of them."""
        self._classes = tuple(classes)
        self._put_in_force(newest_keyids)

    def _put_in_force(self, newest_keyids: Sequence[str]) -> None:
        self.in_force = InForce.of(
            self.current, self._classes, before=self.in_force, newest_keyids=newest_keyids
        )


def _format_unkept(path: Path, error: OSError | CapabilityError, *, is_copy: bool) -> str:
    why = getattr(error, "strerror", None) or str(error)
    remedy = _REMEDIES.get(getattr(error, "errno", 0), "make room there, or make it writable")
    if is_copy:
        remedy += "; or name a directory that is on another disk as floor_directory in agent.toml"
    return f"what was accepted last cannot be noted in {path}: {why}; {remedy}: it is tried again by itself"
