"""What systemd says of units of its own accord: every change of what runs, and every reading of files.

    connect, ask to be told, match     once; and again, at once, when the bus hangs up: then None is told
    PropertiesChanged of a unit     -> its keys, unless only its status text is another
    Reloading, UnitFilesChanged     -> every key: what was read, masked or enabled is not said

That a unit is loaded or forgotten is not heard of: looking at one loads it, and it is forgotten again at
once, so that each look would lead to the next. Whatever else happens to it is told by other means.

A bus that hangs without hanging up is found by `mend`, which asks for an answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any

from sdbus.exceptions import SdBusBaseError
from sdbus.sd_bus_internals import SdBusMessage, SdBusSlot

from harmony_core.errors import CapabilityError, TimedOut
from harmony_core.reconciler import OnChange
from harmony_pi_topology.common.dbus import (
    MANAGER_PATH,
    SYSTEMD,
    Manager,
    Unit,
    encode_unit_path,
    to_capability_error,
)
from harmony_pi_topology.common.dbus_connection import Connection

from .waker import Waker

__all__ = ["UnitSignals"]

_MANAGER = "org.freedesktop.systemd1.Manager"
_PROPERTIES = "org.freedesktop.DBus.Properties"
_PING_S = 2.0
_CHATTER = frozenset({"StatusText", "StatusErrno", "StatusBusError", "StatusVarlinkError"})
"""What a service says of itself, as often as it likes."""


class UnitSignals:
    """Of the systemd on the bus at *address*, which *waker* wakes. Connects once there is something to
    listen for."""

    def __init__(
        self, address: str | None, *, waker: Waker | None = None, answer_within_s: float
    ) -> None:
        self._address = address
        self._waker = waker or Waker()
        self._answer_s = answer_within_s
        self._on_change: OnChange | None = None
        self._ids: dict[str, str] = {}
        """Of each key, what systemd calls it: another name, where it is an alias."""
        self._keys: dict[str, list[str]] = {}
        """Of each object path, whose it is."""
        self._last: dict[tuple[str, str], object] = {}
        self._connection: Connection | None = None
        self._slots: list[SdBusSlot] = []
        self._connecting = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def watch(self, keys: Collection[str], on_change: OnChange) -> None:
        self._on_change = on_change
        self._ids = {key: self._ids.get(key, "") for key in keys}
        self._index()
        if not keys:
            return
        connection = await self._listening()
        new = [key for key, known in self._ids.items() if not known]
        await asyncio.gather(*(self._learn_id(connection, key) for key in new))
        self._index()

    async def mend(self) -> None:
        """Begin to connect again where the bus does not answer within two seconds."""
        if self._on_change is None or not self._ids:
            return
        connection = self._connection
        if connection is None or not connection.open:
            self._start_again()
            return
        manager = Manager.new_proxy(SYSTEMD, MANAGER_PATH, connection.bus)
        try:
            async with asyncio.timeout(_PING_S):
                await connection.wait_for(manager.dbus_ping())
        except (TimeoutError, CapabilityError, SdBusBaseError):
            connection.close()

    def close(self) -> None:
        """Hang up, and tell nothing any more. Idempotent."""
        self._on_change = None
        for task in self._tasks:
            task.cancel()
        if self._connection is not None:
            self._connection.close()

    async def _listening(self) -> Connection:
        """Return a connection on which all signals arrive."""
        async with self._connecting:
            if self._connection is None or not self._connection.open:
                connection = Connection(
                    self._address,
                    closed=self._start_again,
                    on_wait=self._waker.wake_until,
                )
                self._connection = connection
                try:
                    async with asyncio.timeout(self._answer_s):
                        await self._subscribe(connection)
                except BaseException as error:
                    self._connection = None
                    connection.close()
                    raise _ours(error, self._answer_s) from error
            return self._connection

    async def _subscribe(self, connection: Connection) -> None:
        matches: list[tuple[str | None, str, str, Callable[[SdBusMessage], None]]] = [
            # Of all units: there are not many, and a bus allows only so many matches.
            (None, _PROPERTIES, "PropertiesChanged", self._hear),
            (MANAGER_PATH, _MANAGER, "Reloading", self._hear_reloading),
            (MANAGER_PATH, _MANAGER, "UnitFilesChanged", self._hear_of_all),
        ]
        self._slots = [
            await connection.wait_for(connection.listen(SYSTEMD, *match)) for match in matches
        ]
        manager = Manager.new_proxy(SYSTEMD, MANAGER_PATH, connection.bus)
        await connection.wait_for(manager.subscribe())

    async def _learn_id(self, connection: Connection, key: str) -> None:
        unit = Unit.new_proxy(SYSTEMD, encode_unit_path(key), connection.bus)
        try:
            async with asyncio.timeout(self._answer_s):
                found = str(await connection.wait_for(unit.id))
        except (TimeoutError, CapabilityError, SdBusBaseError):
            return  # it is asked for again with the next call
        if key in self._ids:
            self._ids[key] = found

    def _index(self) -> None:
        self._keys = {}
        for key, known in self._ids.items():
            for name in {key, known or key}:
                path = encode_unit_path(name)
                self._keys.setdefault(path, []).append(key)
        self._last = {each: last for each, last in self._last.items() if each[0] in self._keys}

    def _start_again(self) -> None:
        """Connect again, because the bus has hung up or could not be reached."""
        if self._on_change is not None and self._ids and not self._connecting.locked():
            task = asyncio.get_running_loop().create_task(self._again())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _again(self) -> None:
        try:
            await self._listening()
        except CapabilityError:
            return  # `mend` tries again
        self._last.clear()
        if self._on_change is not None:
            self._on_change(None)

    def _hear(self, message: SdBusMessage) -> None:
        keys = self._keys.get(message.path or "", ())
        if not keys:
            return
        interface, changed, gone = message.parse_to_tuple()
        now = _without_chatter(changed), gone
        # systemd tells all of an interface's properties whenever one of them changes.
        if self._last.get((message.path or "", interface)) != now:
            self._last[message.path or "", interface] = now
            self._tell(keys)

    def _hear_reloading(self, message: SdBusMessage) -> None:
        (begins,) = message.parse_to_tuple()
        if not begins:
            self._tell(self._ids)

    def _hear_of_all(self, _: SdBusMessage) -> None:
        self._tell(self._ids)

    def _tell(self, keys: Collection[str]) -> None:
        for key in list(keys):
            if self._on_change is not None:
                self._on_change(key)


def _without_chatter(properties: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in properties.items() if name not in _CHATTER}


def _ours(error: BaseException, within_s: float) -> BaseException:
    match error:
        case TimeoutError():
            return TimedOut(
                f"systemd did not begin to tell of changes within {within_s:g} s; "
                "it is tried again later"
            )
        case SdBusBaseError():
            return to_capability_error(error, "asking systemd to tell of changes")
        case _:
            return error
