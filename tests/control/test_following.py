"""Reading and following buckets, also past the end of the server."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from harmony_control.bus.connection import Bucket, Entry, admin, bus_errors
from harmony_control.bus.following import following
from harmony_control.bus.newest import newest, newest_of
from harmony_control.server.process import running
from harmony_control.store.home import Home
from harmony_core.errors import BusUnreachable, RevisionConflict
from tests.nats import Bus, fleet_home, run_nats, serving, worked_off
from tests.ports import free_address

BUCKET = "actual-state"
LONG_S = 40.0


async def _all(bus: Bus) -> dict[str, bytes]:
    return {entry.key: entry.value for entry in await newest(bus.admin, f"KV_{BUCKET}", BUCKET)}


async def _until(entries: AsyncIterator[Entry], value: bytes) -> Entry:
    """The first with *value*; what is told twice in between does not matter."""
    async with asyncio.timeout(LONG_S):
        async for entry in entries:
            if entry.value == value:
                return entry
    raise AssertionError("the following has ended")


async def test_the_newest_of_every_key_is_read_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as bus:
        assert await _all(bus) == {}
        for number in range(300):
            await bus.bucket(BUCKET).put(f"pi-{number % 100}", str(number).encode())
        found = await _all(bus)
        assert found == {f"pi-{n}": str(200 + n).encode() for n in range(100)}
        (one,) = await newest(bus.admin, f"KV_{BUCKET}", BUCKET, "pi-7")
        same = await bus.bucket(BUCKET).get("pi-7")
        assert same is not None
        assert (one.key, one.value, one.revision) == (same.key, same.value, same.revision)
        assert abs((one.written_at - same.written_at).total_seconds()) < 0.001
        assert await newest(bus.admin, f"KV_{BUCKET}", BUCKET, "nobody") == []


async def test_a_device_that_writes_the_servers_headers_hides_nobody_and_is_nobody_else(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, "pi-1") as bus:
        device = await bus.device("pi-1")
        spoofed = {
            "Status": "204",
            "Nats-Subject": f"$KV.{BUCKET}.pi-2",
            "Nats-Sequence": "77",
            "Nats-Time-Stamp": "1999-01-01T00:00:00Z",
            "Nats-Num-Pending": "0",
        }
        await device.client.publish(f"$KV.{BUCKET}.pi-1", b"mine", headers=spoofed)
        await worked_off(device.client)
        await bus.bucket(BUCKET).put("pi-3", b"there")

        found = await newest(bus.admin, f"KV_{BUCKET}", BUCKET)

        assert [(each.key, each.value, each.revision) for each in found] == [
            ("pi-1", b"mine", 1),
            ("pi-3", b"there", 2),
        ]
        assert all(each.written_at.year > 2000 for each in found)


async def test_a_busy_server_may_take_longer_over_a_batch_than_a_silent_one_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience_s, many = 0.6, 5
    monkeypatch.setattr("harmony_control.bus.newest.REQUEST_TIMEOUT_S", patience_s)
    address, conf = free_address(), tmp_path / "nats.conf"
    conf.write_text(f"listen: {address}\n")
    async with run_nats(conf):
        client = Client()
        await client.connect(f"nats://{address}")
        ends = {"Status": "204", "Nats-Num-Pending": "0", "Nats-Last-Sequence": str(many)}

        async def answer_slowly(question: Msg) -> None:
            for each in range(1, many + 1):
                await asyncio.sleep(patience_s / 2)
                headers = {
                    "Nats-Subject": f"$KV.{BUCKET}.pi-{each}",
                    "Nats-Sequence": str(each),
                    "Nats-Time-Stamp": "2026-01-31T12:00:00Z",
                }
                await client.publish(question.reply, b"here", headers=headers)
            if answers_to_the_end:
                await client.publish(question.reply, headers=ends)

        asked = f"$JS.API.DIRECT.GET.KV_{BUCKET}"
        await client.subscribe(asked, cb=answer_slowly)  # pyright: ignore[reportUnknownMemberType] - half typed there
        answers_to_the_end = True
        assert len(await newest(client, f"KV_{BUCKET}", BUCKET)) == many
        answers_to_the_end = False
        with pytest.raises(BusUnreachable, match="NATS does not answer"):
            await newest(client, f"KV_{BUCKET}", BUCKET)
        await client.close()


async def test_what_is_deleted_is_not_among_the_newest(tmp_path: Path) -> None:
    async with serving(tmp_path) as bus:
        for key in ("pi-1", "pi-2"):
            await bus.bucket(BUCKET).put(key, b"there")
        await bus.bucket(BUCKET).clear("pi-1")
        assert await _all(bus) == {"pi-2": b"there"}


async def test_the_newest_of_many_keys_come_in_several_batches_and_each_once(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as bus:
        # More bytes than the server sends in one batch, and more keys than are asked for at once.
        large = b"x" * 900 * 1024
        wanted: dict[str, bytes] = {}
        for number in range(12):
            await bus.bucket("desired-state").put(f"pi-{number}", b"older")
            await bus.bucket("desired-state").put(f"pi-{number}", large)
            wanted[f"pi-{number}"] = large
        await bus.bucket("desired-state").put("pi-1", b"newest")
        wanted["pi-1"] = b"newest"

        found = await newest_of(bus.admin, "desired-state", [f"pi-{n}" for n in range(600)])
        assert sorted(entry.key for entry in found) == sorted(wanted)
        assert {entry.key: entry.value for entry in found} == wanted

        every = await newest(bus.admin, "KV_desired-state", "desired-state")
        assert {entry.key: entry.value for entry in every} == wanted
        assert await newest_of(bus.admin, "desired-state", []) == []


async def test_a_key_is_followed_from_its_newest_value_on(tmp_path: Path) -> None:
    async with serving(tmp_path) as bus:
        await bus.bucket(BUCKET).put("pi-1", b"older")
        await bus.bucket(BUCKET).put("pi-1", b"newest")
        async with asyncio.timeout(10), following(bus.admin, BUCKET, "pi-1") as entries:
            assert (await anext(entries)).value == b"newest"
            await bus.bucket(BUCKET).put("pi-2", b"another's")
            revision = await bus.bucket(BUCKET).put("pi-1", b"next")
            following_one = await anext(entries)
            assert (following_one.value, following_one.revision) == (b"next", revision)


async def test_what_was_refused_is_not_told(tmp_path: Path) -> None:
    async with serving(tmp_path) as bus:
        first = await bus.bucket(BUCKET).create("pi-1", b"first")
        async with asyncio.timeout(10), following(bus.admin, BUCKET) as entries:
            assert (await anext(entries)).value == b"first"
            with pytest.raises(RevisionConflict):
                await bus.bucket(BUCKET).create("pi-1", b"refused")
            await bus.bucket(BUCKET).update("pi-1", b"accepted", last=first)
            assert (await anext(entries)).value == b"accepted"


@asynccontextmanager
async def _followed_past_its_end(
    home: Home, value: bytes, last_act: Callable[[Client], Awaitable[object]]
) -> AsyncGenerator[AsyncIterator[Entry]]:
    """What follows a bucket whose newest value was *value* when the server was killed, by one connection."""
    async with AsyncExitStack() as stack:
        async with running(home, listen=free_address()) as server:
            client = await stack.enter_async_context(admin(home))
            await Bucket(client, BUCKET).put("pi-1", value)
            entries = await stack.enter_async_context(following(client, BUCKET))
            await _until(entries, value)
            await last_act(client)
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
        yield entries


async def test_a_server_that_is_killed_and_comes_back_is_followed_on(tmp_path: Path) -> None:
    home = fleet_home(tmp_path)
    async with (
        _followed_past_its_end(home, b"before", Client.flush) as entries,
        running(home),
        admin(home) as another,
    ):
        await Bucket(another, BUCKET).put("pi-1", b"after")
        await _until(entries, b"after")
        await Bucket(another, BUCKET).put("pi-1", b"later")
        await _until(entries, b"later")


async def test_a_bucket_that_counts_again_from_below_is_followed_all_the_same(
    tmp_path: Path,
) -> None:
    """As a server does that has lost its newest writes in a power cut."""

    async def lose(client: Client) -> None:
        await client.request(f"$JS.API.STREAM.DELETE.KV_{BUCKET}")

    home = fleet_home(tmp_path)
    async with (
        _followed_past_its_end(home, b"before", lose) as entries,
        running(home),
        admin(home) as another,
    ):
        await Bucket(another, BUCKET).put("pi-1", b"first")
        assert (await _until(entries, b"first")).revision == 1


async def test_without_the_bucket_nothing_is_followed_and_the_remedy_is_told(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as bus:
        await bus.admin.request(f"$JS.API.STREAM.DELETE.KV_{BUCKET}")
        with pytest.raises(BusUnreachable, match="no such bucket; `harmony server`"):
            await newest(bus.admin, f"KV_{BUCKET}", BUCKET)
        with pytest.raises(BusUnreachable, match="no such bucket; `harmony server`"):
            async with following(bus.admin, BUCKET):
                pass


async def test_who_is_cancelled_at_the_moment_of_the_answer_is() -> None:
    """Python 3.11 forgets it then, so that Ctrl-C was lost once in some forty reads that it met."""
    answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def read() -> None:
        with bus_errors("reading"):
            await asyncio.wait_for(answer, LONG_S)  # as nats-py waits
        await asyncio.sleep(LONG_S)

    reading = asyncio.create_task(read())
    await asyncio.sleep(0.01)
    answer.set_result(None)
    reading.cancel()
    ended, _ = await asyncio.wait([reading], timeout=5)
    assert ended
    assert reading.cancelled()
