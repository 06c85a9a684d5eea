"""How a device itself is, and of what it consists: facts in words, for the command and the page."""

from __future__ import annotations

from collections.abc import Iterator

from harmony_core.amounts import amount
from harmony_core.visible import word
from harmony_core.wire.inventory import Inventory

from .row import DeviceRow

__all__ = ["inventory_facts", "vital_facts"]


def vital_facts(row: DeviceRow) -> Iterator[tuple[str, str]]:
    """Yield its vitals, each with its name; nothing where they are not known."""
    vitals = row.vitals
    if vitals is None:
        return
    if vitals.temperature_c is not None:
        yield "heat", f"{vitals.temperature_c:.1f} °C"
    if vitals.throttled is not None:
        found = {
            "under-voltage now": vitals.under_voltage,
            "throttled now": vitals.is_throttled,
            "under-voltage since boot": vitals.under_voltage_since_boot,
            "throttled since boot": vitals.throttled_since_boot,
        }
        yield "power", ", ".join(name for name, is_so in found.items() if is_so) or "good"
    room = [
        f"{amount(free, 'bytes')} free {where}"
        for free, where in (
            (vitals.disk_free_bytes, "on /"),
            (vitals.state_free_bytes, "for the agent"),
        )
        if free is not None
    ]
    if vitals.disk_life_used_percent is not None:
        room.append(f"{vitals.disk_life_used_percent} % of its life used")
    if room:
        yield "disk", ", ".join(room)
    if vitals.memory_available_bytes is not None:
        yield "memory", f"{amount(vitals.memory_available_bytes, 'bytes')} available"
    if vitals.uptime_s is not None:
        yield "up", f"{vitals.uptime_s // 86_400} d {vitals.uptime_s % 86_400 // 3_600} h"
    if row.clock_offset_s is not None:
        by = "set by a time server" if vitals.clock_synchronised else "not known to be set"
        yield "clock", f"{by}; {row.clock_offset_s:+.1f} s from the message server's"


def inventory_facts(found: Inventory) -> Iterator[tuple[str, str]]:
    """Yield of what it consists, each with its name; ``?`` for what it cannot tell.

    What a device and its peripherals say steers no terminal.
    """
    memory = amount(found.memory_bytes, "bytes") if found.memory_bytes is not None else None
    cpus = None if found.cpus is None else f"{found.cpus} CPUs"
    for name, parts in (
        ("model", (found.model,)),
        ("serial", (found.serial,)),
        ("machine", (found.architecture, cpus, memory and f"{memory} of memory")),
        ("system", (found.os, found.kernel and f"Linux {found.kernel}")),
        ("hostname", (found.hostname,)),
        ("agent", (found.agent_version,)),
        ("kinds", (f"{len(found.kinds)} of Score" if found.kinds else None,)),
    ):
        yield _fact(name, *parts)
    for interface in found.interfaces:
        yield _fact("network", interface.name, interface.mac, *interface.addresses)
    for disk in found.disks:
        size = amount(disk.size_bytes, "bytes")
        yield _fact("disk", disk.name, size, disk.model, "removable" if disk.removable else None)
    for usb in found.usb:
        ids = f"{usb.vendor_id}:{usb.product_id}"
        yield _fact("usb", usb.port, ids, usb.vendor, usb.product, usb.serial)


def _fact(name: str, *parts: str | None) -> tuple[str, str]:
    return name, ", ".join(word(part) for part in parts if part) or "?"
