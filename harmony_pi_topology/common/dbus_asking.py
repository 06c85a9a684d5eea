"""Programs that are asked something over D-Bus now and then, by one connection, made when it is needed.

ask -> connected? else connect -> the answer, or one of our errors, which says what was asked
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias, TypeVar

from sdbus import SdBus
from sdbus.exceptions import SdBusBaseError
from sdbus_async.dbus_daemon import FreedesktopDbus

from harmony_core.errors import CapabilityError, TimedOut
from harmony_core.reconciler import Availability

from .dbus import error_name, to_capability_error
from .dbus_connection import Connection

__all__ = ["BusAsking"]

T = TypeVar("T")
Meaning: TypeAlias = tuple[type[CapabilityError], str]
"""What an error of D-Bus becomes, and what to do."""


class BusAsking:
    """Asks on the bus at *address*, or on this machine's.

    *errors* says what an error of D-Bus is, by the last part of its name, and *otherwise* what any other is.
    *closed* is called whenever the connection has ended.
    """

    def __init__(
        self,
        address: str | None,
        *,
        answer_within_s: float,
        errors: Mapping[str, Meaning],
        otherwise: Meaning,
        closed: Callable[[], None] = lambda: None,
    ) -> None:
        self._address = address
        self._answer_within_s = answer_within_s
        self._errors = errors
        self._otherwise = otherwise
        self._closed = closed
        self._connection: Connection | None = None

    async def ask(self, what: str, ask: Callable[[SdBus], Awaitable[T]]) -> T:
        """Return the answer to *ask*. Raise whatever goes wrong as a `CapabilityError` that says *what*."""
        try:
            async with asyncio.timeout(self._answer_within_s):
                if self._connection is None or not self._connection.open:
                    self._connection = Connection(self._address, closed=self._closed)
                return await self._connection.wait_for(ask(self._connection.bus))
        except TimeoutError:
            raise TimedOut(
                f"{what}: no answer within {self._answer_within_s:g} s; it is tried again later"
            ) from None
        except SdBusBaseError as error:
            if not error_name(error) and self._connection is not None:
                self._connection.close()
            raise to_capability_error(error, what, self._errors, self._otherwise) from error

    async def availability(self) -> Availability:
        """Return whether the bus answers; the question starts the daemon."""
        try:
            await self.ask("asking the bus", lambda bus: FreedesktopDbus(bus).get_id())
        except CapabilityError as error:
            return Availability(available=False, reason=error.message)
        return Availability(available=True)

    def close(self) -> None:
        """Close the connection. Idempotent."""
        if self._connection is not None:
            self._connection.close()
