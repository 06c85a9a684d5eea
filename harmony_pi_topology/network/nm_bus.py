"""NetworkManager over D-Bus. Every question has a deadline.

connect when first asked -> ask -> what vanished meanwhile is asked for anew, a few times
the bus hangs up         -> CapabilityUnavailable, and the next question connects anew
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from sdbus import SdBus
from sdbus.dbus_exceptions import (
    DbusUnknownInterfaceError,
    DbusUnknownMethodError,
    DbusUnknownObjectError,
)
from sdbus.exceptions import SdBusBaseError

from harmony_core.errors import TimedOut
from harmony_pi_topology.common.dbus import error_name, to_capability_error
from harmony_pi_topology.common.dbus_connection import Connection as BusConnection

from .nm_dbus import (
    ERRORS,
    NETWORK_MANAGER,
    NM_PATH,
    OTHER_ERRORS,
    SETTINGS_PATH,
    ActiveConnection,
    Checkpoint,
    Connection,
    Device,
    IpConfig4,
    IpConfig6,
    NetworkManager,
    Settings,
    Wired,
    Wireless,
)

__all__ = ["ANSWER_WITHIN_S", "NetworkBus", "NetworkLink"]

ANSWER_WITHIN_S: Final = 10.0
_PING_S: Final = 2.0
_TORN_LOOKS: Final = 5
_VANISHED: Final = (DbusUnknownInterfaceError, DbusUnknownMethodError, DbusUnknownObjectError)

T = TypeVar("T")


class NetworkLink:
    """One connection to the bus, and NetworkManager's objects on it."""

    def __init__(self, connection: BusConnection) -> None:
        self.connection = connection
        self.manager = NetworkManager.new_proxy(NETWORK_MANAGER, NM_PATH, self.bus)
        self.settings = Settings.new_proxy(NETWORK_MANAGER, SETTINGS_PATH, self.bus)

    @property
    def bus(self) -> SdBus:
        return self.connection.bus

    def checkpoint(self, path: str) -> Checkpoint:
        return Checkpoint.new_proxy(NETWORK_MANAGER, path, self.bus)

    def profile(self, path: str) -> Connection:
        return Connection.new_proxy(NETWORK_MANAGER, path, self.bus)

    def active(self, path: str) -> ActiveConnection:
        return ActiveConnection.new_proxy(NETWORK_MANAGER, path, self.bus)

    def device(self, path: str) -> Device:
        return Device.new_proxy(NETWORK_MANAGER, path, self.bus)

    def wired(self, path: str) -> Wired:
        return Wired.new_proxy(NETWORK_MANAGER, path, self.bus)

    def wireless(self, path: str) -> Wireless:
        return Wireless.new_proxy(NETWORK_MANAGER, path, self.bus)

    def ip4(self, path: str) -> IpConfig4:
        return IpConfig4.new_proxy(NETWORK_MANAGER, path, self.bus)

    def ip6(self, path: str) -> IpConfig6:
        return IpConfig6.new_proxy(NETWORK_MANAGER, path, self.bus)


class NetworkBus:
    """The NetworkManager on the bus at *address*, or on this machine's."""

    def __init__(
        self, address: str | None = None, *, answer_within_s: float = ANSWER_WITHIN_S
    ) -> None:
        self._address = address
        self._answer_s = answer_within_s
        self._listeners: tuple[Callable[[], None], ...] = ()
        self._link: NetworkLink | None = None

    def on_lost(self, *listeners: Callable[[], None]) -> None:
        """Call *listeners* when the connection to the bus ends, whichever side closes it."""
        self._listeners = listeners

    @property
    def link(self) -> NetworkLink | None:
        """The present connection."""
        return self._link if self._link is not None and self._link.connection.open else None

    async def ping(self) -> None:
        """Return once NetworkManager answers, within two seconds."""
        await self.ask(
            "asking NetworkManager", lambda link: link.manager.dbus_ping(), within_s=_PING_S
        )

    async def ask(
        self,
        what: str,
        ask: Callable[[NetworkLink], Awaitable[T]],
        *,
        within_s: float | None = None,
    ) -> T:
        """Return the answer of *ask*. Raise one of Harmony's errors, which names *what*, for anything that
        goes wrong."""
        within_s = self._answer_s if within_s is None else within_s
        try:
            async with asyncio.timeout(within_s):
                link = self._connect()
                return await link.connection.wait_for(_patiently(link, ask))
        except TimeoutError:
            raise TimedOut(
                f"{what}: NetworkManager did not answer within {within_s:g} s; "
                "it is tried again later"
            ) from None
        except SdBusBaseError as error:
            ours = to_capability_error(error, what, ERRORS, OTHER_ERRORS)
            if not error_name(error):
                self.close()
            raise ours from error

    def close(self) -> None:
        """Close the connection. The next question connects again."""
        if self._link is not None:
            self._link.connection.close()

    def _connect(self) -> NetworkLink:
        link = self.link
        if link is None:
            link = self._link = NetworkLink(BusConnection(self._address, closed=self._tell))
        return link

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()


async def _patiently(link: NetworkLink, ask: Callable[[NetworkLink], Awaitable[T]]) -> T:
    """Return the answer of *ask*, and ask again where an object that was just named is gone: objects come and
    go."""
    for _ in range(_TORN_LOOKS):
        try:
            return await ask(link)
        except _VANISHED:
            await asyncio.sleep(0)
    return await ask(link)
