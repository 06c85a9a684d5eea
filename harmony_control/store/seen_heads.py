"""Heads of audit chains that were read here: what a device cannot take back unseen.

    a verified report -> (seq, head) is new here? -> noted, with the time of this machine
                                                  -> of those before the newest `KEPT_ALL`: the first of a day

A newer head may not take the place of an earlier one: whoever has taken over a device signs new ones, too. So
every one is kept, until they become too many.
"""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime

import attrs

from harmony_core.wire.audit import AuditHead

__all__ = ["KEPT_ALL", "KEPT_DAYS", "SeenHead", "note_head", "read_heads"]

KEPT_ALL = 500
KEPT_DAYS = 366

_SCHEMA = """
CREATE TABLE IF NOT EXISTS seen_head (
    agent_id TEXT NOT NULL,
    key TEXT NOT NULL,              -- by which it was signed: a device with a new one begins anew
    seq INTEGER NOT NULL,
    head TEXT NOT NULL,
    seen_s REAL NOT NULL,           -- when it was read here first, in seconds since 1970
    PRIMARY KEY (agent_id, seq, head)
) WITHOUT ROWID
"""
_NOTE = "INSERT OR IGNORE INTO seen_head VALUES (?, ?, ?, ?, ?)"
_FORGET_OTHER_KEYS = "DELETE FROM seen_head WHERE agent_id = ? AND key <> ?"
_THIN = """
DELETE FROM seen_head WHERE agent_id = :agent_id AND (seq, head) IN (
    SELECT seq, head FROM (
        SELECT seq, head,
               row_number() OVER (ORDER BY seen_s DESC, seq DESC) AS age,
               row_number() OVER (PARTITION BY date(seen_s, 'unixepoch') ORDER BY seen_s, seq) AS of_day,
               dense_rank() OVER (ORDER BY date(seen_s, 'unixepoch') DESC) AS day
        FROM seen_head WHERE agent_id = :agent_id
    ) WHERE age > :all AND (of_day > 1 OR day > :days)
)
"""
_READ = (
    "SELECT seq, head, seen_s FROM seen_head WHERE agent_id = ? AND key = ? ORDER BY seen_s, seq"
)


@attrs.frozen(kw_only=True)
class SeenHead:
    """That a device has told of its chain up to here."""

    head: AuditHead
    at: datetime
    """When it was read here first, by this machine's clock."""


def note_head(
    database: sqlite3.Connection, agent_id: str, key: str, head: AuditHead, now_s: float
) -> None:
    """Remember *head*, which *agent_id* has signed with *key*. Raises `sqlite3.Error`."""
    database.execute(_SCHEMA)
    noted = database.execute(_NOTE, (agent_id, key, head.seq, head.head, now_s))
    if noted.rowcount:
        database.execute(_FORGET_OTHER_KEYS, (agent_id, key))
        database.execute(_THIN, {"agent_id": agent_id, "all": KEPT_ALL, "days": KEPT_DAYS})


def read_heads(database: sqlite3.Connection, agent_id: str, key: str) -> list[SeenHead]:
    """Return what is remembered, in the order in which it was seen. Raises `sqlite3.Error`."""
    database.execute(_SCHEMA)
    return [
        SeenHead(head=AuditHead(seq=seq, head=head), at=datetime.fromtimestamp(seen_s, UTC))
        for seq, head, seen_s in database.execute(_READ, (agent_id, key))
    ]
