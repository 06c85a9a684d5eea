"""Hearing of every change of the network, by NetworkManager's signals.

    a profile is made, changed or removed; an interface comes, goes, or changes its state -> tell
    what an interface has of addresses changes                                           -> tell
    an interface changes its state -> it may have other objects for its addresses now     -> watch those, tell
    the bus hangs up               -> tell None; the next `mend` connects and watches anew, and tells None

Whose change it is is not sought out: a profile concerns an interface, which concerns other profiles, and a
look costs a few milliseconds. NetworkManager is not asked anything while nothing happens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final

from sdbus.sd_bus_internals import SdBusMessage, SdBusSlot

from harmony_core.errors import CapabilityError
from harmony_core.reconciler import OnChange

from .nm_bus import NetworkBus, NetworkLink
from .nm_dbus import NETWORK_MANAGER, NM_PATH, NO_OBJECT, SETTINGS_PATH

__all__ = ["NetworkWatch"]

_PROPERTIES: Final = ("org.freedesktop.DBus.Properties", "PropertiesChanged")
_SIGNALS: Final = (
    (SETTINGS_PATH, f"{NETWORK_MANAGER}.Settings", "NewConnection"),
    (SETTINGS_PATH, f"{NETWORK_MANAGER}.Settings", "ConnectionRemoved"),
    (None, f"{NETWORK_MANAGER}.Settings.Connection", "Updated"),
    (NM_PATH, NETWORK_MANAGER, "DeviceAdded"),
    (NM_PATH, NETWORK_MANAGER, "DeviceRemoved"),
    (None, f"{NETWORK_MANAGER}.Device", "StateChanged"),
)
_FOLLOWED: Final = frozenset({"StateChanged", "DeviceAdded"})
"""After these an interface may have other objects than before."""


class NetworkWatch:
    """Tells of the profiles of *keys*, from `begin` until `end`."""

    def __init__(self, bus: NetworkBus) -> None:
        self._bus = bus
        bus.on_lost(self._on_lost)
        self._keys: frozenset[str] = frozenset()
        self._on_change: OnChange | None = None
        self._link: NetworkLink | None = None
        self._slots: dict[tuple[str | None, str, str], SdBusSlot] = {}
        self._following: asyncio.Task[None] | None = None
        self._again = False

    async def begin(self, keys: Collection[str], on_change: OnChange) -> None:
        """Watch *keys*, in place of what was watched before. Raise a `CapabilityError` when changes would not
        be reported."""
        self._keys, self._on_change = frozenset(keys), on_change
        if not self._keys:
            self._let_go()
            return
        await self._resubscribe()

    async def mend(self) -> None:
        """Watch again what stopped with the end of a connection."""
        if self._keys and self._link is not self._bus.link:
            await self._resubscribe()
            self._tell(None)

    def _on_lost(self) -> None:
        if self._link is not None:
            self._let_go()
            self._tell(None)

    async def end(self) -> None:
        """Report nothing more. Idempotent."""
        self._on_change = None
        self._keys = frozenset()
        self._let_go()
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait({self._following})

    async def _resubscribe(self) -> None:
        await self._bus.ask("watching the network", self._subscribe)

    async def _subscribe(self, link: NetworkLink) -> None:
        if link is not self._link:
            self._let_go()
            self._link = link
            for signal in _SIGNALS:
                await self._match(link, *signal)
        await self._follow(link)

    async def _follow(self, link: NetworkLink) -> None:
        """Watch the addresses of interfaces, wherever NetworkManager reports them now."""
        devices = [link.device(path) for path in await link.manager.devices]
        paths = [
            path
            for each in devices
            for path in await asyncio.gather(each.ip4_config, each.ip6_config)
            if path != NO_OBJECT
        ]
        for path in paths:
            await self._match(link, path, *_PROPERTIES)
        for signal in list(self._slots):
            if signal[1:] == _PROPERTIES and signal[0] not in paths:
                self._slots.pop(signal).close()

    async def _match(
        self, link: NetworkLink, path: str | None, interface: str, member: str
    ) -> None:
        signal = (path, interface, member)
        if signal not in self._slots:
            self._slots[signal] = await link.connection.listen(
                NETWORK_MANAGER, path, interface, member, self._heard
            )

    def _heard(self, message: SdBusMessage) -> None:
        self._tell_all()
        if message.member not in _FOLLOWED:
            return
        self._again = True
        if self._following is None or self._following.done():
            self._following = asyncio.create_task(self._keep_following())

    async def _keep_following(self) -> None:
        while self._again and self._on_change is not None:
            self._again = False
            try:
                await self._resubscribe()
            except CapabilityError:
                self._tell(None)
            self._tell_all()  # of what happened before it was watched

    def _tell_all(self) -> None:
        for key in self._keys:
            self._tell(key)

    def _let_go(self) -> None:
        for slot in self._slots.values():
            slot.close()
        self._slots.clear()
        self._link = None

    def _tell(self, key: str | None) -> None:
        if self._on_change is not None:
            self._on_change(key)
