"""The agent's memory across restarts: one SQLite file, written durably and seldom.

Writes are gathered: whatever is asked for while a commit is under way goes into the next one, so a
burst of Scores costs one flush to disk. SQLite runs in a thread of its own; nothing here blocks the loop.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeAlias, TypeVar

import attrs

from harmony_core.errors import CapabilityError, LedgerUnusable
from harmony_pi_topology.common.batching import Batcher
from harmony_pi_topology.common.worker import Worker

from .schema import Damaged, check_pages, check_rows, migrate

__all__ = ["Database", "SetAside", "Statement"]

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

Statement: TypeAlias = tuple[str, Sequence[Any]]
"""One SQL statement and its parameters."""

_Along: TypeAlias = tuple[Sequence[Statement], Callable[[], None] | None]

_CORRUPT, _NOT_A_DATABASE = 11, 26
"""SQLite's own codes: what it cannot make sense of, unlike a disk that does not answer."""

_DAMAGED = ".damaged"


@attrs.frozen
class SetAside:
    """A database that could not be read, and is kept."""

    path: Path
    written_s: int
    """When something was last written to it, in seconds since 1970."""


class Database:
    """An open database. Use as ``async with await Database.open(path)``."""

    def __init__(
        self, connection: sqlite3.Connection, worker: Worker, *, damaged: SetAside | None = None
    ) -> None:
        self.damaged = damaged
        """What was known before this and cannot be read, as long as that is kept."""
        self._connection = connection
        self._worker = worker
        self._commits = Batcher(self._commit)
        self._along: list[_Along] = []

    @classmethod
    async def open(cls, path: Path) -> Self:
        """Open or create. What is damaged is set aside, and kept, and all begins anew.

        `LedgerUnusable` when a newer agent's file is not to be used by this one, or the disk refuses.
        """
        worker = Worker("database", threads=1, timeout_s=60)
        connection, damaged = await worker.run(_connect, path)
        return cls(connection, worker, damaged=damaged)

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
        if statements or self._along:
            await self._commits.submit([statements])

    @property
    def has_more(self) -> bool:
        """Whether something waits for the next write."""
        return bool(self._along)

    def along(self, *statements: Statement, then: Callable[[], None] | None = None) -> None:
        """Execute *statements* with whatever is written next, and call *then* once they are durable."""
        self._along.append((statements, then))

    async def aside(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """``func(*args)`` in this database's own thread: for what is kept beside it, and in its order."""
        return await self._worker.run(func, *args, **kwargs)

    async def read(self, query: str) -> list[tuple[Any, ...]]:
        """All rows of *query*."""
        return await self._worker.run(self._fetch, query)

    def _fetch(self, query: str) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = self._connection.execute(query).fetchall()
        return rows

    async def _commit(self, groups: Sequence[Sequence[Statement]]) -> Sequence[None]:
        along, self._along = self._along, []
        try:
            await self._worker.run(self._execute, [*(each for each, _ in along), *groups])
        except CapabilityError as error:
            self._along = along + self._along
            raise LedgerUnusable(f"the agent's database: {error.message}") from error
        except LedgerUnusable:
            self._along = along + self._along
            raise
        for _, then in along:
            if then is not None:
                then()
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


def _connect(path: Path) -> tuple[sqlite3.Connection, SetAside | None]:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return _sound(path), _set_aside_before(path)
    except (sqlite3.Error, OSError) as error:
        raise LedgerUnusable(
            f"{path} cannot be opened: {error}; check the disk, or move the file away to start anew"
        ) from error


def _sound(path: Path) -> sqlite3.Connection:
    try:
        return _opened(path)
    except sqlite3.DatabaseError as error:
        if not _is_damage(error):
            raise
        log.error("%s is damaged, and set aside: %s", path, error)  # noqa: TRY400 - it says it all
    _set_aside(path)
    return _opened(path)


def _opened(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        check_pages(connection)
        migrate(connection, path)
        check_rows(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return isinstance(error, Damaged) or code in {_CORRUPT, _NOT_A_DATABASE}


def _set_aside(path: Path) -> None:
    """Keep what stands at *path* beside it, its journal included, in the place of what was kept before."""
    # The journal first: left alone, it would be played into the new file.
    for suffix in ("-shm", "-wal", ""):
        each = path.with_name(path.name + suffix)
        kept = path.with_name(f"{path.name}{_DAMAGED}{suffix}")
        kept.unlink(missing_ok=True)
        if each.exists():
            each.replace(kept)


def _set_aside_before(path: Path) -> SetAside | None:
    kept = path.with_name(path.name + _DAMAGED)
    return SetAside(kept, int(kept.stat().st_mtime)) if kept.exists() else None
