"""A whole fleet as it changes. Nobody polls: each change is told by the server.

    reports, heartbeats, ends of heartbeats, desired states -> the newest of each device
        -> its row: another? -> whoever shows the fleet
    a report or heartbeat was deleted -> is it a device still? -> else it is gone
        -> how it stands in a rollout -> whoever opens waves

What comes within a quarter of a second is told at once. Where the server itself is away, it announces
nothing: then a clock here says of each device that it has missed its heartbeats.

However many watch in one process, the server tells it once. Changes have numbers, and each device has the
number of its last one: nobody has a queue, and who is slow is told more at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from datetime import UTC, datetime
from enum import Enum

import attrs

from harmony_control.bus.connection import Entry
from harmony_control.bus.following import following
from harmony_control.bus.lifetimes import lifetime_of
from harmony_control.bus.reports import Known, Reports, Seen
from harmony_control.cancelling import cancel_all
from harmony_control.server.buckets import HEARTBEAT_AGE_S, HEARTBEAT_WATCH
from harmony_core.wire.actual_state import ActualState, Heartbeat
from harmony_core.wire.names import ACTUAL_STATE, DESIRED_STATE, HEARTBEAT

from .presence import end, hear
from .row import DeviceRow, row_of

__all__ = ["FleetWatch", "SharedWatch", "watching", "watching_rows"]

_TOGETHER_S = 0.25
_LATE_S = 10.0
"""So much later than the server should have, a clock here says that a heartbeat has ended."""
_GONE = "it was taken out of the fleet"
_CUT_OFF = "the message server is not reached from here, so nobody is heard"


class _Source(Enum):
    """What was told, and where it stands."""

    DESIRED = (DESIRED_STATE, f"KV_{DESIRED_STATE}")
    REPORT = (ACTUAL_STATE, f"KV_{ACTUAL_STATE}")
    BEAT = (HEARTBEAT, f"KV_{HEARTBEAT}")
    END = (HEARTBEAT, HEARTBEAT_WATCH)


@asynccontextmanager
async def watching(
    reports: Reports, *, heartbeat_age_s: float = HEARTBEAT_AGE_S
) -> AsyncGenerator[FleetWatch]:
    """Yield the fleet as it is known, kept up until the end of the block.

    *heartbeat_age_s*: how long a heartbeat counts that does not say. Raises `StoreError` when the block is
    entered; what goes wrong later is raised by `FleetWatch`.
    """
    news = _News()
    view = FleetWatch(reports, heartbeat_age_s, news)
    async with AsyncExitStack() as stack:
        told = {
            source: await stack.enter_async_context(
                following(
                    reports.client,
                    source.value[0],
                    stream=source.value[1],
                    deletions=source in {_Source.REPORT, _Source.BEAT},
                )
            )
            for source in _Source
        }
        stack.callback(view.end)
        await view.begin()
        followers = [
            asyncio.create_task(_follow(entries, source, news)) for source, entries in told.items()
        ]
        stack.push_async_callback(cancel_all, followers)
        keeping = asyncio.create_task(view.keep_up(followers))
        stack.push_async_callback(cancel_all, [keeping])
        yield view


@asynccontextmanager
async def watching_rows(
    reports: Reports, *, heartbeat_age_s: float = HEARTBEAT_AGE_S
) -> AsyncGenerator[AsyncIterator[list[DeviceRow]]]:
    """Yield the rows of all devices, then those that have changed, whenever any have; as `watching`."""
    async with (
        watching(reports, heartbeat_age_s=heartbeat_age_s) as watch,
        aclosing(watch.rows()) as rows,
    ):
        yield rows


async def _follow(entries: AsyncIterator[Entry], source: _Source, news: _News) -> None:
    async for entry in entries:
        news.note(source, entry)


class _News:
    """What was told and is not taken in yet: the newest of each, however slow who takes it in is."""

    def __init__(self) -> None:
        self.entries: dict[_Source, dict[str, Entry]] = {source: {} for source in _Source}
        self.due: set[str] = set()
        self._some = asyncio.Event()

    def note(self, source: _Source, entry: Entry) -> None:
        """Note *entry* of *source*."""
        if source is _Source.END and entry.value:
            # The copy of a heartbeat, which stands in place of an older end.
            self.entries[source].pop(entry.key, None)
            return
        self.entries[source][entry.key] = entry
        self._some.set()

    def note_due(self, agent_id: str) -> None:
        """Note that the clock here has come to the time that was set for this device."""
        self.due.add(agent_id)
        self._some.set()

    async def wait(self, followers: Iterable[asyncio.Task[None]]) -> None:
        """Return once there is anything; raise what has ended one of *followers*."""
        some = asyncio.create_task(self._some.wait())
        try:
            await asyncio.wait([some, *followers], return_when=asyncio.FIRST_COMPLETED)
        finally:
            some.cancel()
        for each in followers:
            if each.done():
                each.result()
        self._some.clear()

    def take(self, source: _Source) -> dict[str, Entry]:
        """Return what *source* has told, and forget it here."""
        found, self.entries[source] = self.entries[source], {}
        return found

    def take_due(self) -> set[str]:
        """Return whose time has come, and forget it here."""
        found, self.due = self.due, set()
        return found


class FleetWatch:
    """Every device, as the server tells of it. Made by `watching`, and true until it ends.

    Every method raises what has ended it: a `StoreError`, or a defect.
    """

    def __init__(self, reports: Reports, heartbeat_age_s: float, news: _News) -> None:
        self._reports = reports
        self._news = news
        self._age_s = heartbeat_age_s
        self._known: dict[str, Known] = {}
        self._missed: set[str] = set()
        """Of whose heartbeat nobody has said that it ended, although it must have."""
        self._desired: dict[str, Entry] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._seen: dict[str, Seen] = {}
        self._number = 0
        self._changed: dict[str, int] = {}
        """For each device the number of the change that made it what it is."""
        self._told = asyncio.Event()
        self._failure: BaseException | None = None

    @property
    def is_over(self) -> bool:
        """Whether something has ended it."""
        return self._failure is not None

    @property
    def is_in_doubt(self) -> bool:
        """Whether devices may be there that do not seem so, since it is the server that is not heard."""
        return bool(self._missed) or not self._reports.client.is_connected

    def read(self) -> Sequence[Seen]:
        """Return every device, by id. What has not changed is the same object as before."""
        self._raise_failure()
        return [self.find(each) for each in sorted(self._known)]

    def find(self, agent_id: str) -> Seen:
        """Return one device. `KeyError` for one that was never told of."""
        self._raise_failure()
        seen = self._seen.get(agent_id)
        if seen is None:
            seen = self._known[agent_id].to_seen()
            if agent_id in self._missed:
                seen = attrs.evolve(seen, presence="Silent", heartbeat=None)
            self._seen[agent_id] = seen
        return seen

    def find_row(self, agent_id: str) -> DeviceRow:
        """Return one device in a row. `KeyError` for one that was never told of."""
        row = row_of(self.find(agent_id))
        if agent_id in self._missed and not self._reports.client.is_connected:
            return attrs.evolve(row, reason=_CUT_OFF)
        return row

    async def changes(self) -> AsyncGenerator[set[str]]:
        """Yield the ids of all devices, then of those of which something was told, whenever it was; also that
        they are devices no more."""
        known = self._number
        yield set(self._known)
        while True:
            while self._number == known:
                self._raise_failure()
                await self._told.wait()
            agent_ids = {each for each, number in self._changed.items() if number > known}
            known = self._number
            yield agent_ids

    async def rows(self) -> AsyncGenerator[list[DeviceRow]]:
        """Yield the rows of all devices, then those that have changed, whenever any have.

        Of one that is a device no more, its last row comes once more, with `DeviceRow.is_gone`.
        """
        shown: dict[str, DeviceRow] = {}
        is_first = True
        async with aclosing(self.changes()) as changes:
            async for agent_ids in changes:
                there = sorted(agent_ids & self._known.keys())
                rows = {each: self.find_row(each) for each in there}
                changed = [row for each, row in rows.items() if row != shown.get(each)]
                gone = [
                    shown.pop(each) for each in sorted(agent_ids & (shown.keys() - rows.keys()))
                ]
                changed += [attrs.evolve(row, is_gone=True, reason=_GONE) for row in gone]
                shown |= rows
                if changed or is_first:
                    yield changed
                is_first = False

    async def begin(self) -> None:
        """Read all there is."""
        self._known = {each.agent_id: each for each in await self._reports.read_all_known()}
        for each in self._known:
            self._set_timer(each)

    def end(self) -> None:
        """Wait for nothing any more."""
        for each in self._timers.values():
            each.cancel()

    async def keep_up(self, followers: Iterable[asyncio.Task[None]]) -> None:
        """Take in what is told, until cancelled or until one of *followers* fails."""
        try:
            while True:
                await self._news.wait(followers)
                await asyncio.sleep(_TOGETHER_S)
                agent_ids = await self._take_in(self._news)
                self._number += 1
                for each in agent_ids:
                    self._seen.pop(each, None)
                    self._changed[each] = self._number
                self._notify()
        except Exception as error:  # noqa: BLE001 - raised by whoever watches
            self._failure = error
            self._notify()

    def _notify(self) -> None:
        self._told.set()
        self._told = asyncio.Event()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def _take_in(self, news: _News) -> set[str]:
        """Take in what was told, and return of whom it is."""
        told = {source: news.take(source) for source in (_Source.REPORT, _Source.BEAT)}
        written = {
            source: {key: each for key, each in entries.items() if not each.is_deletion}
            for source, entries in told.items()
        }
        reports = await self._take_in_reports(written[_Source.REPORT])
        beats = await self._take_in_beats(written[_Source.BEAT])
        deleted = await self._take_in_deletions(
            {key for source in told for key in told[source].keys() - written[source].keys()}
        )
        ended = self._take_in_ends(news.take(_Source.END))
        desired = await self._take_in_desired(news.take(_Source.DESIRED), reports)
        due = news.take_due()
        for each in due & self._known.keys():
            self._come_due(each)
        return reports | beats | deleted | ended | desired | due

    def _of(self, agent_id: str) -> Known:
        return self._known.get(agent_id) or Known(agent_id=agent_id)

    async def _take_in_reports(self, entries: Mapping[str, Entry]) -> set[str]:
        new = [
            entry
            for key, entry in entries.items()
            if (before := self._of(key).report) is None or not _is_same(before.entry, entry)
        ]
        for key, reading in (await self._reports.read(new, ActualState)).items():
            self._known[key] = attrs.evolve(self._of(key), report=reading)
        return {each.key for each in new}

    async def _take_in_beats(self, entries: Mapping[str, Entry]) -> set[str]:
        new: list[Entry] = []
        for key, entry in entries.items():
            before = self._of(key).beat
            if before is None or not _is_same(before.entry, entry):
                new.append(entry)
            elif key in self._missed:
                # It stands there still, as is found once the server is reached again.
                self._missed.discard(key)
                self._set_timer(key)
        for key, reading in (await self._reports.read(new, Heartbeat)).items():
            # At the beginning it is told, too, of what the server keeps though it counts no more.
            self._known[key] = hear(self._of(key), reading).end_if_over(datetime.now(UTC))
            self._missed.discard(key)
            self._set_timer(key)
        return set(entries)

    async def _take_in_deletions(self, agent_ids: set[str]) -> set[str]:
        """Read anew what there is of these devices; who is not enrolled here, and says nothing, is none."""
        if not agent_ids:
            return set()
        enrolled = await asyncio.to_thread(self._reports.home.agents)
        changed: set[str] = set()
        for each in agent_ids:
            before, found = self._known.get(each), await self._reports.read_known(each)
            if each in enrolled or found.report or found.beat or found.ended_at:
                self._known[each] = attrs.evolve(found, heard_at=self._of(each).heard_at)
                self._set_timer(each)
                changed.add(each)
            elif before is not None:
                self._forget(each)
                changed.add(each)
        return changed

    def _forget(self, agent_id: str) -> None:
        del self._known[agent_id]
        self._desired.pop(agent_id, None)
        self._missed.discard(agent_id)
        if (timer := self._timers.pop(agent_id, None)) is not None:
            timer.cancel()

    def _take_in_ends(self, entries: Mapping[str, Entry]) -> set[str]:
        # Who was forgotten had a heartbeat, too, whose mark of deletion ends as it would have.
        entries = {key: each for key, each in entries.items() if key in self._known}
        for key, entry in entries.items():
            before = self._of(key)
            after = end(before, entry.written_at, unsaid_s=self._age_s)
            if after != before:
                self._known[key] = after
                self._missed.discard(key)
                self._set_timer(key)
        return set(entries)

    async def _take_in_desired(self, entries: Mapping[str, Entry], reported: set[str]) -> set[str]:
        self._desired |= entries
        # By a new report, other labels may be believed.
        asked = {key: self._desired[key] for key in {*entries, *reported} if key in self._desired}
        reports = {key: found for key in asked if (found := self._of(key).report)}
        for key, desired in (await self._reports.read_desired(asked, reports)).items():
            self._known[key] = attrs.evolve(self._of(key), desired=desired)
        return set(asked)

    def _set_timer(self, agent_id: str) -> None:
        if (timer := self._timers.pop(agent_id, None)) is not None:
            timer.cancel()
        known = self._known[agent_id]
        if known.beat is None and known.ended_at is None:
            return
        wait_s = self._age_s
        if known.beat is not None and known.ended_at is None and agent_id not in self._missed:
            lifetime = lifetime_of(known.beat.entry, unsaid_s=self._age_s)
            wait_s = lifetime.total_seconds() + _LATE_S
        self._timers[agent_id] = asyncio.get_running_loop().call_later(
            wait_s, self._news.note_due, agent_id
        )

    def _come_due(self, agent_id: str) -> None:
        """Go from heard to missed, and from ended to offline."""
        known = self._known[agent_id]
        if known.ended_at is None and agent_id not in self._missed:
            self._missed.add(agent_id)
            self._set_timer(agent_id)
            return
        self._missed.discard(agent_id)
        heard_at = known.to_seen().at
        self._known[agent_id] = attrs.evolve(known, beat=None, ended_at=None, heard_at=heard_at)


def _is_same(one: Entry, other: Entry) -> bool:
    # Not by when it was written: that is told in different precision, depending on how it was asked for.
    return (one.revision, one.value) == (other.revision, other.value)


@attrs.define
class _Shared:
    watch: FleetWatch
    stack: AsyncExitStack
    users: int = 0


class SharedWatch:
    """One `FleetWatch` for all who watch at the same time."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports
        self._current: _Shared | None = None
        self._changing = asyncio.Lock()

    @asynccontextmanager
    async def joined(self) -> AsyncGenerator[FleetWatch]:
        """Yield the watch that there is, or a new one where there is none or it is over."""
        async with self._changing:
            if self._current is None or self._current.watch.is_over:
                stack = AsyncExitStack()
                watch = await stack.enter_async_context(watching(self._reports))
                self._current = _Shared(watch, stack)
            shared = self._current
            shared.users += 1
        try:
            yield shared.watch
        finally:
            shared.users -= 1
            if not shared.users:
                if self._current is shared:
                    self._current = None
                await shared.stack.aclose()
