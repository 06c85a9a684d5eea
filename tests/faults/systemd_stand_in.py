"""A systemd for a folder: reads its unit files, and holds what they start; for faults of a whole fleet.

    async with private_bus(folder) as bus:
        systemd = StandInSystemd(root)
        systemd.serve(bus.address)      # and again, whenever the bus was started anew

What runs does not end with the bus. It serves the very interface classes that are called, as
`tests/topology/served_systemd.py`, which knows one unit and does nothing by itself. How a real systemd
behaves is tested in boxes; here it is the host that the model is compared with.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Literal

import attrs
from sdbus import (
    dbus_method_async_override,
    dbus_property_async_override,
)
from sdbus.dbus_exceptions import DbusFileNotFoundError

from harmony_pi_topology.common.dbus import (
    MANAGER_PATH,
    SYSTEMD,
    Manager,
    Service,
    Unit,
    encode_unit_path,
)
from harmony_pi_topology.common.dbus_connection import Connection

__all__ = ["HeldUnit", "StandInSystemd"]

_OWN = "etc/systemd/system"
_WANTS = f"{_OWN}/multi-user.target.wants"
_JOB_PATH = "/org/freedesktop/systemd1/job"
_START_S = (0.01, 0.15)
"""A start, or a stop, takes at least and at most so long."""


def _monotonic_us() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


@attrs.define
class HeldUnit:
    """What systemd holds of one unit: what it has read, and what runs."""

    name: str
    root: Path
    loaded: str | None = None
    """The text of its file when that was read last; None where there was none."""
    runs_from: str | None = None
    """The text from which it was started; None while it does not run."""
    starts: list[str] = attrs.field(factory=list[str])
    """The text of each start, the oldest first; an empty one for each stop that was asked for."""
    invocation: bytes = b""
    job: int = 0
    began_us: int = 0
    began_monotonic_us: int = 0
    ended_monotonic_us: int = 0
    file: Path = attrs.field(init=False)
    link: Path = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.file = self.root / _OWN / self.name
        self.link = self.root / _WANTS / self.name

    @property
    def text(self) -> str | None:
        """What its file says now."""
        try:
            return self.file.read_text()
        except FileNotFoundError:
            return None

    def read_if_new(self) -> None:
        """Load it, as any question about it does where nothing was loaded."""
        if self.loaded is None:
            self.loaded = self.text

    def start(self) -> None:
        assert self.loaded is not None
        self.runs_from = self.loaded
        self.starts.append(self.loaded)
        self.invocation = os.urandom(16)
        self.began_us = time.time_ns() // 1000
        self.began_monotonic_us = _monotonic_us()

    def stop(self) -> None:
        if self.runs_from is not None:
            self.runs_from = None
            self.ended_monotonic_us = _monotonic_us()


class StandInSystemd:
    """The systemd of the folder *root*, for the units *names*; *dice* say how long things take."""

    def __init__(self, root: Path, names: Sequence[str], dice: random.Random) -> None:
        self.units = {name: HeldUnit(name, root) for name in names}
        self.dice = dice
        self.answers = asyncio.Event()
        """Cleared, it answers nothing, and does nothing."""
        self.answers.set()
        self.read_at_us = _monotonic_us()
        self._jobs = 0
        self._connection: Connection | None = None
        self._served: list[Manager | Unit | Service] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, address: str) -> None:
        """Take its name on the bus at *address*."""
        connection = self._connection = Connection(address, closed=_nothing)
        manager = _ServedManager(self)
        manager.export_to_dbus(MANAGER_PATH, connection.bus)
        self._served = [manager]
        for name, held in self.units.items():
            for interface in (_ServedUnit(held, self), _ServedService(held)):
                interface.export_to_dbus(encode_unit_path(name), connection.bus)
                self._served.append(interface)
        await connection.bus.request_name_async(SYSTEMD, 0)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._connection is not None:
            self._connection.close()

    def queue(self, name: str, verb: Literal["start", "restart", "stop"]) -> str:
        """Begin a job, in place of any other for this unit: its path."""
        held = self.units[name]
        held.read_if_new()
        if verb != "stop" and held.loaded is None:
            raise DbusFileNotFoundError(f"Unit {name} not found.")
        self._jobs += 1
        held.job = self._jobs
        task = asyncio.get_running_loop().create_task(self._do(held, verb, self._jobs))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return f"{_JOB_PATH}/{self._jobs}"

    def reload(self) -> None:
        for held in self.units.values():
            held.loaded = held.text
        self.read_at_us = _monotonic_us()

    async def _do(
        self, held: HeldUnit, verb: Literal["start", "restart", "stop"], job: int
    ) -> None:
        await asyncio.sleep(self.dice.uniform(*_START_S))
        is_last = held.job == job
        if is_last:
            held.job = 0
            if verb != "start" or held.runs_from is None:
                held.stop()
                if verb == "stop":
                    held.starts.append("")
                else:
                    held.start()
        self._tell_end(held, job, "done" if is_last else "canceled")

    def _tell_end(self, held: HeldUnit, job: int, result: str) -> None:
        if self._connection is None or not self._connection.open:
            return  # nobody is told: the job is lost to whoever has queued it
        manager, *interfaces = self._served
        assert isinstance(manager, Manager)
        manager.job_removed.emit((job, f"{_JOB_PATH}/{job}", held.name, result))
        for each in interfaces:
            if isinstance(each, _ServedUnit) and each.held is held:
                each.tell()


class _ServedUnit(Unit):
    def __init__(self, held: HeldUnit, systemd: StandInSystemd) -> None:
        super().__init__()
        self.held = held
        self._systemd = systemd

    def tell(self) -> None:
        """Say that something of it has changed."""
        state = {"ActiveState": ("s", self._active), "InvocationID": ("ay", self.held.invocation)}
        self.properties_changed.emit(("org.freedesktop.systemd1.Unit", state, []))

    @property
    def _active(self) -> str:
        return "active" if self.held.runs_from is not None else "inactive"

    @dbus_property_async_override()
    def id(self) -> str:
        return self.held.name

    @dbus_property_async_override()
    def names(self) -> list[str]:
        return [self.held.name]

    @dbus_property_async_override()
    def fragment_path(self) -> str:
        return f"/{_OWN}/{self.held.name}" if self.held.loaded is not None else ""

    @dbus_property_async_override()
    def need_daemon_reload(self) -> bool:
        return self.held.loaded != self.held.text

    @dbus_property_async_override()
    def freezer_state(self) -> str:
        return "running"

    @dbus_property_async_override()
    def load_state(self) -> str:
        self.held.read_if_new()
        return "loaded" if self.held.loaded is not None else "not-found"

    @dbus_property_async_override()
    def load_error(self) -> tuple[str, str]:
        return ("", "")

    @dbus_property_async_override()
    def drop_in_paths(self) -> list[str]:
        return []

    @dbus_property_async_override()
    def active_state(self) -> str:
        return self._active

    @dbus_property_async_override()
    def sub_state(self) -> str:
        return "running" if self.held.runs_from is not None else "dead"

    @dbus_property_async_override()
    def invocation_id(self) -> bytes:
        return self.held.invocation

    @dbus_property_async_override()
    def job(self) -> tuple[int, str]:
        return (self.held.job, f"{_JOB_PATH}/{self.held.job}" if self.held.job else "/")

    @dbus_property_async_override()
    def condition_result(self) -> bool:
        return True

    @dbus_property_async_override()
    def active_enter_timestamp(self) -> int:
        return self.held.began_us

    @dbus_property_async_override()
    def active_enter_timestamp_monotonic(self) -> int:
        return self.held.began_monotonic_us

    @dbus_property_async_override()
    def active_exit_timestamp_monotonic(self) -> int:
        return self.held.ended_monotonic_us

    @dbus_property_async_override()
    def inactive_exit_timestamp(self) -> int:
        return self.held.began_us

    @dbus_property_async_override()
    def inactive_exit_timestamp_monotonic(self) -> int:
        return self.held.began_monotonic_us


class _ServedService(Service):
    def __init__(self, held: HeldUnit) -> None:
        super().__init__()
        self._held = held

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


class _ServedManager(Manager):
    def __init__(self, systemd: StandInSystemd) -> None:
        super().__init__()
        self._systemd = systemd

    async def _answer(self, do: Callable[[], Awaitable[str]]) -> str:
        """Do it and answer, each only while systemd answers at all."""
        await self._systemd.answers.wait()
        done = await do()
        await self._systemd.answers.wait()
        return done

    @dbus_method_async_override()
    async def start_unit(self, name: str, mode: str) -> str:
        async def do() -> str:
            return self._systemd.queue(name, "start")

        return await self._answer(do)

    @dbus_method_async_override()
    async def restart_unit(self, name: str, mode: str) -> str:
        async def do() -> str:
            return self._systemd.queue(name, "restart")

        return await self._answer(do)

    @dbus_method_async_override()
    async def stop_unit(self, name: str, mode: str) -> str:
        async def do() -> str:
            return self._systemd.queue(name, "stop")

        return await self._answer(do)

    @dbus_method_async_override()
    async def reset_failed_unit(self, name: str) -> None:
        return

    @dbus_method_async_override()
    async def ref_unit(self, name: str) -> None:
        return

    @dbus_method_async_override()
    async def unref_unit(self, name: str) -> None:
        return

    @dbus_method_async_override()
    async def subscribe(self) -> None:
        await self._systemd.answers.wait()

    @dbus_method_async_override()
    async def reload(self) -> None:
        async def do() -> str:
            await asyncio.sleep(self._systemd.dice.uniform(*_START_S))
            self._systemd.reload()
            return ""

        self.reloading.emit(True)
        await self._answer(do)
        self.reloading.emit(False)

    @dbus_property_async_override()
    def units_load_timestamp_monotonic(self) -> int:
        return self._systemd.read_at_us

    @dbus_property_async_override()
    def units_load_timestamp(self) -> int:
        return self._systemd.read_at_us

    @dbus_method_async_override()
    async def get_unit_file_state(self, file: str) -> str:
        await self._systemd.answers.wait()
        held = self._systemd.units[file]
        if held.link.is_symlink():
            return "enabled"
        if held.text is None:
            raise DbusFileNotFoundError(f"{file} is not there.")
        return "disabled"

    @dbus_method_async_override()
    async def enable_unit_files(
        self, files: list[str], runtime: bool, force: bool
    ) -> tuple[bool, list[tuple[str, str, str]]]:
        for each in files:
            await self._answer(partial(self._enable, each))
        return True, []

    @dbus_method_async_override()
    async def reenable_unit_files(
        self, files: list[str], runtime: bool, force: bool
    ) -> tuple[bool, list[tuple[str, str, str]]]:
        for each in files:
            await self._answer(partial(self._enable, each))
        return True, []

    @dbus_method_async_override()
    async def disable_unit_files(
        self, files: list[str], runtime: bool
    ) -> list[tuple[str, str, str]]:
        for each in files:
            await self._answer(partial(self._disable, each))
        return []

    async def _enable(self, name: str) -> str:
        link = self._systemd.units[name].link
        link.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            link.symlink_to(f"/{_OWN}/{name}")
        return name

    async def _disable(self, name: str) -> str:
        self._systemd.units[name].link.unlink(missing_ok=True)
        return name


def _nothing() -> None:
    """Whoever serves finds out when it serves anew."""
