"""A systemd that misbehaves, served on a private bus: for faults only.

    async with private_bus(tmp_path) as bus, served(bus) as systemd:
        systemd.on_start = hang

It serves the very interface classes that are called, so both agree on names and signatures. For how a systemd
behaves that is well, there is the real one in a box.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

from sdbus import (
    dbus_method_async_override,
    dbus_property_async_override,
    encode_object_path,
)

from harmony_pi_topology.common.dbus import MANAGER_PATH, SYSTEMD, Manager, Service, Unit
from harmony_pi_topology.common.dbus_connection import Connection

__all__ = ["ALIAS", "NAME", "PrivateBus", "ServedManager", "hang", "private_bus", "served"]

_CONFIGURATION = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""
NAME = "web.service"
ALIAS = "alias.service"
"""Another name of the same."""


async def hang() -> None:
    """Never answers."""
    await asyncio.Event().wait()


class PrivateBus:
    """A dbus-daemon that can be stopped, killed and started anew at the same address."""

    def __init__(self, directory: Path) -> None:
        self._socket = directory / "bus"
        self._configuration = directory / "bus.conf"
        self._configuration.write_text(_CONFIGURATION.format(socket=self._socket))
        self._process: asyncio.subprocess.Process | None = None

    @property
    def address(self) -> str:
        return f"unix:path={self._socket}"

    async def start(self) -> None:
        await asyncio.to_thread(self._socket.unlink, missing_ok=True)
        self._process = await asyncio.create_subprocess_exec(
            "dbus-daemon",
            f"--config-file={self._configuration}",
            "--nofork",
            "--print-address",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert self._process.stdout is not None
        await self._process.stdout.readline()

    async def kill(self) -> None:
        """Everybody is hung up on."""
        if self._process is not None:
            self._process.kill()
            await self._process.communicate()
            self._process = None

    def freeze(self) -> None:
        """It stays connected, and says nothing any more."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)


@contextlib.asynccontextmanager
async def private_bus(directory: Path) -> AsyncGenerator[PrivateBus]:
    bus = await asyncio.to_thread(PrivateBus, directory)
    await bus.start()
    try:
        yield bus
    finally:
        await bus.kill()


class ServedUnit(Unit):
    """A unit that has never run."""

    def __init__(self) -> None:
        super().__init__()
        self.load = "loaded"
        self.active = "inactive"
        self.has_job = False

    @dbus_property_async_override()
    def id(self) -> str:
        return NAME

    @dbus_property_async_override()
    def names(self) -> list[str]:
        return [NAME, ALIAS]

    @dbus_property_async_override()
    def fragment_path(self) -> str:
        return f"/usr/lib/systemd/system/{NAME}"

    @dbus_property_async_override()
    def need_daemon_reload(self) -> bool:
        return False

    @dbus_property_async_override()
    def freezer_state(self) -> str:
        return "running"

    @dbus_property_async_override()
    def load_state(self) -> str:
        return self.load

    @dbus_property_async_override()
    def load_error(self) -> tuple[str, str]:
        return ("", "")

    @dbus_property_async_override()
    def drop_in_paths(self) -> list[str]:
        return []

    @dbus_property_async_override()
    def active_state(self) -> str:
        return self.active

    @dbus_property_async_override()
    def sub_state(self) -> str:
        return "dead"

    @dbus_property_async_override()
    def invocation_id(self) -> bytes:
        return b""

    @dbus_property_async_override()
    def job(self) -> tuple[int, str]:
        return (7, "/org/freedesktop/systemd1/job/7") if self.has_job else (0, "/")

    @dbus_property_async_override()
    def condition_result(self) -> bool:
        return True

    @dbus_property_async_override()
    def active_enter_timestamp(self) -> int:
        return 0

    @dbus_property_async_override()
    def active_enter_timestamp_monotonic(self) -> int:
        return 0

    @dbus_property_async_override()
    def active_exit_timestamp_monotonic(self) -> int:
        return 0

    @dbus_property_async_override()
    def inactive_exit_timestamp(self) -> int:
        return 0

    @dbus_property_async_override()
    def inactive_exit_timestamp_monotonic(self) -> int:
        return 0


class ServedService(Service):
    @dbus_property_async_override()
    def type_(self) -> str:
        return "exec"

    @dbus_property_async_override()
    def result(self) -> str:
        return "success"

    @dbus_property_async_override()
    def n_restarts(self) -> int:
        return 0

    @dbus_property_async_override()
    def exec_main_status(self) -> int:
        return 0


class ServedManager(Manager):
    """Knows `NAME` only, by its `ALIAS` too. Each of the ``on_…`` is what it does when it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.unit = ServedUnit()
        self.service = ServedService()
        self.alias = ServedUnit()
        self.on_start: Callable[[], Awaitable[object]] = _nothing
        self.on_stop: Callable[[], Awaitable[object]] = _nothing
        self.on_reload: Callable[[], Awaitable[object]] = _nothing
        self.on_look: Callable[[], Awaitable[object]] = _nothing
        self.on_subscribe: Callable[[], Awaitable[object]] = _nothing
        self.enablement = "enabled"
        self.starts = 0
        self.reloads = 0
        self.subscriptions = 0

    @dbus_method_async_override()
    async def start_unit(self, name: str, mode: str) -> str:
        self.starts += 1
        await self.on_start()
        return "/org/freedesktop/systemd1/job/7"

    @dbus_method_async_override()
    async def stop_unit(self, name: str, mode: str) -> str:
        await self.on_stop()
        return "/org/freedesktop/systemd1/job/7"

    @dbus_method_async_override()
    async def ref_unit(self, name: str) -> None:
        return

    @dbus_method_async_override()
    async def unref_unit(self, name: str) -> None:
        return

    @dbus_method_async_override()
    async def reset_failed_unit(self, name: str) -> None:
        return

    @dbus_method_async_override()
    async def subscribe(self) -> None:
        self.subscriptions += 1
        await self.on_subscribe()

    @dbus_method_async_override()
    async def reload(self) -> None:
        self.reloads += 1
        await self.on_reload()

    @dbus_property_async_override()
    def units_load_timestamp_monotonic(self) -> int:
        return 1

    @dbus_property_async_override()
    def units_load_timestamp(self) -> int:
        return 1

    @dbus_method_async_override()
    async def get_unit_file_state(self, file: str) -> str:
        await self.on_look()
        return self.enablement

    @dbus_method_async_override()
    async def enable_unit_files(
        self, files: list[str], runtime: bool, force: bool
    ) -> tuple[bool, list[tuple[str, str, str]]]:
        return True, []

    def end_job(self, result: str) -> None:
        self.job_removed.emit((7, "/org/freedesktop/systemd1/job/7", NAME, result))


async def _nothing() -> None:
    return


@contextlib.asynccontextmanager
async def served(bus: PrivateBus) -> AsyncGenerator[ServedManager]:
    """systemd, until the bus hangs up or the block ends."""
    connection = Connection(bus.address, closed=_ended)
    manager = ServedManager()
    manager.export_to_dbus(MANAGER_PATH, connection.bus)
    path = encode_object_path("/org/freedesktop/systemd1/unit", NAME)
    manager.unit.export_to_dbus(path, connection.bus)
    manager.service.export_to_dbus(path, connection.bus)
    alias = encode_object_path("/org/freedesktop/systemd1/unit", ALIAS)
    manager.alias.export_to_dbus(alias, connection.bus)
    await connection.bus.request_name_async(SYSTEMD, 0)
    try:
        yield manager
    finally:
        connection.close()


def _ended() -> None:
    """Nobody waits for it."""
