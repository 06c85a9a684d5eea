"""A connection to a bus that notices its own end, and hears signals only from who owns the name.

When a bus hangs up, calls under way end with an error, but whoever waits for a signal is told nothing; and
the library leaves its closed descriptor registered with the loop, where the next connection of anybody
that gets the same number would be mistaken for it. So the connection is watched for its end, and closed
at once. And when the library at last frees a connection that was closed, it takes whoever has its number by
then off the loop, who hears nothing more. But until then it keeps the descriptor of a timer. So one that was
closed is kept here until nobody uses it any more, and freed while nobody else has its number.

Anybody on the bus may address a signal to us, with any interface and path. The bus compares a match's
sender only for signals to everybody, and the library cannot. So the owner of each name that is listened to
is known here, as the bus itself tells it, and what anybody else sends is dropped:

    NameOwnerChanged, from the bus itself -> the new owner counts, and the former one no more
    GetNameOwner                          -> the owner at the beginning
"""

from __future__ import annotations

import asyncio
import os
import select
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import attrs
from sdbus import SdBus, sd_bus_open_system
from sdbus.dbus_exceptions import DbusNameHasNoOwnerError
from sdbus.exceptions import SdBusLibraryError
from sdbus.sd_bus_internals import SdBusMessage, SdBusSlot
from sdbus_async.dbus_daemon import FreedesktopDbus

from harmony_core.errors import CapabilityUnavailable

from .dbus import reason

__all__ = ["Connection"]

_BUS: Final = "org.freedesktop.DBus"
"""The name of the bus itself, and of its interface."""
_BUS_PATH: Final = "/org/freedesktop/DBus"
_ADDRESS: Final = "DBUS_SYSTEM_BUS_ADDRESS"


T = TypeVar("T")


@attrs.frozen(eq=False)
class _Closed:
    """A connection that was closed and not freed: two kilobytes, and a descriptor."""

    bus: SdBus
    number: int
    """Of the descriptor that it had."""

    @property
    def is_used(self) -> bool:
        """Whether anybody but us refers to it, such as a call that was given up."""
        return sys.getrefcount(self.bus) > _OUR_REFERENCES


_OUR_REFERENCES: Final = 2
"""Of a `_Closed`, and of whoever counts."""
_closed = list[_Closed]()


class Connection:
    """One connection to a system bus, until it hangs up; never used again after that.

    ``closed`` is called once, when the other side has hung up or `close` was called; ``on_wait`` with each
    answer that is waited for.
    """

    def __init__(
        self,
        address: str | None,
        *,
        closed: Callable[[], None],
        on_wait: Callable[[asyncio.Future[Any]], None] | None = None,
    ) -> None:
        _free_closed()
        try:
            self.bus = _open(address)
        except SdBusLibraryError as error:
            raise CapabilityUnavailable(
                f"the system bus cannot be reached ({reason(error)}); look whether dbus.service runs"
            ) from error
        self._closed = closed
        self._on_wait = on_wait
        self._loop = asyncio.get_running_loop()
        self._end: asyncio.Future[None] = self._loop.create_future()
        self._owners: dict[str, str | None] = {}
        """Of each name that is listened to, the unique name of its owner: empty when it has none, None as
        long as that is not known."""
        self._owner_changes: SdBusSlot | None = None
        self._watch_for_the_end()

    @property
    def open(self) -> bool:
        return not self._end.done()

    async def wait_for(self, call: Awaitable[T]) -> T:
        """Return the answer to *call*. Raise `CapabilityUnavailable` when the connection ends first."""
        task = asyncio.ensure_future(call)
        # When the bus hangs up the call ends with that as well, and so it may when whoever waits has gone.
        task.add_done_callback(_retrieve)
        if self._on_wait is not None:
            self._on_wait(task)
        try:
            either: list[asyncio.Future[Any]] = [task, self._end]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not task.done():
                task.cancel()
        if not task.done():
            raise _hung_up()
        return task.result()

    async def listen(
        self,
        name: str,
        path: str | None,
        interface: str,
        member: str,
        hear: Callable[[SdBusMessage], None],
    ) -> SdBusSlot:
        """Call *hear* with each such signal from the owner of *name*, until the slot is closed.

        This works also after the name went to another connection, or gets its first owner. Without *path*,
        signals of every object count.
        """
        await self._follow_owner(name)

        def hear_owner(message: SdBusMessage) -> None:
            if message.sender and message.sender == self._owners[name]:
                hear(message)

        return await self.bus.match_signal_async(name, path, interface, member, hear_owner)

    async def _follow_owner(self, name: str) -> None:
        if self._owner_changes is None:
            self._owner_changes = await self.bus.match_signal_async(
                _BUS, _BUS_PATH, _BUS, "NameOwnerChanged", self._hear_owner_change
            )
        if self._owners.setdefault(name, None) is not None:
            return
        try:
            owner = await FreedesktopDbus(self.bus).get_name_owner(name)
        except DbusNameHasNoOwnerError:
            owner = ""
        # A change after that answer may have been heard before this runs again. It is newer, and stays.
        if self._owners[name] is None:
            self._owners[name] = owner

    def _hear_owner_change(self, message: SdBusMessage) -> None:
        if message.sender != _BUS:
            return
        name, _, owner = message.parse_to_tuple()
        if name in self._owners:
            self._owners[name] = owner

    def close(self) -> None:
        """Close the connection. Idempotent."""
        if self._end.done():
            return
        self._end.set_result(None)
        self._loop.remove_reader(self._watch.fileno())
        self._watch.close()
        os.close(self._duplicate)
        self.bus.close()
        _closed.append(_Closed(self.bus, self._number))
        _free_closed()
        self._closed()

    def _watch_for_the_end(self) -> None:
        """Watch a second descriptor of the bus, since the loop already reads the first. It tells only of the
        end of the connection."""
        self._number = self.bus.get_fd()
        self._duplicate = os.dup(self._number)
        self._watch = select.epoll()
        self._watch.register(self._duplicate, select.EPOLLRDHUP)
        self._loop.add_reader(self._watch.fileno(), self.close)


def _free_closed() -> None:
    """Free those that were closed, unless somebody uses them, or has their number."""
    kept = list[_Closed]()
    while _closed:
        each = _closed.pop()
        if each.is_used or _is_open(each.number):
            kept.append(each)
        del each  # nothing else refers to it, and it is freed, unless it is kept
    _closed.extend(kept)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _open(address: str | None) -> SdBus:
    """Open the bus, without blocking: what is sent waits until the connection is made."""
    if address is None:
        return sd_bus_open_system()
    # The library takes an address from nowhere else.
    before = os.environ.get(_ADDRESS)
    os.environ[_ADDRESS] = address
    try:
        return sd_bus_open_system()
    finally:
        if before is None:
            del os.environ[_ADDRESS]
        else:
            os.environ[_ADDRESS] = before


def _retrieve(task: asyncio.Future[Any]) -> None:
    """Retrieve the result of *task*, so that asyncio does not log that nobody has."""
    if not task.cancelled():
        task.exception()


def _hung_up() -> CapabilityUnavailable:
    return CapabilityUnavailable(
        "the system bus hung up; it is connected to anew at the next look", retry_after_s=1.0
    )
