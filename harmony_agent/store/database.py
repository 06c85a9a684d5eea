"""The agent's memory across restarts: one SQLite file, written durably and seldom.

Writes are gathered: whatever is asked for while a commit is under way goes into the next one, so a
burst of Scores costs one flush to disk. SQLite runs in a thread of its own; nothing here blocks the loop.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeAlias, TypeVar

import attrs

from harmony_core.errors import CapabilityError, LedgerUnusable
from harmony_pi_topology.common.batching import Batcher
from harmony_pi_topology.common.worker import Worker

from .flushing import flush_directory, make_directory
from .read_only_copy import read_into_memory, why_not_writable
from .schema import Damaged, check_pages, check_rows, migrate
from .vanishing import Standing, rewrite_vanished

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
_CHECKPOINT_PAGES = 4_000
"""Of 4 KiB: what is read again after a power cut. Each checkpoint costs two flushes more, SQLite's 1,000
pages several of them for one manifest of some hundred Scores."""


@attrs.frozen
class SetAside:
    """A database that could not be read, and is kept."""

    path: Path
    written_s: int
    """When something was last written to it, in seconds since 1970."""


class _DiskRefuses(LedgerUnusable):
    """What stands there, if anything, may be good."""


class _InSight(LedgerUnusable):
    """It can be read, and could not be before."""


# To whoever is told of them they are the same.
_DiskRefuses.code = _InSight.code = LedgerUnusable.code


@attrs.frozen
class _Refused:
    """A file that could not be opened, so that what it says is kept in memory."""

    path: Path
    why: str
    is_blind: bool
    """Whether it could not even be read."""


class Database:
    """An open database. Use as ``async with await Database.open(path)``."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        worker: Worker,
        *,
        damaged: SetAside | None = None,
        refused: _Refused | None = None,
    ) -> None:
        self.on_sight: Callable[[], None] = _disregard
        """Called when what could not be read when this was opened can be: all that was loaded is wrong."""
        self._refused = refused
        self.damaged = damaged
        """What was known before this and cannot be read, as long as that is kept."""
        self.rewritten: Path | None = None
        """The file, if it was deleted since this was opened, and has been written anew."""
        self._standing: Standing | None = None
        self._connection = connection
        self._worker = worker
        self._commits = Batcher(self._commit)
        self._along: list[_Along] = []

    @classmethod
    async def open(cls, path: Path, *, scratch: Path | None = None) -> Self:
        """Open or create the database. Set a damaged one aside, keep it, and begin a new one.

        Raise `LedgerUnusable` when this agent must not use a newer agent's file, or the disk refuses. With
        *scratch*, a directory on another disk, read what is on a disk that refuses; then `trouble` says why
        nothing can be written, and each write tries again.
        """
        worker = Worker("database", threads=1, timeout_s=60)
        try:
            connection, damaged = await worker.run(_connect, path)
        except _DiskRefuses as error:
            if scratch is None:
                raise
            memory = await worker.run(read_into_memory, path, scratch)
            refused = _Refused(path=path, why=error.message, is_blind=memory is None)
            if memory is None:
                memory = await worker.run(_blank)
            damaged = await worker.run(_set_aside_before, path)
            return cls(memory, worker, damaged=damaged, refused=refused)
        return cls(connection, worker, damaged=damaged)

    @property
    def trouble(self) -> str:
        """Why nothing can be written since this was opened; empty where it can."""
        return self._refused.why if self._refused is not None else ""

    async def try_again(self) -> None:
        """Return once what was refused can be written again. Raise `LedgerUnusable` while it cannot."""
        if self._refused is not None:
            await self._commits.submit([()])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._worker.wait_idle()
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
        """Call ``func(*args)`` in this database's own thread: for what is stored beside it, and in the same
        order."""
        return await self._worker.run(func, *args, **kwargs)

    @property
    def is_blind(self) -> bool:
        """Whether what stands on the disk could not even be read since this was opened."""
        return self._refused is not None and self._refused.is_blind

    async def read(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Return all rows of *query*."""
        return await self._worker.run(self._fetch, query, parameters)

    async def look(self) -> None:
        """Check that what is written is kept: that its files have not been deleted.

        Raise `LedgerUnusable` where they were, and nothing can replace them. Check, too, whether what is
        `damaged` is still kept.
        """
        try:
            await self._worker.run(self._stand)
            await self._worker.run(self._look_at_damaged)
        except CapabilityError as error:
            raise LedgerUnusable(f"the agent's database: {error.message}") from error

    def _look_at_damaged(self) -> None:
        if self.damaged is None:
            return
        try:
            self.damaged.path.stat()
        except FileNotFoundError:
            self.damaged = None
        except OSError as error:
            log.info("%s is not known to be gone: %s", self.damaged.path, error)

    def _stand(self) -> None:
        """Write the file again if it was deleted."""
        try:
            if self._standing is None or self._standing.connection is not self._connection:
                self._standing = Standing.of(self._connection)
            if not self._standing.has_vanished:
                return
            path = self._standing.path
            self._connection = rewrite_vanished(self._standing, _open)
            self.rewritten = path
            self._standing = Standing.of(self._connection)
        except (sqlite3.Error, OSError) as error:
            raise LedgerUnusable(
                "the agent's database was deleted while the agent runs, and cannot be written anew: "
                f"{error}; nothing new is begun until it can: look at the disk, and put its directory back"
            ) from error

    def _fetch(self, query: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        try:
            rows: list[tuple[Any, ...]] = self._connection.execute(query, parameters).fetchall()
            if self._standing is None:
                self._standing = Standing.of(self._connection)
        except (sqlite3.OperationalError, OSError) as error:
            raise LedgerUnusable(
                f"the agent's database cannot be read: {error}; look at the disk: it is tried again"
            ) from error
        return rows

    async def _commit(self, groups: Sequence[Sequence[Statement]]) -> Sequence[None]:
        along, self._along = self._along, []
        try:
            await self._worker.run(self._execute, [*(each for each, _ in along), *groups])
        except CapabilityError as error:
            self._along = along + self._along
            raise LedgerUnusable(f"the agent's database: {error.message}") from error
        except LedgerUnusable as error:
            self._along = along + self._along
            if isinstance(error, _InSight):
                self.on_sight()
            raise
        for _, then in along:
            if then is not None:
                then()
        return [None] * len(groups)

    def _execute(self, groups: Sequence[Sequence[Statement]]) -> None:
        if self._refused is not None:
            self._come_back(self._refused)
        self._stand()
        try:
            with self._connection:
                for group in groups:
                    for sql, parameters in group:
                        self._connection.execute(sql, parameters)
        except sqlite3.Error as error:
            path = self._standing.path if self._standing is not None else None
            why = why_not_writable(path, error) if path is not None else f"{error}"
            raise LedgerUnusable(f"the agent's database cannot be written: {why}") from error

    def _come_back(self, refused: _Refused) -> None:
        """Continue with the file itself, which nobody has written meanwhile: it contains what was read from
        it."""
        connection, damaged = _connect(refused.path)
        if refused.is_blind:
            connection.close()
            raise _InSight("the agent's database can be read again: the agent begins anew with it")
        self._connection.close()
        self._connection, self.damaged, self._refused = connection, damaged, None


def _connect(path: Path) -> tuple[sqlite3.Connection, SetAside | None]:
    try:
        make_directory(path.parent)
        if not path.exists():
            # Whoever has made the directory, as systemd does, need not have flushed its name. That may be
            # somebody who lets us not even look into the one above.
            with suppress(PermissionError):
                flush_directory(path.parent.parent)
        return _sound(path), _set_aside_before(path)
    except (sqlite3.Error, OSError) as error:
        raise _DiskRefuses(f"{path} cannot be opened: {why_not_writable(path, error)}") from error


def _blank() -> sqlite3.Connection:
    """Return an empty database in memory, to be used as long as nobody knows what is in the file."""
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    migrate(connection, Path(":memory:"))
    return connection


def _disregard() -> None:
    """Do nothing: nobody has loaded anything."""


def _sound(path: Path) -> sqlite3.Connection:
    try:
        return _open_anew(path)
    except sqlite3.DatabaseError as error:
        if not _is_damage(error):
            raise
        log.error("%s is damaged, and set aside: %s", path, error)  # noqa: TRY400 - it says it all
    _set_aside(path)
    return _open(path)


def _open_anew(path: Path) -> sqlite3.Connection:
    """Open the database at *path*; try twice if it seems damaged. An SD card that failed to read once may
    read now, and what is on it must not be given up."""
    try:
        return _open(path)
    except sqlite3.DatabaseError as error:
        if not _is_damage(error):
            raise
        log.warning("%s is looked at again: %s", path, error)
    return _open(path)


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
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
    """Move what is at *path* aside, its journal included, in place of what was kept before."""
    # The journal first: left alone, it would be played into the new file.
    for suffix in ("-shm", "-wal", ""):
        each = path.with_name(path.name + suffix)
        kept = path.with_name(f"{path.name}{_DAMAGED}{suffix}")
        kept.unlink(missing_ok=True)
        if each.exists():
            each.replace(kept)


def _set_aside_before(path: Path) -> SetAside | None:
    kept = path.with_name(path.name + _DAMAGED)
    try:
        return SetAside(kept, int(kept.stat().st_mtime))
    except OSError:
        return None
