"""The three streams of events under hostile requests: each is answered in words or told something, none is a
defect of ours, and no place stays taken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from harmony_core.wire.replies import Alive, End
from tests.control.scripted_device import NOON

from .answering import answering
from .ground import Ground
from .test_api import events, until, whole_fleet

CHANGES, EVENTS, LOGS = (
    "/api/fleet/changes",
    "/api/devices/pi-1/events/live",
    "/api/devices/pi-1/logs",
)
ODD = (
    "\0",
    "a\r\nX-Evil: 1",
    "../../etc/passwd",
    "*",
    ">",
    "\u2603" * 60,
    "<script>",
    "' OR 1=1",
    " ",
    "%00",
)
NUMBERS = ("0", "-1", "1001", "9" * 400, "1e9", "NaN", "²", "", "1;2", "[]")
TAGS = (
    *("0-0", "-", "--", "zz-1", "²-²", "\0-1", "x" * 5000, "-1", "a-9999999999999999999"),
    *ODD,
)


def of_nothing(_: dict[str, Any]) -> list[Alive | End]:
    """What a device answers that has nothing to tell."""
    return [Alive(seq=0, at=NOON), End(seq=1)]


async def begin(client: httpx.AsyncClient, path: str, **options: Any) -> tuple[int, bytes]:
    """The status of a reply, and how it begins; then it is left."""
    async with client.stream("GET", path, **options) as reply:
        assert "x-evil" not in reply.headers
        assert "access-control-allow-origin" not in reply.headers
        async for part in reply.aiter_bytes():
            return reply.status_code, part
        return reply.status_code, b""


async def until_left(ground: Ground) -> None:
    """Return once nobody has a place any more."""
    async with asyncio.timeout(20):
        while ground.site.web.watchers.count or ground.site.web.followers.count:
            await asyncio.sleep(0.02)


async def test_a_tag_that_is_none_of_ours_begins_anew_and_shows_nothing_of_itself(
    ground: Ground,
) -> None:
    async with ground.site.client("viewer") as client, asyncio.timeout(60):
        tag = (await whole_fleet(client))["tag"]
        epoch = tag.partition("-")[0]
        for wrong in (*TAGS, f"{epoch}-99999", f"{epoch}--1", f"{epoch}-²", f"{tag}\n1", tag * 2):
            status, begins = await begin(client, CHANGES, params={"since": wrong})
            assert (status, begins.partition(b"event: ")[2][:5]) == (200, b"reset"), wrong
            assert len(wrong) < 3 or wrong.encode() not in begins
        for wrong in (b"\xff\xfe", b"0-\xb2", b"%s-1" % (b"x" * 4000)):
            status, begins = await begin(client, CHANGES, headers={"Last-Event-ID": wrong})
            assert (status, b"event: reset" in begins) == (200, True), wrong
        # What it began as still goes on.
        async with events(client, CHANGES) as told:
            assert (await until(told, "source"))[0] == {"problem": ""}
    await until_left(ground)


@asynccontextmanager
async def watching_one_that_answers(ground: Ground) -> AsyncGenerator[httpx.AsyncClient]:
    """A client that may look, and a device that has nothing to tell."""
    await ground.one.beat()
    async with (
        answering(ground.one.device, of_nothing),
        ground.site.client("viewer") as client,
        asyncio.timeout(60),
    ):
        await whole_fleet(client)
        yield client


@pytest.mark.parametrize("path", [EVENTS, LOGS])
async def test_a_score_or_a_number_that_cannot_be_is_refused_or_a_problem_and_never_a_defect(
    ground: Ground, path: str
) -> None:
    async with watching_one_that_answers(ground) as client:
        for lines in NUMBERS:
            status, told = await begin(client, path, params={"score": "web", "lines": lines})
            assert status == 400, (lines, told)
        for score in (*ODD, "x" * 64, "x" * 9000):
            status, told = await begin(client, path, params={"score": score})
            assert status in {200, 400}, (score, told)
            assert (status == 400) == told.startswith(b"{"), told
        for unknown in (
            "pi-9",
            "*",
            ">",
            "pi-1.x",
            "%00",
            "..%2f..",
            "pi-1%0d%0aX-Evil:1",
            "x" * 300,
        ):
            status, told = await begin(
                client, path.replace("pi-1", unknown), params={"score": "web"}
            )
            assert status in {400, 404}, (unknown, told)
        assert (await begin(client, path, params={"score": "web"}))[0] == 200
    await until_left(ground)


@pytest.mark.parametrize("path", [CHANGES, EVENTS, f"{LOGS}?score=web"])
async def test_a_stream_is_read_by_who_is_signed_in_and_by_reading_alone(
    ground: Ground, path: str
) -> None:
    async with ground.site.client() as stranger:
        for word in ("", "guessed", "x" * 6000, "a; harmony=b"):
            reply = await stranger.get(path, headers={"Cookie": f"harmony={word}"})
            assert (reply.status_code, b"pi-1" in reply.content) == (401, False), word
    async with ground.site.client("operator") as client:
        for method in ("POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"):
            reply = await client.request(method, path)
            assert reply.status_code in {400, 404, 405}, (method, reply.text)
        for method in ("POST", "DELETE"):
            reply = await client.request(method, path, headers={"Origin": "https://evil.example"})
            assert reply.status_code == 403
    await until_left(ground)


@pytest.mark.parametrize("path", [CHANGES, EVENTS, f"{LOGS}?score=web"])
async def test_many_who_ask_and_leave_at_once_take_no_place_for_good(
    ground: Ground, path: str
) -> None:
    async with watching_one_that_answers(ground) as client:
        statuses = {
            status for status, _ in await asyncio.gather(*(begin(client, path) for _ in range(80)))
        }
        assert statuses <= {200, 503}
        await until_left(ground)
        # By hand: a request and nothing more, and a connection that is cut off in the middle of it.
        port = int(ground.site.url.rpartition(":")[2])
        cookie = client.cookies["harmony"]
        for head in (
            f"GET {path} HTTP/1.1\r\nHost: x\r\nCookie: harmony={cookie}\r\n\r\n",
            f"GET {path} HT",
        ):
            for _ in range(10):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(head.encode())
                await writer.drain()
                writer.transport.abort()
        await until_left(ground)
        assert (await begin(client, path))[0] == 200
