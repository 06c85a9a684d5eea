"""Ask a device: send a signed request, and read its answer frame by frame.

    sign -> listen on a subject of the request's own -> send -> frames, in order -> end

A device that does not answer is told as that, never waited for without end. What is followed is a chain of
requests: each goes on from the last line had, so that neither a lost connection nor a device that was
started anew loses or repeats one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import TypeAlias, TypeVar

import attrs
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from pydantic import ValidationError

from harmony_control.store import operator_key
from harmony_control.store.home import Home
from harmony_core.errors import (
    BusUnreachable,
    EntryRefused,
    HarmonyError,
    InvalidReply,
    NoAnswer,
    NotEnrolled,
    OutOfScope,
    PolicyRefused,
    RequestError,
    RequestExpired,
    RequestFailed,
    StoreError,
    TooManyRequests,
    Unverified,
    UsageError,
)
from harmony_core.outcome import ErrorInfo
from harmony_core.resources import first_problem
from harmony_core.wire.actual_state import ScoreStatus, score_from_json
from harmony_core.wire.device_signature import REPLY_TYPE, reply_content
from harmony_core.wire.manifest import SerializedScore
from harmony_core.wire.names import HEARTBEAT, MAIL, target_of
from harmony_core.wire.replies import (
    Alive,
    ChainedEvent,
    End,
    Failed,
    Item,
    JsonItem,
    ListedVolume,
    LoggedLine,
    Planned,
    PlannedChange,
    RebootAsked,
    Reconciled,
    from_frame,
    item_as,
)
from harmony_core.wire.requests import (
    LIFETIME_MOST_S,
    Ask,
    Audit,
    Diff,
    Events,
    Logs,
    Reboot,
    Reconcile,
    Release,
    Volumes,
    new_request,
    seal_request,
)
from harmony_core.wire.times import parse_rfc3339

from .connection import Bucket, bus_errors, raise_if_refused, signature_of
from .device_keys import DeviceKeys
from .devices import refuse_unknown
from .lifetimes import lifetime_of
from .reports import Reports, Seen

__all__ = ["Asking", "Event", "Foreseen", "Looked", "Waits"]

Event: TypeAlias = JsonItem
"""One change: what, when, why, by which generation, signed by whom, and how it was before and after."""

EVENTS_MOST = 10_000
"""A device keeps 2,000; a newer one may keep more."""
_LATE_S = 10.0
"""So long after its time a heartbeat is missing. Each counts for three times as long as the next may take."""
_REMEDY = (
    "Does it trust this operator's key, and is its agent new enough? Logs on the device: "
    "`journalctl -u harmony-agent`"
)
_T = TypeVar("_T")
_AskT = TypeVar("_AskT", Logs, Events, Audit, Reconcile, Diff, Release, Reboot, Volumes)
_FollowedT = TypeVar("_FollowedT", Logs, Events)
_REFUSED: tuple[type[HarmonyError], ...] = (
    *RequestError.__subclasses__(),
    *EntryRefused.__subclasses__(),
    OutOfScope,
    PolicyRefused,
)
_REFUSALS = {each.code: each for each in _REFUSED}


@attrs.frozen(kw_only=True)
class Foreseen:
    """What one Score would come to."""

    planned: Planned
    changes: tuple[PlannedChange, ...] = ()


@attrs.frozen(kw_only=True)
class Looked:
    """One Score that was looked at. ``state`` is None when it is gone."""

    score: str
    state: ScoreStatus | None


@attrs.frozen(kw_only=True)
class Waits:
    """How long is waited for what, in seconds."""

    first_look_s: float = 3.0
    """By then an answer has begun, or it is worth asking whether the device lives, and asking it again."""
    answer_s: float = 15.0
    silent_s: float = 20.0
    """A device that answers says at least every five seconds that it still does."""
    away_s: float = 90.0
    """How long something followed may be away: a device takes as long to start anew."""
    ask_again_s: float = 1.0
    """What is followed is asked for at most so often."""
    all_s: float = 330.0
    """An answer has come to its end by then, however lively the device is: it takes 300 s at most itself.
    Only what is spent waiting counts, not how long whoever reads takes over it."""
    most_bytes: int = 9 * 1024 * 1024
    """The same for how much it says: a device stops at 8 MiB by itself."""


@attrs.frozen
class _Answer:
    """Where the answer to one request comes."""

    nonce: str
    envelope: bytes
    """Of the request."""
    subscription: Subscription
    keys: DeviceKeys


@attrs.frozen
class Asking:
    """Asks the device *agent_id*.

    Every method raises `NoAnswer` when it does not answer, `Unverified` when somebody else does, a
    `RequestError` for what it does not do, `BusUnreachable`, `UsageError` for what cannot be asked,
    `UnknownDevice` of a device that there is not, and `ConfigError` without a signing key.
    """

    home: Home
    client: Client
    agent_id: str
    waits: Waits = Waits()

    @asynccontextmanager
    async def logs(
        self, score: str, *, since: datetime | None = None, lines: int = 100, follow: bool = False
    ) -> AsyncGenerator[AsyncIterator[LoggedLine]]:
        """Yield the newest *lines* that the Score's units and containers have logged; then, with *follow*,
        what they log from then on, until the block is left."""
        ask = _make_ask(Logs, score=score, since=since, lines=lines, follow=follow)
        async with aclosing(self._logs(ask)) as told:
            yield told

    @asynccontextmanager
    async def events(
        self,
        *,
        score: str | None = None,
        since: datetime | None = None,
        after: int | None = None,
        lines: int = 100,
        follow: bool = False,
    ) -> AsyncGenerator[AsyncIterator[Event]]:
        """Yield the newest *lines* changes that were made to the device, or for one Score, or all after the
        one with the number *after*; then, with *follow*, every change from then on."""
        ask = _make_ask(Events, score=score, since=since, after=after, lines=lines, follow=follow)
        async with aclosing(self._events(ask)) as told:
            yield told

    @asynccontextmanager
    async def reconcile(
        self, score: str | None = None, *, enforce: bool = False
    ) -> AsyncGenerator[AsyncIterator[Looked]]:
        """Have the device look at one Score, or at all, now. Yield the result of each, as it comes.

        With *enforce*, repair once also what has drifted and is only to be reported.
        """
        ask = _make_ask(Reconcile, score=score, enforce=enforce)
        async with aclosing(self._reconcile(ask)) as told:
            yield told

    async def diff(
        self, entries: Sequence[SerializedScore], *, whole: bool = False
    ) -> list[Foreseen]:
        """Return what would change if *entries* were added or replaced, or were all there is (*whole*)."""
        found: list[Foreseen] = []
        ask = _make_ask(Diff, entries=tuple(entries), whole=whole)
        async with aclosing(self._items(ask)) as items:
            async for item in items:
                if "resource" not in item:
                    found.append(Foreseen(planned=self._read(Planned, item)))
                elif found:
                    change = self._read(PlannedChange, item)
                    found[-1] = attrs.evolve(found[-1], changes=(*found[-1].changes, change))
        return found

    async def release(self, score: str) -> None:
        """Have the device do now what an application has asked to delay."""
        async with aclosing(self._items(_make_ask(Release, score=score))) as items:
            async for _ in items:
                pass

    async def reboot(self, boot_id: str, *, if_needed: bool) -> RebootAsked:
        """Have the device reboot out of the boot *boot_id*, which it has reported. Return its answer.

        It answers just before it goes down. Its next report says whether it was rebooted.
        """
        told: RebootAsked | None = None
        ask = _make_ask(Reboot, boot_id=boot_id, if_needed=if_needed)
        try:
            async with aclosing(self._items(ask)) as items:
                async for item in items:
                    told = self._read(RebootAsked, item)
        except (NoAnswer, BusUnreachable):
            if told is None:
                raise
            # It goes down in the midst of its answer.
        if told is None:
            raise self._unreadable("it does not say whether it is booted")
        return told

    async def volumes(self) -> list[ListedVolume]:
        """Return all volumes of the device, whoever made them, by name."""
        async with aclosing(self._items(_make_ask(Volumes))) as items:
            return [self._read(ListedVolume, item) async for item in items]

    async def items(
        self, ask: Ask, *, lifetime_s: float = LIFETIME_MOST_S
    ) -> AsyncGenerator[JsonItem]:
        """Yield the items of the answer to *ask*, which the device must accept within *lifetime_s*, up to its
        end."""
        async with aclosing(self._items(ask, lifetime_s)) as items:
            async for item in items:
                yield item

    def read(self, cls: type[_T], item: JsonItem) -> _T:
        """Return *item* as what it should be. Raise `NoAnswer` where it is something else."""
        return self._read(cls, item)

    async def find_key(self) -> str:
        """Return the public key with which the device was enrolled. Raise `NotEnrolled` where it is not
        known."""
        await refuse_unknown(self.home, self.client, self.agent_id)
        keys = DeviceKeys(self.home, self.client)
        await keys.load([self.agent_id])
        if not (key := keys.of(self.agent_id)):
            raise NotEnrolled(
                f"the key of {self.agent_id} is not known here, so that nothing can be sealed to it; let it "
                "in again with: harmony enroll root@HOST --replace"
            )
        return key

    async def audit(self) -> list[ChainedEvent]:
        """Return all changes that the device has recorded, oldest first, exactly as they are stored."""
        found: list[ChainedEvent] = []
        after: int | None = None
        while True:
            # What it keeps is more than one answer may be.
            page: list[ChainedEvent] = []
            async with aclosing(self._items(_make_ask(Audit, after=after))) as items:
                async for item in items:
                    event = self._read(ChainedEvent, item)
                    if not (after or 0) < event.seq < 2**53:
                        raise self._unreadable(f"event {event.seq} comes after event {after or 0}")
                    page.append(event)
                    after = event.seq
            found += page
            if not page:
                return found
            if len(found) > EVENTS_MOST:
                raise self._unreadable(f"it tells of more than {EVENTS_MOST} events")

    async def _logs(self, ask: Logs) -> AsyncGenerator[LoggedLine]:
        patience = _Patience(self.waits, ask.follow)
        while patience.lasts():
            async with patience.try_once(), aclosing(self._frames(ask)) as frames:
                async for frame in frames:
                    patience.heard()
                    if isinstance(frame, Alive):
                        # What has logged nothing yet is looked at from here on.
                        ask = self._with(ask, since=ask.since or self._time(frame.at))
                        continue
                    line = self._read(LoggedLine, frame.item)
                    ask = self._with(ask, after={**ask.after, line.resource: line.cursor})
                    yield line

    async def _events(self, ask: Events) -> AsyncGenerator[Event]:
        patience = _Patience(self.waits, ask.follow)
        while patience.lasts():
            async with patience.try_once(), aclosing(self._frames(ask)) as frames:
                async for frame in frames:
                    patience.heard()
                    if isinstance(frame, Item):
                        ask = self._with(ask, after=frame.item.get("seq"))
                        yield frame.item

    async def _reconcile(self, ask: Reconcile) -> AsyncGenerator[Looked]:
        async with aclosing(self._items(ask)) as items:
            async for item in items:
                told = self._read(Reconciled, item)
                yield Looked(score=told.score, state=self._page(told.state))

    async def _items(
        self, ask: Ask, lifetime_s: float = LIFETIME_MOST_S
    ) -> AsyncGenerator[JsonItem]:
        async with aclosing(self._frames(ask, lifetime_s)) as frames:
            async for frame in frames:
                if isinstance(frame, Item):
                    yield frame.item

    async def _frames(
        self, ask: Ask, lifetime_s: float = LIFETIME_MOST_S
    ) -> AsyncGenerator[Alive | Item]:
        """Yield the frames of the answer to one request, up to its end. Raise what it was refused with."""
        async with self._send(ask, lifetime_s) as answer:
            expected = 0
            spent_s, size_bytes = 0.0, 0
            while True:
                begun = _now()
                left_s = self.waits.all_s - spent_s
                message = await self._next(answer, is_first=expected == 0, left_s=left_s)
                data = message.data
                spent_s += _now() - begun
                size_bytes += len(data)
                if size_bytes > self.waits.most_bytes:
                    raise NoAnswer(
                        f"{self.agent_id} answers with more than {self.waits.most_bytes} bytes, as "
                        "only a broken or foreign agent does; harmony stops reading. Look at the device "
                        "itself"
                    )
                frame = self._frame(answer, message)
                if frame.seq != expected:
                    raise NoAnswer(f"a part of what {self.agent_id} answered was lost; ask again")
                expected += 1
                match frame:
                    case Alive() | Item():
                        yield frame
                    case End():
                        return
                    case Failed(error=error):
                        raise self._refusal(error)

    @asynccontextmanager
    async def _send(self, ask: Ask, lifetime_s: float) -> AsyncGenerator[_Answer]:
        """Yield the subscription to which the answer to *ask* comes, from the moment on in which it was
        sent."""
        await refuse_unknown(self.home, self.client, self.agent_id)
        keys = DeviceKeys(self.home, self.client)
        await keys.load([self.agent_id])
        key = await asyncio.to_thread(operator_key.load, self.home)
        await asyncio.to_thread(self._refuse_elsewhere)
        fleet = (await asyncio.to_thread(self.home.control)).fleet
        request = new_request(
            ask,
            fleet=fleet,
            agent_id=self.agent_id,
            now=datetime.now(UTC),
            lifetime_s=lifetime_s,
        )
        envelope = seal_request(request, key)
        with bus_errors(f"asking {self.agent_id}"):
            # On one connection the server takes things in order: it listens before it asks.
            subscription = await self.client.subscribe(  # pyright: ignore[reportUnknownMemberType] - half typed there
                f"harmony.reply.{self.agent_id}.{request.nonce}",
                # What comes faster than it is read is bounded, too: what is lost is missed by its number.
                pending_bytes_limit=self.waits.most_bytes,
            )
            await self._publish(envelope)
        try:
            yield _Answer(request.nonce, envelope, subscription, keys)
        finally:
            with suppress(nats.errors.Error, OSError):
                await subscription.unsubscribe()

    async def _refuse_who_may_not(self) -> None:
        """Raise `OutOfScope` where the newest root document does not let this operator ask; see
        `_refuse_elsewhere`."""
        if not await asyncio.to_thread(self.home.root_versions):
            return
        from .roots import refresh

        with suppress(StoreError):
            await refresh(self.home, self.client)
        await asyncio.to_thread(self._refuse_elsewhere)

    def _refuse_elsewhere(self) -> None:
        """Raise `OutOfScope` where this operator may ask some devices, as far as is known here, but not this
        one: it would not answer. Raise `ConfigError`."""
        if not self.home.root_versions():
            return
        from harmony_control.store.roots import read_believed

        key, believed = operator_key.load(self.home).public, read_believed(self.home)
        if key.id not in believed.find_keys("request"):
            return
        if key.id not in believed.find_keys("request", target_of(self.agent_id)):
            raise OutOfScope(
                f"{key.id[:16]}… may ask nothing of {self.agent_id} by the root document, so it would not "
                "answer; ask with another key, or have this one let, by who holds the root keys: harmony "
                "trust add"
            )

    async def _publish(self, envelope: bytes) -> None:
        await self.client.publish(f"{MAIL}.{self.agent_id}.request", envelope)

    async def _ask_again(self, answer: _Answer) -> Msg:
        """Send the same request again and again until an answer begins. Raise TimeoutError when none does.

        A device answers it only once. It may have been lost among what others send there.
        """
        until = _now() + self.waits.answer_s
        while (left_s := until - _now()) > 0:
            with bus_errors(f"asking {self.agent_id}"):
                await self._publish(answer.envelope)
            with suppress(TimeoutError):
                return await _message(answer, min(left_s, self.waits.first_look_s))
        raise TimeoutError

    async def _next(self, answer: _Answer, *, is_first: bool, left_s: float) -> Msg:
        try:
            if not is_first:
                within_s = min(self.waits.silent_s, left_s)
                if within_s <= 0:
                    raise self._endless()
                try:
                    return await _message(answer, within_s)
                except TimeoutError:
                    if within_s < self.waits.silent_s:
                        raise self._endless() from None
                    raise
            with suppress(TimeoutError):
                return await _message(answer, self.waits.first_look_s)
            raise_if_refused(self.client, f"asking {self.agent_id}")
            seen = await Reports(self.home, self.client).read_seen(self.agent_id)
            if seen.heartbeat is None:
                raise NoAnswer(_why_unheard(seen))
            return await self._ask_again(answer)
        except TimeoutError:
            if is_first:
                await self._refuse_who_may_not()
            said = "did not reply" if is_first else "has stopped replying"
            raise NoAnswer(f"{self.agent_id} {await self._presence()} {said}. {_REMEDY}") from None

    async def _presence(self) -> str:
        """Return in words when the device was last heard: one that was just switched off seems to be alive
        for a while."""
        beat = await Bucket(self.client, HEARTBEAT).get(self.agent_id)
        if beat is None:
            return "is offline, and"
        ago_s = (datetime.now(UTC) - beat.written_at).total_seconds()
        if ago_s > lifetime_of(beat).total_seconds() / 3 + _LATE_S:
            return f"was last heard {ago_s:.0f} s ago, so it may have been switched off, and"
        return "is online, but"

    def _endless(self) -> NoAnswer:
        return NoAnswer(
            f"{self.agent_id} has not ended its answer after {self.waits.all_s:g} s; harmony "
            "stops waiting. Does something on the device hang? Look there with journalctl -u harmony-agent"
        )

    def _frame(self, answer: _Answer, message: Msg) -> Alive | Item | End | Failed:
        content = reply_content(answer.nonce, message.data)
        signature = signature_of(message.headers)
        if not answer.keys.is_signed(self.agent_id, REPLY_TYPE, content, signature):
            raise Unverified(
                f"what came as the answer of {self.agent_id} is not signed with the key that it was enrolled "
                "with: either somebody else has answered, or it was not let in from here: harmony enroll "
                "root@HOST --replace"
            )
        try:
            return from_frame(message.data)
        except InvalidReply as error:
            raise self._unreadable(error.message) from error

    def _read(self, cls: type[_T], item: JsonItem) -> _T:
        try:
            return item_as(cls, item)
        except InvalidReply as error:
            raise self._unreadable(error.message) from error

    def _time(self, text: str) -> datetime:
        try:
            return parse_rfc3339(text)
        except ValueError as error:
            raise self._unreadable(f"its time {error}") from error

    def _page(self, fields: JsonItem | None) -> ScoreStatus | None:
        try:
            return None if fields is None else score_from_json(fields)
        except Exception as error:
            raise self._unreadable(f"not a Score's state: {error}") from error

    def _with(self, ask: _FollowedT, **changes: object) -> _FollowedT:
        """Return *ask*, to be continued from here. The cursor of a device may be any text."""
        try:
            return type(ask).model_validate({**dict(ask), **changes})
        except ValidationError as error:
            raise self._unreadable(first_problem(error)) from error

    def _unreadable(self, problem: str) -> NoAnswer:
        return NoAnswer(f"what {self.agent_id} answers cannot be read: {problem}")

    def _refusal(self, told: ErrorInfo) -> HarmonyError:
        """Return our own error of the name that was told, if the request itself was wrong; else
        `RequestFailed`."""
        cls = _REFUSALS.get(told.code)
        if cls is not None:
            return cls(f"{self.agent_id}: {told.message}", resource=told.resource)
        return RequestFailed(
            f"{self.agent_id}: {told.code}: {told.message}", resource=told.resource
        )


class _Patience:
    """When to ask again: of what is *followed*, again and again, until it has been away for too long."""

    def __init__(self, waits: Waits, followed: bool) -> None:
        self._waits = waits
        self._followed = followed
        self._heard_at: float | None = None
        self._is_over = False

    def lasts(self) -> bool:
        return not self._is_over

    def heard(self) -> None:
        self._heard_at = _now()

    @asynccontextmanager
    async def try_once(self) -> AsyncGenerator[None]:
        begun = _now()
        try:
            yield
        except (NoAnswer, BusUnreachable, TooManyRequests, RequestExpired):
            if self._heard_at is None or not self._followed:
                raise
            if _now() - self._heard_at > self._waits.away_s:
                raise
        self._is_over = not self._followed
        if self._followed:
            await asyncio.sleep(max(0.0, begun + self._waits.ask_again_s - _now()))


def _make_ask(ask: type[_AskT], **fields: object) -> _AskT:
    try:
        return ask.model_validate(fields)
    except ValidationError as error:
        raise UsageError(f"this cannot be asked: {first_problem(error)}") from error


async def _message(answer: _Answer, within_s: float) -> Msg:
    """Return the next message. Raise TimeoutError when none comes."""
    with bus_errors("waiting for an answer"):
        try:
            return await answer.subscription.next_msg(timeout=within_s)
        except nats.errors.TimeoutError:
            pass
    raise TimeoutError


def _now() -> float:
    return asyncio.get_running_loop().time()


def _why_unheard(seen: Seen) -> str:
    """Return why a device that is not heard does not answer, as far as is known."""
    if seen.is_unverified:
        return (
            f"{seen.agent_id} does not answer, and nothing in its place is believed: {seen.problem}"
        )
    told = "is offline, it has missed its heartbeats"
    if seen.presence == "Never":
        told = "was never heard of"
    return f"{seen.agent_id} {told}; is it on, does it reach the message server?"
