"""Asking a device: what is made of its answers, whatever it answers, and how long it is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from nats.aio.msg import Msg

from harmony_control.bus.requests import Asking, Waits
from harmony_control.store import operator_key
from harmony_core.errors import (
    ConfigError,
    DependencyCycle,
    HarmonyError,
    NoAnswer,
    RequestExpired,
    RequestFailed,
    TooManyRequests,
    UnknownScore,
    UnknownVerb,
    UsageError,
)
from harmony_core.outcome import ErrorInfo
from harmony_core.wire.envelope import pin_keys
from harmony_core.wire.replies import Alive, End, Failed, Frame, Item, LoggedLine, to_frame, to_item
from harmony_core.wire.requests import (
    Ask,
    Diff,
    Events,
    Logs,
    Nonces,
    Reconcile,
    Release,
    Volumes,
    accept_request,
    open_request,
)

from .ground import Ground

NOON = "2026-01-31T12:00:00.000Z"
SHORT = Waits(first_look_s=0.3, answer_s=0.3, silent_s=0.3, away_s=1.0, ask_again_s=0.0)

Answer = Sequence[Frame | bytes]


def line(number: int) -> Item:
    """The second frame on, since the first says that the device is alive."""
    told = LoggedLine(
        resource="unit:web", at=NOON, stream="out", text=f"{number}", cursor=f"c={number}"
    )
    return Item(seq=number, item=to_item(told))


ALIVE = Alive(seq=0, at=NOON)
LINE = LoggedLine(resource="unit:web", at=NOON, stream="out", text="", cursor="c=1")


@attrs.define
class Answerer:
    """Answers as a test says, for pi-1, with exactly the rights of a device."""

    asked: list[Ask] = attrs.field(factory=list[Ask])

    async def answer(self, plane: Ground, message: Msg, answers: Callable[[Ask], Answer]) -> None:
        trusted = pin_keys([operator_key.load_public(plane.home)])
        asked = open_request(message.data, trusted=trusted, fleet="home", agent_id="pi-1")
        ask = accept_request(asked, nonces=Nonces(), now=datetime.now(UTC))
        self.asked.append(ask)
        for frame in answers(ask):
            data = frame if isinstance(frame, bytes) else to_frame(frame)
            await plane.pi.device.reply(asked.request.nonce, data)


@asynccontextmanager
async def answering(
    plane: Ground, *answers: Answer | Callable[[Ask], Answer]
) -> AsyncGenerator[Answerer]:
    """The first request is answered with the first of *answers*, and so on; then with the last."""
    answerer, left = Answerer(), list(answers)

    def the_next(ask: Ask) -> Answer:
        now = left.pop(0) if len(left) > 1 else left[0]
        return now(ask) if callable(now) else now

    subscription = await plane.pi.device.subscribe(plane.pi.device.mail("request"))

    async def answer_all() -> None:
        async for message in subscription.messages:
            await answerer.answer(plane, message, the_next)

    task = asyncio.create_task(answer_all())
    try:
        yield answerer
    finally:
        task.cancel()
        await asyncio.wait({task})


def asking(plane: Ground, waits: Waits = SHORT) -> Asking:
    return Asking(plane.home, plane.bus.admin, "pi-1", waits)


async def texts(
    plane: Ground, *, follow: bool = False, count: int = 1_000, waits: Waits = SHORT
) -> list[str]:
    """The lines that are told, at most *count* of them."""
    found: list[str] = []
    async with asking(plane, waits).logs("web", follow=follow) as lines:
        async for each in lines:
            found.append(each.text)
            if len(found) == count:
                break
    return found


async def test_an_answer_is_told_item_by_item_up_to_its_end(plane: Ground) -> None:
    async with answering(plane, [ALIVE, line(1), line(2), End(seq=3)]) as device:
        assert await texts(plane) == ["1", "2"]
    assert device.asked == [Logs(score="web")]


async def test_an_answer_may_come_slowly_as_long_as_it_comes(plane: Ground) -> None:
    frames = [Alive(seq=n, at=NOON) for n in range(50)]
    async with answering(plane, [*frames, line(50), End(seq=51)]):
        assert await texts(plane) == ["50"]


@pytest.mark.parametrize(
    "frames",
    [
        [ALIVE, line(2), End(seq=3)],
        [line(1), End(seq=2)],
        [ALIVE, line(1), line(1), End(seq=2)],
        [ALIVE, End(seq=2)],
    ],
)
async def test_an_answer_of_which_a_part_is_missing_is_none(plane: Ground, frames: Answer) -> None:
    async with answering(plane, frames):
        with pytest.raises(NoAnswer, match="lost"):
            await texts(plane)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"{}",
        b"[" * 10_000,
        b'{"kind":"item","seq":1,"item":{}}',
        b'{"kind":"item","seq":1,"item":[]}',
        to_frame(Item(seq=1, item={**line(1).item, "cursor": "two words"})),
        to_frame(Item(seq=1, item={**line(1).item, "resource": "x" * 1000})),
    ],
)
async def test_what_cannot_be_read_is_told_as_that(plane: Ground, frame: bytes) -> None:
    async with answering(plane, [ALIVE, frame, End(seq=2)]):
        with pytest.raises(NoAnswer, match="pi-1 answers cannot be read"):
            await texts(plane)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("UnknownScore", UnknownScore),
        ("UnknownVerb", UnknownVerb),
        ("TooManyRequests", TooManyRequests),
        ("RequestExpired", RequestExpired),
        ("DependencyCycle", DependencyCycle),
        ("CapabilityUnavailable", RequestFailed),
        ("Defect", RequestFailed),
        ("HarmonyError", RequestFailed),
        ("__init__", RequestFailed),
    ],
)
async def test_what_it_is_refused_with_is_raised(
    plane: Ground, code: str, error: type[HarmonyError]
) -> None:
    said = ErrorInfo(code=code, message="because")
    async with answering(plane, [ALIVE, line(1), Failed(seq=2, error=said)]):
        with pytest.raises(error, match=r"^pi-1: .*because$") as raised:
            await texts(plane)
    assert type(raised.value) is error


async def test_a_device_that_is_not_there_is_told_as_that(plane: Ground) -> None:
    with pytest.raises(NoAnswer, match="pi-1 was never heard of"):
        await texts(plane)
    await plane.pi.report(plane.pi.state(0))
    with pytest.raises(NoAnswer, match="offline, it has missed its heartbeats"):
        await texts(plane)


async def test_a_device_that_lives_and_does_not_answer_is_told_as_that(plane: Ground) -> None:
    await plane.pi.beat()
    with pytest.raises(NoAnswer, match="pi-1 is online, but did not reply"):
        await texts(plane)


async def test_a_device_that_stops_in_the_middle_is_told_as_that(plane: Ground) -> None:
    async with answering(plane, [ALIVE, line(1)]):
        with pytest.raises(NoAnswer, match="pi-1 is offline, and has stopped replying"):
            await texts(plane)


async def test_what_is_followed_is_asked_for_again_from_the_last_line_on(plane: Ground) -> None:
    answers: list[Answer] = [
        [ALIVE, line(1), line(2), End(seq=3)],
        [ALIVE, End(seq=1)],
        [ALIVE, line(1), End(seq=2)],
    ]
    async with answering(plane, *answers) as device:
        assert await texts(plane, follow=True, count=3) == ["1", "2", "1"]
    since = datetime(2026, 1, 31, 12, tzinfo=UTC)
    again = Logs(score="web", follow=True, since=since, after={"unit:web": "c=2"})
    assert device.asked == [Logs(score="web", follow=True), again, again]


async def test_what_is_followed_goes_on_after_the_device_was_away_for_a_moment(
    plane: Ground,
) -> None:
    await plane.pi.beat()
    busy = ErrorInfo(code="TooManyRequests", message="ask again")
    answers: list[Answer] = [
        [ALIVE, line(1)],
        [],
        [Failed(seq=0, error=busy)],
        [ALIVE, b"garbage"],
        [ALIVE, line(1), End(seq=2)],
    ]
    # Away for a moment: 0.9 s by the other waits, and what a busy machine takes besides.
    waits = attrs.evolve(SHORT, away_s=30.0)
    async with answering(plane, *answers) as device:
        assert await texts(plane, follow=True, count=2, waits=waits) == ["1", "1"]
    assert len(device.asked) == 5


async def test_what_is_followed_ends_when_the_device_stays_away(plane: Ground) -> None:
    async with answering(plane, [ALIVE, line(1), End(seq=2)], []):
        with pytest.raises(NoAnswer):
            await texts(plane, follow=True)


async def test_what_is_followed_ends_when_it_is_refused(plane: Ground) -> None:
    gone = Failed(seq=0, error=ErrorInfo(code="UnknownScore", message="gone"))
    async with answering(plane, [ALIVE, line(1), End(seq=2)], [gone]):
        with pytest.raises(UnknownScore):
            await texts(plane, follow=True)


async def test_events_are_followed_from_the_last_one_on(plane: Ground) -> None:
    def event(seq: int, number: int) -> Item:
        return Item(seq=seq, item={"seq": number})

    answers: list[Answer] = [
        [ALIVE, End(seq=1)],
        [ALIVE, event(1, 7), End(seq=2)],
        [ALIVE, event(1, 8), End(seq=2)],
    ]
    found: list[Any] = []
    async with (
        answering(plane, *answers) as device,
        asking(plane).events(follow=True, score="web") as events,
    ):
        async for each in events:
            found.append(each)
            if len(found) == 2:
                break
    assert found == [{"seq": 7}, {"seq": 8}]
    asked = [each.after for each in device.asked if isinstance(each, Events)]
    assert asked == [None, None, 7]


async def test_an_event_without_its_number_is_told_as_that(plane: Ground) -> None:
    async with answering(plane, [ALIVE, Item(seq=1, item={"seq": "x"}), End(seq=2)]):
        with pytest.raises(NoAnswer, match="cannot be read"):
            async with asking(plane).events() as events:
                assert [each async for each in events]


async def test_the_other_verbs_ask_what_they_say(plane: Ground) -> None:
    async with answering(plane, [ALIVE, End(seq=1)]) as device:
        assert await asking(plane).diff([], whole=True) == []
        await asking(plane).release("web")
        assert await asking(plane).volumes() == []
        async with asking(plane).reconcile("web") as scores:
            assert [each async for each in scores] == []
    assert device.asked == [
        Diff(entries=(), whole=True),
        Release(score="web"),
        Volumes(),
        Reconcile(score="web"),
    ]


async def test_a_page_that_is_none_is_told_as_that(plane: Ground) -> None:
    item = Item(seq=1, item={"score": "web", "state": {"kind": "FileScore"}})
    async with answering(plane, [ALIVE, item, End(seq=2)]):
        with pytest.raises(NoAnswer, match="not a Score's state"):
            async with asking(plane).reconcile() as scores:
                assert [each async for each in scores]


async def test_what_cannot_be_asked_is_not_sent(plane: Ground) -> None:
    async with answering(plane, [ALIVE, End(seq=1)]) as device:
        with pytest.raises(UsageError, match="score"):
            await asking(plane).release("Web!")
        with pytest.raises(UsageError, match="lines"):
            async with asking(plane).logs("web", lines=0):
                pass
    assert device.asked == []


async def test_nothing_is_asked_without_the_operators_key(plane: Ground) -> None:
    plane.home.operator_key.unlink()
    with pytest.raises(ConfigError, match="harmony keygen"):
        await texts(plane)


async def test_what_is_not_read_to_its_end_leaves_nothing_behind(plane: Ground) -> None:
    before = len(plane.bus.admin._subs)  # pyright: ignore[reportPrivateUsage] - it does not tell
    async with answering(plane, [ALIVE, *(line(n) for n in range(1, 50))]):
        assert await texts(plane, follow=True, count=3) == ["1", "2", "3"]
    assert len(plane.bus.admin._subs) == before  # pyright: ignore[reportPrivateUsage] - as above


@pytest.mark.parametrize("forever", ["alive", "large"])
async def test_a_device_that_talks_on_without_end_is_not_listened_to_for_ever(
    forever: str, plane: Ground
) -> None:
    """Whoever broke into a device could else hold a command, and fill the memory of who asked."""
    waits = attrs.evolve(SHORT, silent_s=20.0, all_s=1.0 if forever == "alive" else 300.0)
    waits = attrs.evolve(waits, first_look_s=20.0, most_bytes=1_000_000)
    text = "x" if forever == "alive" else "x" * 50_000
    frames = [to_frame(ALIVE)]
    for number in range(1, 1000):
        told = attrs.evolve(LINE, text=text)
        frames.append(to_frame(Item(seq=number, item=to_item(told))))

    async def talk(message: Msg) -> None:
        trusted = pin_keys([operator_key.load_public(plane.home)])
        asked = open_request(message.data, trusted=trusted, fleet="home", agent_id="pi-1")
        for data in frames:
            await plane.pi.device.reply(asked.request.nonce, data)
            await asyncio.sleep(0.05 if forever == "alive" else 0)

    # The server knows of it when this returns.
    subscription = await plane.pi.device.subscribe(plane.pi.device.mail("request"))

    async def listen() -> None:
        await talk(await subscription.next_msg(timeout=20))

    talking = asyncio.create_task(listen())
    asking = Asking(plane.home, plane.bus.admin, "pi-1", waits)
    said = "has not ended its answer after 1 s" if forever == "alive" else "more than 1000000 bytes"
    with pytest.raises(NoAnswer, match=said):
        await _read_all(asking)
    talking.cancel()
    await asyncio.wait([talking])


async def _read_all(asking: Asking) -> None:
    async with asking.logs("web") as lines:
        async for _ in lines:
            pass
