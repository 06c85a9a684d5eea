"""What devices say of themselves, read with care: nobody is believed but the device itself, and only once.

    value and signature -> by the key that the device was enrolled with -> read -> about itself -> newer than
    what was read before

So whoever holds the message server can keep a report back, but neither make one up nor tell an old one
again. One device's garbage is that device's alone: it is told as a `Report` with a problem, and neither hides
the others nor keeps anybody from pushing what repairs it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar

import attrs
from nats.aio.client import Client

from harmony_control.server.buckets import HEARTBEAT_AGE_S, HEARTBEAT_WATCH
from harmony_control.store.home import Home
from harmony_control.store.roots import RootHashes
from harmony_control.store.seen import MessageKind, SeenCounters, SignedMessage
from harmony_control.store.seen_heads import SeenHead
from harmony_core.errors import InvalidManifest
from harmony_core.wire.actual_state import ActualState, Heartbeat, from_json
from harmony_core.wire.audit import AuditHead
from harmony_core.wire.device_signature import ACTUAL_STATE_TYPE, HEARTBEAT_TYPE, INVENTORY_TYPE
from harmony_core.wire.lifetimes import LIFETIME_MOST_S, compute_lifetime_s
from harmony_core.wire.names import ACTUAL_STATE, DESIRED_STATE, HEARTBEAT, INVENTORY

from .connection import Bucket, Entry
from .desired import Desired, read_desired
from .device_keys import DeviceKeys
from .following import following
from .lifetimes import find_end
from .newest import newest, newest_of

if TYPE_CHECKING:
    from harmony_core.wire.inventory import Inventory

__all__ = ["InventoryRead", "Known", "Presence", "Reading", "Report", "Reports", "Seen"]

Presence: TypeAlias = Literal["Heard", "Silent", "Offline", "Never"]
"""Its newest heartbeat counts; has ended, not more than 90 s ago; for longer; not one word ever."""

T = TypeVar("T", ActualState, Heartbeat, "Inventory")


@attrs.frozen
class _Kind:
    """Where one kind of what devices say stands, and as what it is signed."""

    kind: MessageKind
    bucket: str
    content_type: str
    read: Callable[[bytes], Any]
    """`InvalidManifest` for what cannot be read."""


_KINDS: Mapping[type, _Kind] = {
    ActualState: _Kind(
        "report", ACTUAL_STATE, ACTUAL_STATE_TYPE, lambda data: from_json(data, ActualState)
    ),
    Heartbeat: _Kind(
        "heartbeat", HEARTBEAT, HEARTBEAT_TYPE, lambda data: from_json(data, Heartbeat)
    ),
}


def _kind_of(cls: type) -> _Kind:
    if (found := _KINDS.get(cls)) is not None:
        return found
    from harmony_core.wire.inventory import inventory_from_json  # hardly ever read

    return _Kind("inventory", INVENTORY, INVENTORY_TYPE, inventory_from_json)


_UNSIGNED = (
    "Unverified: it is not signed with the key that the device was enrolled with. Either somebody else has "
    "written it, or the device was not let in from here: harmony enroll root@HOST --replace"
)
_WITHOUT_KEY = (
    "Unverified: no key is known with which it signs. It was revoked, or was not let in from here: let it in "
    "with harmony enroll root@HOST --replace, or forget it with harmony retire"
)
_TOLD_BEFORE = (
    "Unverified: the device has said something newer before. Either somebody has put an old message back, or "
    "the device has lost both its memory and its clock, or was copied"
)


@attrs.frozen(kw_only=True)
class Report:
    """What one device reported last. ``state`` is None when it cannot be read, and ``problem`` says why."""

    agent_id: str
    at: datetime
    state: ActualState | None
    problem: str = ""


@attrs.frozen(kw_only=True)
class Seen:
    """One device, as the control plane knows it."""

    agent_id: str
    presence: Presence
    at: datetime | None = None
    """When it was heard last; of one that is offline for long, when it reported last."""
    state: ActualState | None = None
    problem: str = ""
    """Why what it reports, or its heartbeat, cannot be read or believed."""
    wanted: int | None = None
    """The generation that stands in its desired state; None for none, or none that can be read.

    It is not verified here: what the device refuses, it says itself.
    """
    desired: Desired | None = None
    """What stands in its desired state, as far as the fleet's view shows it."""
    heartbeat: Heartbeat | None = None
    """The newest that it was heard by; None while it is not."""
    clock_offset_s: float | None = None
    """How far its clock was ahead of the message server's then, the way there included."""
    follows_other_root: bool = False
    """Whether another root document counts there than is known here by that version."""
    is_unverified: bool = False
    """Whether *problem* is that what stands there is not signed by it, or is older than what it said."""

    @property
    def labels(self) -> Mapping[str, str]:
        """Return its labels, as they were signed last; none where nobody who is trusted has signed them."""
        return self.desired.labels if self.desired is not None else {}


@attrs.frozen
class Reading(Generic[T]):
    """What one entry says. ``value`` is None where that cannot be read or believed, for *problem*."""

    entry: Entry
    value: T | None
    problem: str = ""
    is_old: bool = False
    """Whether something newer was read before."""
    is_unsigned: bool = False
    """Whether the device has not signed it."""
    is_other_root: bool = False
    """Whether it says that another root document counts there than is known here by that version."""

    @property
    def is_unverified(self) -> bool:
        return self.is_old or self.is_unsigned


InventoryRead: TypeAlias = "Reading[Inventory]"


@attrs.frozen(kw_only=True)
class Known:
    """What was read of one device, piece by piece."""

    agent_id: str
    report: Reading[ActualState] | None = None
    beat: Reading[Heartbeat] | None = None
    """Its newest heartbeat."""
    ended_at: datetime | None = None
    """When the server said that its newest heartbeat has ended; None while it counts, and where nobody tells
    any more."""
    heard_at: datetime | None = None
    """When it was heard last, of one of which the server does not tell any more."""
    desired: Desired | None = None

    def end_if_over(self, now: datetime) -> Known:
        """Return what is known now, given that its heartbeat may be over though the server still has it."""
        beat = self.beat.entry if self.beat else None
        if beat is None or (ended_at := find_end(beat, now)) is None:
            return self
        if now <= ended_at + timedelta(seconds=HEARTBEAT_AGE_S):
            return attrs.evolve(self, ended_at=ended_at)
        return attrs.evolve(self, beat=None, heard_at=beat.written_at)

    @property
    def _longest(self) -> timedelta:
        """For how long its heartbeats count at the most: so long ago it was heard at least."""
        state = self.report.value if self.report else None
        if state is None or state.heartbeat_s is None:
            return timedelta(seconds=LIFETIME_MOST_S)
        return timedelta(seconds=compute_lifetime_s(state.heartbeat_s))

    def to_seen(self) -> Seen:
        """Return the result as a `Seen`."""
        report, beat = self.report, self.beat
        presence: Presence = "Offline" if report or self.heard_at else "Never"
        times = [report.entry.written_at] if report else []
        heartbeat: Heartbeat | None = None
        if self.heard_at:
            times.append(self.heard_at)
        if self.ended_at is not None:
            presence = "Silent"
            times.append(beat.entry.written_at if beat else self.ended_at - self._longest)
        elif beat is not None and beat.value is not None:
            presence, heartbeat = "Heard", beat.value
            times.append(beat.entry.written_at)
        pieces = [each for each in (report, beat) if each is not None]
        return Seen(
            agent_id=self.agent_id,
            presence=presence,
            at=max(times, default=None),
            state=report.value if report else None,
            problem=next((each.problem for each in pieces if each.problem), ""),
            is_unverified=any(each.is_unverified for each in pieces),
            follows_other_root=report is not None and report.is_other_root,
            wanted=self.desired.generation if self.desired else None,
            desired=self.desired,
            heartbeat=heartbeat,
            clock_offset_s=_clock_offset_s(heartbeat, beat.entry) if heartbeat and beat else None,
        )


class Reports:
    """Reads what devices say, by *client*, as whoever has *home* may believe it."""

    def __init__(self, home: Home, client: Client) -> None:
        self.home = home
        self.client = client
        self._keys = DeviceKeys(home, client)
        self._seen = SeenCounters(home.seen)
        self._roots = RootHashes(home)

    async def read_report(self, agent_id: str) -> Report | None:
        """Return what the device said last; None when it never said anything."""
        found = await Bucket(self.client, ACTUAL_STATE).get(agent_id)
        return await self._report(found) if found is not None else None

    async def read_heartbeat(self, agent_id: str) -> Heartbeat | None:
        """Return the device's newest heartbeat; None when none counts, or none can be believed."""
        found = await Bucket(self.client, HEARTBEAT).get(agent_id)
        if found is None or find_end(found, datetime.now(UTC)) is not None:
            return None
        return (await self.read([found], Heartbeat))[agent_id].value

    async def is_heard(self, agent_id: str) -> bool:
        """Return whether the device's newest heartbeat counts.

        A device may have reported before its first heartbeat: it has just started, or is busy.
        """
        if await self.read_heartbeat(agent_id) is not None:
            return True
        report = await self.read_report(agent_id)
        if report is None or report.state is None:
            return False
        return datetime.now(UTC) - report.at < timedelta(seconds=HEARTBEAT_AGE_S)

    @asynccontextmanager
    async def reporting(self, agent_id: str = "*") -> AsyncGenerator[AsyncIterator[Report]]:
        """Yield what the device (every device, by ``*``) has reported, and every report from now on."""
        async with following(self.client, ACTUAL_STATE, agent_id) as entries:

            async def reports() -> AsyncGenerator[Report]:
                async for entry in entries:
                    yield await self._report(entry)

            async with aclosing(reports()) as told:
                yield told

    @asynccontextmanager
    async def states(self, agent_id: str = "*") -> AsyncGenerator[AsyncIterator[ActualState]]:
        """Yield, as `reporting`, the states that can be read."""
        async with self.reporting(agent_id) as told:

            async def states() -> AsyncGenerator[ActualState]:
                async for report in told:
                    if report.state is not None:
                        yield report.state

            async with aclosing(states()) as each:
                yield each

    async def read_all_seen(self) -> list[Seen]:
        """Return every device that is enrolled, has reported or has been heard, by id."""
        return [each.to_seen() for each in await self.read_all_known()]

    async def read_all_known(self) -> list[Known]:
        """Return the same, piece by piece."""
        enrolled, states, found = await asyncio.gather(
            asyncio.to_thread(self.home.agents),
            newest(self.client, f"KV_{ACTUAL_STATE}", ACTUAL_STATE),
            _read_beats(self.client),
        )
        beats, ended = found
        reports = await self.read(states, ActualState)
        ids = sorted({*enrolled, *reports, *beats, *ended})
        wanted = {entry.key: entry for entry in await newest_of(self.client, DESIRED_STATE, ids)}
        told = await self.read(list(beats.values()), Heartbeat)
        desired = await self.read_desired(wanted, reports)
        known = [
            Known(
                agent_id=each,
                report=reports.get(each),
                beat=told.get(each),
                ended_at=ended.get(each),
                desired=desired.get(each),
            )
            for each in ids
        ]
        now = datetime.now(UTC)
        return [each.end_if_over(now) for each in known]

    async def read_seen(self, agent_id: str) -> Seen:
        """Return one device, whether it was ever heard of or not."""
        return (await self.read_known(agent_id)).to_seen()

    async def read_known(self, agent_id: str) -> Known:
        """Return the same, piece by piece. All is asked for at once."""
        beats = Bucket(self.client, HEARTBEAT)
        told, expired, heard, wanted = await asyncio.gather(
            Bucket(self.client, ACTUAL_STATE).get(agent_id),
            beats.get_copied(agent_id, stream=HEARTBEAT_WATCH),
            beats.get(agent_id),
            Bucket(self.client, DESIRED_STATE).get(agent_id),
        )
        reports = await self.read([told] if told else [], ActualState)
        heartbeats = await self.read([heard] if heard else [], Heartbeat)
        desired = await self.read_desired({agent_id: wanted} if wanted else {}, reports)
        return Known(
            agent_id=agent_id,
            report=reports.get(agent_id),
            beat=heartbeats.get(agent_id),
            ended_at=expired.written_at if expired and not heard else None,
            desired=desired.get(agent_id),
        ).end_if_over(datetime.now(UTC))

    async def read_desired(
        self, entries: Mapping[str, Entry], reports: Mapping[str, Reading[ActualState]]
    ) -> dict[str, Desired]:
        """Read the desired states of *entries*, given what the devices have reported. See
        `bus.desired.read_desired`."""
        taken_in = {
            key: report.value.manifest_sha256 for key, report in reports.items() if report.value
        }
        return await read_desired(self.home, entries, taken_in)

    async def read_inventory(self, agent_id: str) -> Reading[Inventory] | None:
        """Return the inventory that the device has reported; None where it never did."""
        from harmony_core.wire.inventory import Inventory

        found = await Bucket(self.client, INVENTORY).get(agent_id)
        return None if found is None else (await self.read([found], Inventory))[agent_id]

    async def read_heads(self, agent_id: str) -> list[SeenHead]:
        """Return the heads of the device's chain of events in each of its reports that was read here, the
        oldest first."""
        await self._keys.load([agent_id])
        return await asyncio.to_thread(self._seen.heads, agent_id, self._keys.of(agent_id))

    async def _report(self, entry: Entry) -> Report:
        return (await self._reports([entry]))[entry.key]

    async def _reports(self, entries: Sequence[Entry]) -> dict[str, Report]:
        return {
            key: Report(
                agent_id=key,
                at=told.entry.written_at,
                state=told.value,
                problem=told.problem,
            )
            for key, told in (await self.read(entries, ActualState)).items()
        }

    async def read(self, entries: Sequence[Entry], cls: type[T]) -> dict[str, Reading[T]]:
        """Return what each says, by its key, if it can be believed; else why not."""
        found = await self._believe(entries, cls)
        for key, told in list(found.items()):
            if not told.is_old:
                continue
            # Another reader may have been quicker, and have read what came after this.
            newest = await Bucket(self.client, _kind_of(cls).bucket).get(key)
            if newest is not None and newest.revision > told.entry.revision:
                found |= await self._believe([newest], cls)
        return found

    async def _believe(self, entries: Sequence[Entry], cls: type[T]) -> dict[str, Reading[T]]:
        signed = await self._signed(entries, cls)
        found: dict[str, Reading[T]] = {
            each.key: _read_own(each, cls)
            if each.key in signed
            else Reading(each, None, self._why_unsigned(each.key), is_unsigned=True)
            for each in entries
        }
        messages = [
            SignedMessage(
                agent_id=each.key,
                kind=_kind_of(cls).kind,
                key=self._keys.of(each.key),
                counter=value.counter,
                revision=each.revision,
                written_s=each.written_at.timestamp(),
                audit=_audit_of(value),
            )
            for each in entries
            if (value := found[each.key].value) is not None
        ]
        admitted = await asyncio.to_thread(self._seen.admit, messages)
        for each, is_new in zip(messages, admitted, strict=True):
            if not is_new:
                found[each.agent_id] = attrs.evolve(
                    found[each.agent_id], value=None, problem=_TOLD_BEFORE, is_old=True
                )
        if cls is ActualState:
            hashes = await asyncio.to_thread(self._roots.read)
            for key, told in found.items():
                if isinstance(told.value, ActualState) and _is_other_root(told.value, hashes):
                    found[key] = attrs.evolve(told, is_other_root=True)
        return found

    def _why_unsigned(self, agent_id: str) -> str:
        return _UNSIGNED if self._keys.of(agent_id) else _WITHOUT_KEY

    async def _signed(self, entries: Sequence[Entry], cls: type[T]) -> set[str]:
        """Return the keys of those values that their devices have signed."""
        await self._keys.load([each.key for each in entries])
        signed = self._verify(entries, cls)
        if len(signed) < len(entries):
            # One may have been enrolled since, or anew.
            await self._keys.load([each.key for each in entries], anew=True)
            signed = self._verify(entries, cls)
        return signed

    def _verify(self, entries: Sequence[Entry], cls: type[T]) -> set[str]:
        content_type = _kind_of(cls).content_type
        return {
            each.key
            for each in entries
            if self._keys.is_signed(each.key, content_type, each.value, each.signature)
        }


async def _read_beats(client: Client) -> tuple[dict[str, Entry], dict[str, datetime]]:
    """Return the heartbeats by id; and, for those that the bucket no longer has, when they ended, as long as
    the server knows."""
    told, heard = await asyncio.gather(
        newest(client, HEARTBEAT_WATCH, HEARTBEAT),
        newest(client, f"KV_{HEARTBEAT}", HEARTBEAT),
    )
    # A heartbeat comes a little earlier in the bucket than where its end is announced, and each has its clock
    # by which it goes: it is heard as long as the bucket has it.
    beats = {entry.key: entry for entry in heard}
    return beats, {each.key: each.written_at for each in told if each.key not in beats}


def _clock_offset_s(beat: Heartbeat, entry: Entry) -> float | None:
    shown_ms = beat.vitals.clock_ms if beat.vitals else None
    return None if shown_ms is None else round(shown_ms / 1000 - entry.written_at.timestamp(), 1)


def _is_other_root(state: ActualState, hashes: Mapping[int, str]) -> bool:
    known = hashes.get(state.root_version)
    return known is not None and state.root_sha256 not in {"", known}


def _audit_of(value: object) -> AuditHead | None:
    return value.audit if isinstance(value, ActualState) else None


def _read_own(entry: Entry, cls: type[T]) -> Reading[T]:
    """Return the value, if it can be read and is about the one who wrote it; else why not."""
    try:
        found: T = _kind_of(cls).read(entry.value)
    except InvalidManifest as error:
        return Reading(entry, None, error.message)
    if found.agent_id != entry.key:
        return Reading(entry, None, f"it says that it is {found.agent_id!r}")
    return Reading(entry, found)
