"""The events of a whole fleet: those that devices have noted, then those that they note from now on.

    each chosen device that is heard, asked once -> the newest of all, by time
    rows as they change -> whose record has grown -> that device is asked for what is new in it

A signed report says how far a device's record goes, and reports are followed anyway. So who follows a fleet
asks only devices that have something to tell: what it costs goes with the changes, not with the devices.
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Protocol, TypeAlias

import attrs

from harmony_control.bus.requests import Event
from harmony_control.cancelling import cancel_all
from harmony_core.errors import NoAnswer, RequestError, Unverified

from .row import DeviceRow
from .where import Predicate

__all__ = ["FleetEvent", "ReadEvents", "Untold", "following_events", "read_events"]

ASKED_AT_ONCE = 16
"""Devices. Each answer is up to some megabytes, and they come over one connection."""


@attrs.frozen(kw_only=True)
class FleetEvent:
    """One change that was made to one device."""

    agent_id: str
    event: Event

    @property
    def at(self) -> str:
        """When, by the device's own clock."""
        return str(self.event.get("at", ""))


@attrs.frozen
class Untold:
    """Devices whose events are not among those told."""

    why: Mapping[str, str]
    """Why not, by the device's id."""


Told: TypeAlias = FleetEvent | Untold


class ReadEvents(Protocol):
    """Asks one device for its events, the oldest first: all after the number *after*, else its newest."""

    def __call__(self, agent_id: str, *, after: int | None) -> Awaitable[Sequence[Event]]: ...


WatchRows: TypeAlias = Callable[[], AbstractAsyncContextManager[AsyncIterator[list[DeviceRow]]]]


async def read_events(rows: Iterable[DeviceRow], read: ReadEvents, *, lines: int) -> list[Told]:
    """Return the newest *lines* events of all these devices by time, and before them who told nothing.

    Raises what *read* raises that is not the device's own matter.
    """
    places = asyncio.Semaphore(ASKED_AT_ONCE)
    # One that says that it has noted nothing need not be asked.
    tasks = {
        row.id: asyncio.create_task(_read_one(row, read, places)) for row in rows if row.events != 0
    }
    try:
        await asyncio.gather(*tasks.values())
    finally:
        await cancel_all(tasks.values())
    found = {agent_id: task.result() for agent_id, task in tasks.items()}
    why = {agent_id: part for agent_id, part in found.items() if isinstance(part, str)}
    events = [each for part in found.values() if not isinstance(part, str) for each in part]
    newest = sorted(events, key=lambda each: each.at)[-lines:]
    return [Untold(why), *newest] if why else [*newest]


async def _read_one(
    row: DeviceRow, read: ReadEvents, places: asyncio.Semaphore
) -> list[FleetEvent] | str:
    """Return its newest events; or why it does not tell them."""
    if row.device != "Online":
        return f"it is {row.device}"
    async with places:
        try:
            events = await read(row.id, after=None)
        except (NoAnswer, RequestError, Unverified) as error:
            return error.message
    return [FleetEvent(agent_id=row.id, event=each) for each in events]


@asynccontextmanager
async def following_events(
    watch_rows: WatchRows, read: ReadEvents, holds: Predicate, *, lines: int
) -> AsyncGenerator[AsyncIterator[Told]]:
    """Yield what `read_events` returns of the devices of which *holds* is true, then each event that any of
    them notes, as it comes, and who has told nothing although it has noted something.

    A device that was away tells what it has noted meanwhile when it is back. Raises what `read_events`
    raises.
    """
    async with watch_rows() as changes:
        first = await anext(changes)
        follower = _Follower(read, holds)
        past = await read_events(filter(holds, first), read, lines=lines)
        follower.begin(first, past)
        watcher = asyncio.create_task(follower.watch(changes))
        try:
            async with aclosing(_told(past, follower, watcher)) as told:
                yield told
        finally:
            await cancel_all([watcher, *follower.tasks])


async def _told(
    past: Iterable[Told], follower: _Follower, watcher: asyncio.Task[None]
) -> AsyncGenerator[Told]:
    for each in past:
        yield each
    while True:
        following = asyncio.create_task(follower.news.get())
        try:
            await asyncio.wait([following, watcher], return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                watcher.result()
                raise AssertionError("rows have ended, and they never do")
        finally:
            following.cancel()
        for each in following.result():
            yield each


class _Follower:
    """How far each device's record was told, and how far it goes."""

    def __init__(self, read: ReadEvents, holds: Predicate) -> None:
        self._read = read
        self._holds = holds
        self._places = asyncio.Semaphore(ASKED_AT_ONCE)
        self._told: dict[str, int] = {}
        self._rows: dict[str, DeviceRow] = {}
        self._asked: dict[str, asyncio.Task[bool]] = {}
        self.news: asyncio.Queue[Sequence[Told]] = asyncio.Queue()

    @property
    def tasks(self) -> list[asyncio.Task[bool]]:
        """Return what is under way."""
        return list(self._asked.values())

    def begin(self, rows: Iterable[DeviceRow], past: Iterable[Told]) -> None:
        """Take what *rows* say for told, and what *past* has beyond that."""
        for row in rows:
            self._rows[row.id] = row
            if (head := _head_of(row)) is not None:
                self._told[row.id] = head
        for each in past:
            if isinstance(each, FleetEvent):
                self._note_told(each.agent_id, [each.event])

    async def watch(self, changes: AsyncIterator[list[DeviceRow]]) -> None:
        """Have devices asked whose record has grown, as rows change; raise what is not theirs."""
        following = asyncio.ensure_future(anext(changes))
        try:
            while True:
                await asyncio.wait(
                    [following, *self._asked.values()], return_when=asyncio.FIRST_COMPLETED
                )
                self._gather()
                if following.done():
                    for row in following.result():
                        self._take(row)
                    following = asyncio.ensure_future(anext(changes))
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    def _take(self, row: DeviceRow) -> None:
        if row.is_gone:
            # Who is let in anew under its name has a record of its own.
            self._rows.pop(row.id, None)
            self._told.pop(row.id, None)
            return
        is_new = row.id not in self._rows
        self._rows[row.id] = row
        head = _head_of(row)
        if head is None:
            return
        # Of one whose record could not be read before, what is there now is past.
        told = self._told.setdefault(row.id, 0 if is_new else head)
        if head < told:
            self._told[row.id] = head  # its record was begun anew
        elif head > told and row.device == "Online" and row.id not in self._asked:
            if self._holds(row):
                self._asked[row.id] = asyncio.create_task(self._ask(row.id, head))
            else:
                self._told[row.id] = head

    async def _ask(self, agent_id: str, head: int) -> bool:
        """Return whether it has answered."""
        async with self._places:
            try:
                events = await self._read(agent_id, after=self._told.get(agent_id, 0))
            except (NoAnswer, RequestError, Unverified) as error:
                # Asked again with its next report.
                self.news.put_nowait([Untold({agent_id: error.message})])
                return False
        if agent_id not in self._rows:
            return False
        self._note_told(agent_id, events)
        # What it has dropped since does not come any more.
        self._told[agent_id] = max(self._told[agent_id], head)
        self.news.put_nowait([FleetEvent(agent_id=agent_id, event=each) for each in events])
        return True

    def _gather(self) -> None:
        for agent_id, task in list(self._asked.items()):
            if task.done():
                del self._asked[agent_id]
                if task.result() and agent_id in self._rows:
                    self._take(self._rows[agent_id])  # it may have noted more meanwhile

    def _note_told(self, agent_id: str, events: Iterable[Event]) -> None:
        numbers = [seq for each in events if isinstance(seq := each.get("seq"), int)]
        self._told[agent_id] = max([self._told.get(agent_id, 0), *numbers])


def _head_of(row: DeviceRow) -> int | None:
    """Return how far its record goes; None where that is not known."""
    return 0 if row.device == "Never" and row.events is None else row.events
