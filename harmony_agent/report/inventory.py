"""Of what this device consists: read from /proc and /sys, and written to the bus when it starts and when it
has changed since.

    every five minutes, at each connect -> read in a thread -> other than was told? -> signed, written
"""

from __future__ import annotations

import asyncio
import fcntl
import ipaddress
import logging
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import attrs

from harmony_agent.bus.connection import Bus
from harmony_agent.clock import monotonic_s, wait_until
from harmony_core.errors import BusUnreachable
from harmony_core.inventory import Facts
from harmony_core.wire.inventory import (
    INVENTORY_MAX_BYTES,
    LISTED_MOST,
    Disk,
    Interface,
    Inventory,
    UsbDevice,
    inventory_to_json,
)

__all__ = ["InventoryReporter", "read_inventory"]

log = logging.getLogger(__name__)

_LOOK_S = 300.0
_SECTOR_BYTES = 512
"""In which the kernel counts, whatever the disk does."""
_TEXT_MOST = 128
"""Characters of what a peripheral says of itself."""
_PASSING = ("lo", "veth")
"""Interfaces that are everywhere, or come and go with containers."""
_NO_DISKS = ("loop", "ram", "zram", "dm-", "md")
_SIOCGIFADDR = 0x8915
_SERIALS = ("proc/device-tree/serial-number", "sys/class/dmi/id/product_serial")


@attrs.define(kw_only=True)
class InventoryReporter:
    """Tells it until cancelled."""

    bus: Bus
    read: Callable[[], Inventory]
    """Called in a thread; the counter is set here."""
    count: Callable[[], int]
    _told: Inventory | None = attrs.field(default=None, init=False)
    _soon: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)

    def tell_again(self) -> None:
        """Report again, because there is a new connection: another server may know nothing."""
        self._told = None
        self._soon.set()

    async def run(self) -> None:
        while True:
            self._soon.clear()
            try:
                found = await asyncio.to_thread(self.read)
            except RuntimeError as error:  # there is no thread to be had; it is looked again later
                log.info("inventory not read: %s", error)
            else:
                if found != self._told and self.bus.up:
                    await self._tell(found)
            await wait_until(self._soon, latest_s=monotonic_s() + _LOOK_S)

    async def _tell(self, found: Inventory) -> None:
        data = inventory_to_json(attrs.evolve(found, counter=self.count()))
        if len(data) > INVENTORY_MAX_BYTES:
            log.warning("the inventory has %d bytes, too many to be told", len(data))
            self._told = found
            return
        try:
            await self.bus.tell_inventory(data)
        except BusUnreachable as error:
            log.info("inventory not told: %s", error.message)
        else:
            self._told = found


def read_inventory(agent_id: str, facts: Callable[[], Facts], root: Path = Path("/")) -> Inventory:
    """Return what can be read below *root*. Raise none of the system's errors."""
    known = facts()
    sys = root / "sys"
    return Inventory(
        agent_id=agent_id,
        agent_version=known.agent_version,
        model=known.model,
        serial=next((found for each in _SERIALS if (found := _read(root / each))), None),
        cpus=os.cpu_count(),
        memory_bytes=known.memory_bytes,
        architecture=known.architecture,
        os=known.os,
        kernel=known.kernel,
        hostname=known.hostname,
        kinds=known.kinds,
        interfaces=_read_interfaces(sys / "class/net", root / "proc/net/if_inet6"),
        disks=_read_disks(sys / "block"),
        usb=_read_usb(sys / "bus/usb/devices"),
    )


def _read_interfaces(directory: Path, inet6: Path) -> tuple[Interface, ...]:
    addresses = _read_ipv6(inet6)
    return tuple(
        Interface(
            name=path.name,
            mac=_read(path / "address") or "",
            addresses=tuple([*_read_ipv4(path.name), *addresses.get(path.name, [])][:LISTED_MOST]),
        )
        for path in _list(directory)
        if not path.name.startswith(_PASSING)
    )


def _read_ipv4(name: str) -> list[str]:
    """Return the first address of that interface: only netlink, which the unit may not use, knows more."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            found = fcntl.ioctl(any_socket, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
        except OSError:
            return []
    return [socket.inet_ntoa(found[20:24])]


def _read_ipv6(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (_read(path, most=2**16) or "").splitlines():
        fields = line.split()
        try:
            address = ipaddress.IPv6Address(int(fields[0], 16))
        except (ValueError, IndexError):
            continue
        if len(fields) == 6 and not address.is_link_local:
            found.setdefault(fields[5], []).append(str(address))
    return {name: sorted(each) for name, each in found.items()}


def _read_disks(directory: Path) -> tuple[Disk, ...]:
    return tuple(
        Disk(
            name=path.name,
            size_bytes=_read_whole(path / "size") * _SECTOR_BYTES,
            model=_read(path / "device/model") or _read(path / "device/name"),
            removable=_read(path / "removable") == "1",
        )
        for path in _list(directory)
        if not path.name.startswith(_NO_DISKS)
    )


def _read_usb(directory: Path) -> tuple[UsbDevice, ...]:
    return tuple(
        UsbDevice(
            port=path.name,
            vendor_id=vendor_id,
            product_id=_read(path / "idProduct") or "",
            vendor=_read(path / "manufacturer"),
            product=_read(path / "product"),
            serial=_read(path / "serial"),
        )
        for path in _list(directory)
        if not path.name.startswith("usb") and (vendor_id := _read(path / "idVendor"))
    )


def _read_whole(path: Path) -> int:
    try:
        return max(int(_read(path) or ""), 0)
    except ValueError:
        return 0


def _read(path: Path, *, most: int = _TEXT_MOST) -> str | None:
    """Return the text of one of the kernel's files; None for none."""
    try:
        return path.read_text("utf-8", errors="replace")[:most].strip("\0\n ") or None
    except OSError:
        return None


def _list(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())[:LISTED_MOST]
    except OSError:
        return []
