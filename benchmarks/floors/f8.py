"""F8: units that have stopped are started again: a signal, a call to see that it is so, a call that starts.

Its argument names a file with their names. It runs on the Pi itself, with what an agent has there.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from sdbus import (
    DbusInterfaceCommonAsync,
    dbus_method_async,
    dbus_property_async,
    encode_object_path,
    sd_bus_open_system,
)
from sdbus.sd_bus_internals import SdBusMessage

__all__ = ["main"]

SYSTEMD, PATH = "org.freedesktop.systemd1", "/org/freedesktop/systemd1"
STOPPED = ("failed", "inactive")


class Manager(DbusInterfaceCommonAsync, interface_name=f"{SYSTEMD}.Manager"):
    @dbus_method_async("ss", "o")
    async def start_unit(self, name: str, mode: str) -> str:
        raise NotImplementedError

    @dbus_method_async()
    async def subscribe(self) -> None:
        raise NotImplementedError


class Unit(DbusInterfaceCommonAsync, interface_name=f"{SYSTEMD}.Unit"):
    @dbus_property_async("s")
    def active_state(self) -> str:
        raise NotImplementedError


async def kept(names: list[str]) -> None:
    bus = sd_bus_open_system()
    paths = {encode_object_path(f"{PATH}/unit", name): name for name in names}
    units = {name: Unit.new_proxy(SYSTEMD, path, bus) for path, name in paths.items()}
    manager = Manager.new_proxy(SYSTEMD, PATH, bus)
    stopped: asyncio.Queue[str] = asyncio.Queue()

    def hear(message: SdBusMessage) -> None:
        if (name := paths.get(message.path or "")) is not None:
            _, changed, _ = message.parse_to_tuple()
            if changed.get("ActiveState", ("s", ""))[1] in STOPPED:
                stopped.put_nowait(name)

    properties = "org.freedesktop.DBus.Properties"
    # Kept: what hears ends with its last reference.
    _heard = await bus.match_signal_async(SYSTEMD, None, properties, "PropertiesChanged", hear)
    await manager.subscribe()
    print("ready", flush=True)
    while True:
        name = await stopped.get()
        if await units[name].active_state in STOPPED:
            await manager.start_unit(name, "replace")


def main() -> None:
    asyncio.run(kept(json.loads(Path(sys.argv[1]).read_text())["units"]))
