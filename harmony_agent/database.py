"""The agent's memory across restarts: one SQLite file, written durably and seldom.

Writes are gathered: whatever is asked for while a commit is under way goes into the next one, so a
burst of Scores costs one flush to disk. SQLite runs in a thread of its own; nothing here blocks the loop.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

from harmony_core.batching import Batcher
from harmony_core.errors import LedgerUnusable
from harmony_core.worker import Worker

__all__ = ["Database", "Statement", "migrate"]

Statement: TypeAlias = tuple[str, Sequence[Any]]
"""One SQL statement and its parameters."""

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
)
"""One script a version of the schema, in order: each is what that version has added."""


class Database:
    """An open database. Use as ``async with await Database.open(path)``."""

    def __init__(self, connection: sqlite3.Connection, worker: Worker) -> None:
        self._connection = connection
        self._worker = worker
        self._commits = Batcher(self._commit)

    @classmethod
    async def open(cls, path: Path) -> Self:
        """Open or create; `LedgerUnusable` when the file is not ours or the disk refuses."""
        worker = Worker("database", threads=1, timeout_s=60)
        connection = await worker.run(_connect, path)
        return cls(connection, worker)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._worker.settled()
        await self._worker.run(self._connection.close)
        self._worker.close()

    async def write(self, *statements: Statement) -> None:
        """Execute *statements* in order, in one transaction; durable once this returns."""
        if statements:
            await self._commits.submit([statements])

    async def read(self, query: str) -> list[tuple[Any, ...]]:
        """All rows of *query*."""
        return await self._worker.run(self._fetch, query)

    def _fetch(self, query: str) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = self._connection.execute(query).fetchall()
        return rows

    async def _commit(self, groups: Sequence[Sequence[Statement]]) -> Sequence[None]:
        await self._worker.run(self._execute, groups)
        return [None] * len(groups)

    def _execute(self, groups: Sequence[Sequence[Statement]]) -> None:
        try:
            with self._connection:
                for group in groups:
                    for sql, parameters in group:
                        self._connection.execute(sql, parameters)
        except sqlite3.Error as error:
            raise LedgerUnusable(
                f"the agent's database cannot be written: {error}; is the disk full or read-only?"
            ) from error


def _connect(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        connection = sqlite3.connect(path, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        migrate(connection, path)
    except (sqlite3.Error, OSError) as error:
        raise LedgerUnusable(
            f"{path} cannot be opened: {error}; check the disk, or move the file away to start anew"
        ) from error
    return connection


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring what is stored to today's schema; `LedgerUnusable` for a newer one. *path* is for messages."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(_MIGRATIONS):
        raise LedgerUnusable(
            f"{path} was written by a newer agent (schema {version}, known {len(_MIGRATIONS)}); "
            "install that agent again"
        )
    for number, script in enumerate(_MIGRATIONS[version:], start=version + 1):
        connection.executescript(f"BEGIN; {script} PRAGMA user_version = {number}; COMMIT;")
