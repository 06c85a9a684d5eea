"""Desired state: the newest manifest that may be trusted, kept across restarts.

    envelope -> accept (size, signature, target, generation, expiry) -> in force -> stored with its claims

A manifest that fails is refused whole and the one in force stays in force. What is wrong inside an entry
is that entry's own `fault`; the others proceed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Self, TypedDict

from harmony_agent.config import AgentConfig
from harmony_agent.store.database import Database, Statement
from harmony_core.errors import EntryRefused, ManifestRejected
from harmony_core.wire.manifest import Accepted, SerializedScore, accept, reinstate
from harmony_core.wire.ordering import graph_faults

__all__ = ["Desired"]

log = logging.getLogger(__name__)


class _Identity(TypedDict):
    """Who is trusted, and who we are."""

    trusted: Mapping[str, bytes]
    fleet: str
    agent_id: str


class Desired:
    """What this device is asked to be."""

    def __init__(self, config: AgentConfig) -> None:
        self.current: Accepted | None = None
        self.entries: Mapping[str, SerializedScore] = {}
        self.faults: Mapping[str, EntryRefused] = {}
        """Entries whose ``after`` cannot be followed."""
        self.followers: Mapping[str, Sequence[str]] = {}
        """Who waits for an entry, by its id; who has no followers is not in it."""
        self._identity = _Identity(
            trusted=config.trusted, fleet=config.fleet, agent_id=config.agent_id
        )
        self._unstored: list[Statement] = []

    @classmethod
    async def load(cls, config: AgentConfig, database: Database) -> Self:
        """Read the last accepted manifest. It is verified again: the disk is not trusted either."""
        desired = cls(config)
        for (envelope,) in await database.read("SELECT envelope FROM desired"):
            try:
                desired._put_in_force(reinstate(envelope, **desired._identity))
            except ManifestRejected as error:
                # The operator's key was replaced, or the disk changed: wait for a newer one.
                log.warning("the stored manifest no longer counts: %s", error.message)
        return desired

    @property
    def generation(self) -> int:
        return self.current.manifest.generation if self.current else 0

    @property
    def labels(self) -> Mapping[str, str]:
        return self.current.manifest.labels if self.current else {}

    @property
    def expired(self) -> bool:
        expires_at = self.current.manifest.expires_at if self.current else None
        return expires_at is not None and expires_at <= datetime.now(UTC)

    def offer(self, envelope: bytes) -> bool:
        """Put *envelope* in force if it is newer: True. Raises `ManifestRejected`; nothing changes then.

        It is durable with the first claim that is made for it, in the same transaction: before that it
        has had no effect, and whoever has forgotten it is told again.
        """
        accepted = accept(envelope, current=self.current, now=datetime.now(UTC), **self._identity)
        if accepted is self.current:
            return False
        self._unstored = [
            ("INSERT OR REPLACE INTO desired (only, envelope) VALUES (1, ?)", (envelope,))
        ]
        self._put_in_force(accepted)
        return True

    def unstored(self) -> list[Statement]:
        """What is to be written with the next claims."""
        return self._unstored

    def stored(self) -> None:
        """It was written."""
        self._unstored = []

    def _put_in_force(self, accepted: Accepted) -> None:
        self.current = accepted
        self.entries = {entry.id: self._known(entry) for entry in accepted.manifest.scores}
        self.faults = graph_faults(accepted.manifest.scores)
        self.followers = _followers(accepted.manifest.scores)

    def _known(self, entry: SerializedScore) -> SerializedScore:
        """*entry*, as the very object that it was before if it says the same: most of them do."""
        known = self.entries.get(entry.id)
        # Their fields, since pydantic's own comparison is ten times as slow.
        return known if known is not None and known.__dict__ == entry.__dict__ else entry


def _followers(entries: Sequence[SerializedScore]) -> Mapping[str, Sequence[str]]:
    found: dict[str, list[str]] = {}
    for entry in entries:
        for waited_for in entry.after:
            found.setdefault(waited_for, []).append(entry.id)
    return found
