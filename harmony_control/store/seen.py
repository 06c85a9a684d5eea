"""What was read here of each device before: no reader takes for news what is older than what it has read.

In a database of its own, which may be lost: then a report that whoever holds the server has put back is told
from a new one only once a newer one was read. It is not flushed: one that a power cut has spoiled is begun
anew.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Literal, TypeAlias

import attrs

from harmony_core.wire.audit import AuditHead

from .seen_heads import SeenHead, note_head, read_heads

__all__ = ["MessageKind", "SeenCounters", "SignedMessage"]

MessageKind: TypeAlias = Literal["report", "heartbeat", "inventory", "record"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS seen (
    agent_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    key TEXT NOT NULL,              -- by which it was signed: a device with a new one begins anew
    counter INTEGER NOT NULL,
    revision INTEGER NOT NULL,      -- where and when it stood on the server
    written_s REAL NOT NULL,
    PRIMARY KEY (agent_id, kind)
) WITHOUT ROWID
"""
_FIND = "SELECT key, counter, revision, written_s FROM seen WHERE agent_id = ? AND kind = ?"
_NOTE = "INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?, ?, ?)"
_SPOILED = (11, 26)
"""SQLite's own codes: what it cannot make sense of."""
_WAIT_S = 1.0
_SAME_S = 0.5
"""One time is told in different precision, depending on how it was asked for."""


@attrs.frozen(kw_only=True)
class SignedMessage:
    """One message of a device, or a record of it, whose signature is good."""

    agent_id: str
    kind: MessageKind
    key: str
    counter: int
    revision: int
    written_s: float
    """When it came to the server, by that one's clock, in seconds since 1970."""
    audit: AuditHead | None = None
    """How far the device's chain of events went, as this told."""


class SeenCounters:
    """Remembers the greatest counter of each device, and how its chain of events went, in the file *path*."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def admit(self, messages: Sequence[SignedMessage]) -> list[bool]:
        """Return, for each, whether it is as new as what was read before, and remember it.

        The same counter is the same message, so it must be the one that was read before. Where nothing can be
        remembered, as on a full disk, all is admitted: what is signed still counts.
        """
        for _ in range(2):
            try:
                return self._admit_all(messages)
            except sqlite3.Error as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _SPOILED:
                    break
                with suppress(OSError):
                    self._path.unlink()
        return [True] * len(messages)

    def _admit_all(self, messages: Sequence[SignedMessage]) -> list[bool]:
        with closing(sqlite3.connect(self._path, timeout=_WAIT_S)) as database, database:
            database.execute("PRAGMA synchronous = OFF")
            database.execute(_SCHEMA)
            return [_admit(database, each) for each in messages]

    def forget(self, agent_id: str) -> None:
        """Remember nothing of that device any more. Idempotent."""
        if not self._path.exists():
            return
        # Where it cannot be written, it is a database that may be lost.
        with (
            suppress(sqlite3.Error),
            closing(sqlite3.connect(self._path, timeout=_WAIT_S)) as database,
            database,
        ):
            database.execute("PRAGMA secure_delete = ON")
            database.execute("DELETE FROM seen WHERE agent_id = ?", (agent_id,))

    def heads(self, agent_id: str, key: str) -> list[SeenHead]:
        """Return how the device's chain of events went, by what it has signed with *key*, in the order in
        which that was read; nothing where the file cannot be read."""
        try:
            with closing(sqlite3.connect(self._path, timeout=_WAIT_S)) as database, database:
                return read_heads(database, agent_id, key)
        except sqlite3.Error:
            return []


def _admit(database: sqlite3.Connection, message: SignedMessage) -> bool:
    found = database.execute(_FIND, (message.agent_id, message.kind)).fetchone()
    if found is not None and found[0] == message.key:
        _, counter, revision, written_s = found
        if message.counter == counter:
            return bool(
                message.revision == revision and abs(message.written_s - written_s) < _SAME_S
            )
        if message.counter < counter:
            return False
    row = attrs.astuple(message, filter=attrs.filters.exclude("audit"))
    database.execute(_NOTE, row)
    if message.audit is not None and message.audit.seq:
        note_head(database, message.agent_id, message.key, message.audit, time.time())
    return True
