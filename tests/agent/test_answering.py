"""Answers in time: on a virtual clock, how long each may take, and what is heard meanwhile."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime, timedelta

import attrs
import pytest

from harmony_agent.rpc.dispatch import (
    ANSWERED_AT_ONCE,
    ANSWERED_WITHIN_S,
    DONE_WITHIN_S,
    FOLLOWED_FOR_S,
    Answering,
)
from harmony_agent.rpc.stream import ALIVE_EVERY_S, Reply
from harmony_core.errors import AnswerTooLarge, BusUnreachable
from harmony_core.wire.envelope import SigningKey, pin_keys
from harmony_core.wire.replies import Alive, End, Failed, Frame, Item, JsonItem, from_frame
from harmony_core.wire.requests import (
    Ask,
    Diff,
    Events,
    Logs,
    Reconcile,
    new_request,
    seal_request,
)

pytestmark = pytest.mark.looptime

KEY = SigningKey(bytes(range(32)))
NOTHING = Logs(score="nothing")


@attrs.define
class Place:
    """An `Answering` whose answers are a test's own, and what it has sent."""

    frames: defaultdict[str, list[Frame]] = attrs.field(
        factory=lambda: defaultdict[str, list[Frame]](list)
    )
    sent_at_s: list[float] = attrs.field(factory=list[float])
    is_away: bool = False
    begun: list[Ask] = attrs.field(factory=list[Ask])

    async def send(self, nonce: str, data: bytes) -> None:
        if self.is_away:
            raise BusUnreachable("away")
        await asyncio.sleep(0)
        self.frames[nonce].append(from_frame(data))
        self.sent_at_s.append(asyncio.get_running_loop().time())

    async def items(self, ask: Ask, keyids: Sequence[str]) -> AsyncGenerator[JsonItem]:
        """One at once, and then nothing for ever; or nothing at all."""
        self.begun.append(ask)
        if ask == NOTHING:
            return
        yield {"n": 1}
        await asyncio.Event().wait()

    def answering(self) -> Answering:
        return Answering(
            send=self.send,
            items=self.items,
            vouched_for=list,
            trusted=lambda: pin_keys([KEY.public]),
            fleet="home",
            agent_id="pi-1",
            started_s=asyncio.get_running_loop().time() - 3600,
        )

    def take(self, answering: Answering, ask: Ask, tasks: asyncio.TaskGroup) -> list[Frame]:
        """The frames of the answer to *ask*, as they are sent."""
        request = new_request(ask, fleet="home", agent_id="pi-1", now=datetime.now(UTC))
        assert answering.take(seal_request(request, KEY), tasks)
        return self.frames[request.nonce]


async def answered(place: Place, ask: Ask) -> list[Frame]:
    async with asyncio.TaskGroup() as tasks:
        return place.take(place.answering(), ask, tasks)


async def now_s() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize(
    ("ask", "within_s"),
    [
        (Logs(score="web"), ANSWERED_WITHIN_S),
        (Events(), ANSWERED_WITHIN_S),
        (Diff(entries=()), DONE_WITHIN_S),
        (Reconcile(), DONE_WITHIN_S),
    ],
    ids=repr,
)
async def test_what_hangs_is_ended_and_told_as_that(ask: Ask, within_s: float) -> None:
    frames = await answered(Place(), ask)
    assert await now_s() == within_s
    assert isinstance(frames[-1], Failed)
    assert frames[-1].error.code == "TimedOut"


@pytest.mark.parametrize(
    "ask", [Logs(score="web", follow=True), Events(follow=True)], ids=["logs", "events"]
)
async def test_what_is_followed_ends_as_if_it_were_all(ask: Ask) -> None:
    frames = await answered(Place(), ask)
    assert await now_s() == FOLLOWED_FOR_S
    assert isinstance(frames[-1], End)


async def test_what_has_nothing_to_tell_ends_at_once() -> None:
    frames = await answered(Place(), NOTHING)
    assert [type(each) for each in frames] == [Alive, End]
    assert await now_s() == 0


async def test_whoever_reads_hears_of_us_every_few_seconds() -> None:
    place = Place()
    frames = await answered(place, Logs(score="web", follow=True))
    assert [type(each) for each in frames] == [Alive, Item, *([Alive] * 5), End]
    assert [each.seq for each in frames] == list(range(len(frames)))
    gaps = [b - a for a, b in zip(place.sent_at_s, place.sent_at_s[1:], strict=False)]
    assert max(gaps) == ALIVE_EVERY_S


async def test_who_follows_makes_way_and_who_asks_does_not() -> None:
    place, asks = Place(), [Events(follow=True), *([Events()] * (ANSWERED_AT_ONCE - 1))]
    answering = place.answering()
    async with asyncio.TaskGroup() as tasks:
        frames = [place.take(answering, each, tasks) for each in asks]
        await asyncio.sleep(1)
        place.take(answering, Reconcile(), tasks)
        await asyncio.sleep(1)
        assert isinstance(frames[0][-1], End)
        assert not any(isinstance(each[-1], End | Failed) for each in frames[1:])
        refused = place.take(answering, Reconcile(), tasks)
        await asyncio.sleep(1)
        (frame,) = refused
        assert isinstance(frame, Failed)
        assert frame.error.code == "TooManyRequests"


async def test_who_makes_way_in_the_moment_of_its_beginning_does_no_harm() -> None:
    place = Place()
    answering = place.answering()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(3 * ANSWERED_AT_ONCE):
            place.take(answering, Events(follow=True), tasks)
    assert len(place.begun) == 3 * ANSWERED_AT_ONCE
    assert all(isinstance(each[-1], End) for each in place.frames.values())


async def test_an_answer_nobody_can_be_told_ends_without_a_word() -> None:
    place = Place(is_away=True)
    assert await answered(place, Events()) == []
    assert await now_s() == 0


async def test_what_comes_too_late_is_not_begun() -> None:
    place = Place()
    then = datetime.now(UTC) - timedelta(minutes=2)
    request = new_request(Events(), fleet="home", agent_id="pi-1", now=then)
    async with asyncio.TaskGroup() as tasks:
        assert place.answering().take(seal_request(request, KEY), tasks)
    assert [type(each) for each in place.frames[request.nonce]] == [Failed]
    assert place.begun == []


async def test_frames_of_two_tasks_keep_their_order() -> None:
    sent: list[int] = []

    async def send(data: bytes) -> None:
        # The first takes the longest.
        await asyncio.sleep(1.0 / (1 + len(sent)))
        sent.append(from_frame(data).seq)

    reply = Reply(send)
    await asyncio.gather(*(reply.item({"n": n}) for n in range(5)), reply.alive())
    assert sent == list(range(6))


async def test_an_item_that_is_too_large_is_refused_and_takes_no_number() -> None:
    sent: list[Frame] = []

    async def send(data: bytes) -> None:
        sent.append(from_frame(data))

    reply = Reply(send)
    with pytest.raises(AnswerTooLarge):
        await reply.item({"text": "x" * 70_000})
    await reply.fail("Defect", "x" * 100_000)
    (frame,) = sent
    assert isinstance(frame, Failed)
    assert frame.seq == 0
    assert len(frame.error.message) < 5_000
