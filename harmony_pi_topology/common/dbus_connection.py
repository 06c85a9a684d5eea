"""A connection to a bus that notices its own end.

When a bus hangs up, calls under way end with an error, but whoever waits for a signal is told nothing; and
the library leaves its closed descriptor registered with the loop, where the next connection of anybody
that gets the same number would be mistaken for it. So the connection is watched for its end, and closed
at once. And when the library at last frees a connection that was closed, it takes whoever has its number by
then off the loop, who hears nothing more: so none is ever freed.
"""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from sdbus import SdBus, sd_bus_open_system
from sdbus.exceptions import SdBusLibraryError

from harmony_core.errors import CapabilityUnavailable

from .dbus import reason

__all__ = ["Connection"]

_ADDRESS: Final = "DBUS_SYSTEM_BUS_ADDRESS"

_CLOSED: Final = list[SdBus]()
"""Some two kilobytes each; there is one more whenever a bus was started anew."""

T = TypeVar("T")


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
        self._watch_for_the_end()

    @property
    def open(self) -> bool:
        return not self._end.done()

    async def wait_for(self, call: Awaitable[T]) -> T:
        """Return what *call* answers; `CapabilityUnavailable` when the bus hangs up first."""
        task = asyncio.ensure_future(call)
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

    def close(self) -> None:
        """Hang up. Idempotent."""
        if self._end.done():
            return
        self._end.set_result(None)
        self._loop.remove_reader(self._watch.fileno())
        self._watch.close()
        os.close(self._duplicate)
        self.bus.close()
        _CLOSED.append(self.bus)
        self._closed()

    def _watch_for_the_end(self) -> None:
        """The loop already reads the bus's descriptor; a second one tells of its end, and of nothing else."""
        self._duplicate = os.dup(self.bus.get_fd())
        self._watch = select.epoll()
        self._watch.register(self._duplicate, select.EPOLLRDHUP)
        self._loop.add_reader(self._watch.fileno(), self.close)


def _open(address: str | None) -> SdBus:
    """Does not block: what is sent waits until the connection is made."""
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


def _hung_up() -> CapabilityUnavailable:
    return CapabilityUnavailable(
        "the system bus hung up; it is connected to anew at the next look", retry_after_s=1.0
    )
