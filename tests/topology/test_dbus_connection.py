"""Connections to a bus come and go, and none is in another's way."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

from sdbus import DbusInterfaceCommonAsync

from harmony_pi_topology.common.dbus_connection import Connection
from tests.topology.served_systemd import PrivateBus, private_bus

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
