"""Connections to a bus come and go, and none is in another's way; only who owns a name speaks for it."""

from __future__ import annotations

import asyncio
import gc
import os
from pathlib import Path

import pytest
from sdbus import DbusInterfaceCommonAsync
from sdbus.sd_bus_internals import SdBusMessage
from sdbus_async.dbus_daemon import FreedesktopDbus

from harmony_pi_topology.common.dbus import MANAGER_PATH, SYSTEMD
from harmony_pi_topology.common.dbus_connection import Connection
from tests.topology.served_systemd import PrivateBus, private_bus, served

FEW = 3
_BUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus")


def connected(bus: PrivateBus) -> Connection:
    return Connection(bus.address, closed=lambda: None)


async def answers(connection: Connection) -> None:
    proxy = DbusInterfaceCommonAsync.new_proxy(*_BUS, connection.bus)
    async with asyncio.timeout(10):
        await connection.wait_for(proxy.dbus_ping())


async def test_one_that_was_closed_and_is_forgotten_does_not_make_the_next_deaf(
    tmp_path: Path,
) -> None:
    async with private_bus(tmp_path) as bus:
        first = connected(bus)
        await answers(first)
        number = first.bus.get_fd()
        first.close()
        second = connected(bus)
        assert second.bus.get_fd() == number
        await answers(second)
        del first
        gc.collect()
        await answers(second)
        second.close()


async def test_one_that_was_closed_leaves_no_descriptor(tmp_path: Path) -> None:
    """Where a bus hangs, there is another at each look."""
    async with private_bus(tmp_path) as bus:
        before = count_descriptors()
        for _ in range(30):
            connection = connected(bus)
            await answers(connection)
            connection.close()
        assert count_descriptors() <= before + FEW


async def test_nor_do_those_that_a_bus_has_hung_up(tmp_path: Path) -> None:
    async with private_bus(tmp_path) as bus:
        before = count_descriptors()
        for _ in range(10):
            ended = asyncio.Event()
            connection = Connection(bus.address, closed=ended.set)
            await answers(connection)
            await bus.kill()
            await asyncio.wait_for(ended.wait(), 10)
            await bus.start()
        connected(bus).close()
        assert count_descriptors() <= before + FEW


async def test_nor_do_those_whose_bus_hangs(tmp_path: Path) -> None:
    async with private_bus(tmp_path) as bus:
        before = count_descriptors()
        bus.freeze()
        for _ in range(10):
            connection = connected(bus)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await answers(connection)
            connection.close()
        connected(bus).close()
        assert count_descriptors() <= before + FEW
        await bus.kill()


def count_descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


async def sent_by_a_stranger(bus: PrivateBus, path: str, signal: str, *arguments: str) -> None:
    """Somebody on the bus addresses a signal to each of the others, and hangs up."""
    watcher = connected(bus)
    others = await names_on(watcher)
    for name in others:
        process = await asyncio.create_subprocess_exec(
            *("dbus-send", f"--bus={bus.address}", "--type=signal", f"--dest={name}"),
            *(path, signal, *arguments),
        )
        assert await process.wait() == 0
    while await names_on(watcher) != others:  # what a connection sends comes before its end
        await asyncio.sleep(0.01)
    watcher.close()


async def names_on(connection: Connection) -> set[str]:
    found = await FreedesktopDbus(connection.bus).list_names()
    return {name for name in found if name.startswith(":")}


class Heard:
    """The results of jobs, as they were told by whom we listen to."""

    def __init__(self) -> None:
        self.results: list[str] = []
        self._news = asyncio.Event()

    def __call__(self, message: SdBusMessage) -> None:
        self.results.append(str(message.parse_to_tuple()[-1]))
        self._news.set()

    async def next(self) -> str:
        async with asyncio.timeout(10):
            while not self.results:
                self._news.clear()
                await self._news.wait()
        return self.results.pop(0)


_JOB_REMOVED = (MANAGER_PATH, "org.freedesktop.systemd1.Manager", "JobRemoved")
_FORGED = (
    *(MANAGER_PATH, "org.freedesktop.systemd1.Manager.JobRemoved", "uint32:7"),
    *("objpath:/org/freedesktop/systemd1/job/7", "string:web.service", "string:forged"),
)


async def test_what_a_stranger_sends_in_the_name_of_another_is_not_heard(tmp_path: Path) -> None:
    async with private_bus(tmp_path) as bus, served(bus) as systemd:
        connection, heard = connected(bus), Heard()
        slot = await connection.listen(SYSTEMD, *_JOB_REMOVED, heard)
        await sent_by_a_stranger(bus, *_FORGED)
        systemd.end_job("done")
        assert await heard.next() == "done"
        slot.close()
        connection.close()


async def test_a_stranger_cannot_say_that_a_name_is_his(tmp_path: Path) -> None:
    async with private_bus(tmp_path) as bus, served(bus) as systemd:
        connection, heard = connected(bus), Heard()
        slot = await connection.listen(SYSTEMD, *_JOB_REMOVED, heard)
        await sent_by_a_stranger(
            *(bus, "/org/freedesktop/DBus", "org.freedesktop.DBus.NameOwnerChanged"),
            *(f"string:{SYSTEMD}", "string:", "string::1.4711"),
        )
        systemd.end_job("done")
        assert await heard.next() == "done"
        slot.close()
        connection.close()


async def test_who_owns_a_name_later_is_heard_and_who_owned_it_no_more(tmp_path: Path) -> None:
    async with private_bus(tmp_path) as bus:
        connection, heard = connected(bus), Heard()
        slot = await connection.listen(SYSTEMD, *_JOB_REMOVED, heard)
        await sent_by_a_stranger(bus, *_FORGED)
        for time in ("first", "second"):
            async with served(bus) as systemd:
                systemd.end_job(time)
                assert await heard.next() == time
            await sent_by_a_stranger(bus, *_FORGED)
        assert heard.results == []
        slot.close()
        connection.close()


async def test_a_call_that_fails_after_nobody_waits_for_it_any_more_is_not_complained_of(
    tmp_path: Path,
) -> None:
    """A bus that hangs, and then hangs up: whoever asked has given up before, and the call fails later."""
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: complaints.append(str(context))
    )
    asked = asyncio.Event()

    async def ask() -> None:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise ConnectionError("the bus hung up")

    async with private_bus(tmp_path) as bus:
        connection = connected(bus)
        waiting = asyncio.create_task(connection.wait_for(ask()))
        await asked.wait()
        waiting.cancel()
        await asyncio.wait([waiting])
        del waiting  # as long as somebody has it, nobody complains
        await answers(connection)
        connection.close()
    gc.collect()
    assert complaints == []
