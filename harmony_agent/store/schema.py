"""The schema of the agent's database, version by version, and whether what stands there can be used.

Each version only adds, and whoever reads and writes names its columns: so an older agent runs on a newer
schema, as long as that says so (``reader.oldest``). What it does not know stays as it is.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

from harmony_core.errors import LedgerUnusable

__all__ = ["Damaged", "check_pages", "check_rows", "migrate"]

_MIGRATIONS = (
    """
CREATE TABLE desired (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    envelope BLOB NOT NULL          -- the newest accepted one, verified again when it is read
);
CREATE TABLE score (
    id TEXT PRIMARY KEY,
    state TEXT NOT NULL,            -- ScoreState as JSON
    changed INTEGER NOT NULL        -- whether anything was changed since observed_generation began
) WITHOUT ROWID;
CREATE TABLE claim (
    seq INTEGER PRIMARY KEY,        -- teardown goes in reverse
    resource TEXT NOT NULL,
    score TEXT NOT NULL,
    spec_hash TEXT NOT NULL,
    intent INTEGER NOT NULL,        -- 1 from before the effect until its Outcome is stored
    UNIQUE (resource, score)
);
CREATE TABLE record (
    resource TEXT PRIMARY KEY,
    json TEXT NOT NULL              -- what the resource's reconciler must remember
) WITHOUT ROWID;
""",
    """
ALTER TABLE score ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;  -- found so since, at the latest
ALTER TABLE claim ADD COLUMN exclusive TEXT NOT NULL DEFAULT '[]';  -- such as a port; JSON
CREATE TABLE lineage (
    score TEXT PRIMARY KEY,
    after TEXT NOT NULL,            -- whom it waits for, as JSON: it is taken away before they are
    good TEXT,                      -- the newest entry that has converged, as JSON
    bad TEXT                        -- what it was rolled back from, and why, as JSON
) WITHOUT ROWID;
CREATE TABLE event (
    seq INTEGER PRIMARY KEY,
    at TEXT NOT NULL,
    score TEXT NOT NULL,
    json TEXT NOT NULL              -- one change: what, why, by which generation, signed by whom
);
""",
    """
CREATE TABLE reader (
    oldest INTEGER NOT NULL         -- the oldest schema whose agents may use this one
);
INSERT INTO reader VALUES (3);      -- before this one, nobody asked
ALTER TABLE lineage ADD COLUMN trial TEXT;  -- how much of its time something new has had, as JSON
CREATE TABLE condition (
    type TEXT PRIMARY KEY,
    status TEXT NOT NULL,
    since TEXT NOT NULL             -- when the status last changed
) WITHOUT ROWID;
""",
    """
CREATE TABLE floor (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    fleet TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    epoch INTEGER NOT NULL,         -- of what was accepted last; see harmony_agent/store/floor.py
    generation INTEGER NOT NULL,
    payload_sha256 TEXT NOT NULL,
    issued_at TEXT NOT NULL
);
""",
    """
CREATE TABLE signer (
    score TEXT PRIMARY KEY,
    entry TEXT NOT NULL,            -- the hash of its entry in the manifest; empty where it is gone
    keyids TEXT NOT NULL            -- who signed the manifest that first said so, as JSON
) WITHOUT ROWID;
""",
    """
CREATE TABLE report_counter (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    reserved INTEGER NOT NULL       -- nothing greater was said yet
);
""",
    """
ALTER TABLE desired ADD COLUMN keys TEXT NOT NULL DEFAULT '[]';  -- the public keys that signed it; JSON
""",
    """
ALTER TABLE event ADD COLUMN prior BLOB;  -- the hash of the event before; see harmony_core/wire/audit.py
""",
    """
CREATE TABLE fleet_index (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    envelope BLOB NOT NULL,         -- the newest accepted one
    keys TEXT NOT NULL              -- the public keys that signed it; JSON
);
CREATE TABLE class (
    name TEXT PRIMARY KEY,
    gate BLOB,                      -- the newest accepted one
    gate_keys TEXT NOT NULL,        -- the public keys that signed it; JSON
    manifest BLOB,                  -- the one that is followed
    manifest_keys TEXT NOT NULL,
    note TEXT NOT NULL              -- what is told of it, and what was begun; JSON
) WITHOUT ROWID;
""",
)
"""One script a version of the schema, in order: each is what that version has added."""

_JSON: Mapping[str, Sequence[str]] = {
    "desired": ("keys",),
    "score": ("state",),
    "claim": ("exclusive",),
    "record": ("json",),
    "lineage": ("after", "good", "bad", "trial"),
    "signer": ("keyids",),
    "fleet_index": ("keys",),
    "class": ("gate_keys", "manifest_keys", "note"),
}
"""What is read at every start, and which of its columns are JSON."""


_NO_SUCH_TABLE = 1
"""SQLite's own code; a text that is none has no code at all."""


class Damaged(sqlite3.DatabaseError):
    """What stands there is no database, or not a whole one."""


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring what is stored to today's schema. Leave a newer one that may be used as it is.

    Raise `LedgerUnusable` for one that may not be used. *path* is for messages.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(_MIGRATIONS) and _oldest_reader(connection, version) > len(_MIGRATIONS):
        raise LedgerUnusable(
            f"{path} was written by a newer agent (schema {version}, known {len(_MIGRATIONS)}); "
            "install that agent again"
        )
    for number, script in enumerate(_MIGRATIONS[version:], start=version + 1):
        connection.executescript(f"BEGIN; {script} PRAGMA user_version = {number}; COMMIT;")


def check_pages(connection: sqlite3.Connection) -> None:
    """Raise `Damaged` unless the pages are consistent."""
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise Damaged(found)


def check_rows(connection: sqlite3.Connection) -> None:
    """Raise `Damaged` unless everything that is stored as JSON can be read in today's schema."""
    for table, columns in _JSON.items():
        _check_table(connection, table, columns)


def _check_table(connection: sqlite3.Connection, table: str, columns: Sequence[str]) -> None:
    # What SQLite finds valid is so; it is stricter than who reads it, and quicker.
    shown = ", ".join(f"iif(json_valid({each}), NULL, {each})" for each in columns)
    try:
        for row in connection.execute(f"SELECT {shown}, * FROM {table}"):  # noqa: S608 - our own names
            for text in filter(None, row[: len(columns)]):
                json.loads(text)
    except ValueError as error:
        raise Damaged(f"what stands in {table} is not what was written: {error}") from error
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", _NO_SUCH_TABLE) != _NO_SUCH_TABLE:
            raise  # the disk does not answer
        raise Damaged(f"{table} cannot be read: {error}") from error


def _oldest_reader(connection: sqlite3.Connection, version: int) -> int:
    try:
        (oldest,) = connection.execute("SELECT oldest FROM reader").fetchone()
    except sqlite3.OperationalError:
        return version  # it says nothing of the kind
    return int(oldest)
