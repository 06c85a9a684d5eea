"""Of what a device consists: one document, which it signs and writes when it starts and when it changes.

Reading ignores unknown fields, and takes no more than is told here of anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import attrs

from harmony_core.errors import InvalidManifest

from .fields import Form, Reader, dict_of, fields_of, flag, list_of, optional, text, whole

__all__ = [
    "INVENTORY_MAX_BYTES",
    "LISTED_MOST",
    "Disk",
    "Interface",
    "Inventory",
    "UsbDevice",
    "inventory_from_json",
    "inventory_to_json",
]

API_VERSION = "harmony/v1"
INVENTORY_MAX_BYTES = 60 * 1_024
LISTED_MOST = 64
"""Of interfaces, disks and USB devices each; of an interface's addresses, too."""
_NONE: Mapping[str, tuple[int, ...]] = MappingProxyType({})


@attrs.frozen(kw_only=True)
class Interface:
    """One network interface."""

    name: str
    mac: str
    addresses: tuple[str, ...] = ()
    """IPv4 first; without the prefix's length."""


@attrs.frozen(kw_only=True)
class Disk:
    """One block device, as a whole."""

    name: str
    size_bytes: int
    model: str | None = None
    removable: bool = False


@attrs.frozen(kw_only=True)
class UsbDevice:
    """One thing on the USB, hubs of the device itself apart."""

    port: str
    """Where it is, as the kernel names it: ``1-1.2``."""
    vendor_id: str
    product_id: str
    vendor: str | None = None
    product: str | None = None
    serial: str | None = None


@attrs.frozen(kw_only=True)
class Inventory:
    """What one device consists of. None where it cannot tell."""

    agent_id: str
    agent_version: str
    counter: int = 0
    """As in reports and heartbeats."""
    api_version: str = API_VERSION
    model: str | None = None
    serial: str | None = None
    cpus: int | None = None
    memory_bytes: int | None = None
    architecture: str = ""
    os: str | None = None
    kernel: str = ""
    hostname: str = ""
    kinds: Mapping[str, tuple[int, ...]] = _NONE
    interfaces: tuple[Interface, ...] = ()
    disks: tuple[Disk, ...] = ()
    usb: tuple[UsbDevice, ...] = ()


def _few(read: Reader[Any]) -> Reader[tuple[Any, ...]]:
    read_all = list_of(read)

    def read_few(value: Any) -> tuple[Any, ...]:
        found = read_all(value)
        if len(found) > LISTED_MOST:
            raise ValueError(f"must have at most {LISTED_MOST} items")
        return found

    return read_few


def _size(value: Any) -> int:
    if whole(value) < 0:
        raise ValueError("must not be negative")
    return whole(value)


_INVENTORY = Form(
    Inventory,
    agent_id=text,
    agent_version=text,
    counter=whole,
    api_version=text,
    model=optional(text),
    serial=optional(text),
    cpus=optional(_size),
    memory_bytes=optional(_size),
    architecture=text,
    os=optional(text),
    kernel=text,
    hostname=text,
    kinds=dict_of(list_of(whole)),
    interfaces=_few(Form(Interface, name=text, mac=text, addresses=_few(text))),
    disks=_few(Form(Disk, name=text, size_bytes=_size, model=optional(text), removable=flag)),
    usb=_few(
        Form(
            UsbDevice,
            port=text,
            vendor_id=text,
            product_id=text,
            vendor=optional(text),
            product=optional(text),
            serial=optional(text),
        )
    ),
)


def inventory_to_json(value: Inventory) -> bytes:
    """Return compact UTF-8 JSON."""
    fields = fields_of(value) | {
        "kinds": dict(value.kinds),
        "interfaces": [fields_of(each) for each in value.interfaces],
        "disks": [fields_of(each) for each in value.disks],
        "usb": [fields_of(each) for each in value.usb],
    }
    # As ASCII: what a peripheral calls itself need be no text at all.
    return json.dumps(fields, separators=(",", ":")).encode()


def inventory_from_json(data: bytes) -> Inventory:
    """Read what a device wrote; `InvalidManifest` names what is wrong with it."""
    try:
        if len(data) > INVENTORY_MAX_BYTES:
            raise ValueError(f"longer than {INVENTORY_MAX_BYTES} bytes")  # noqa: TRY301 - told as all else
        return _INVENTORY(json.loads(data))
    except Exception as error:
        raise InvalidManifest(f"not an Inventory: {error}") from error
