"""Of what a device consists: read as the kernel tells it, and told when it connects and when it changes."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import attrs
import pytest

from harmony_agent import config as configuration
from harmony_agent.bus.connection import Bus
from harmony_agent.facts import read_facts
from harmony_agent.report.inventory import InventoryReporter, read_inventory
from harmony_control.bus.reports import Reports
from harmony_core.errors import InvalidManifest
from harmony_core.wire.inventory import Disk, Inventory, UsbDevice, inventory_from_json
from harmony_core.wire.inventory import inventory_to_json as to_json
from tests.control.ground import harmony
from tests.nats import Bus as Plane
from tests.nats import serving

HOSTILE = "\x1b[2Jevil\nline"
FILES = {
    "proc/device-tree/serial-number": "10000000abcdef01\0",
    "proc/net/if_inet6": "20010db8000000000000000000000007 02 40 00 80     eth9\n"
    "fe80000000000000dea632fffe010203 02 40 20 80     eth9\nbroken\n",
    "sys/class/net/eth9/address": "dc:a6:32:01:02:03\n",
    "sys/class/net/veth0/address": "aa:aa:aa:aa:aa:aa\n",
    "sys/class/net/lo/address": "00:00:00:00:00:00\n",
    "sys/block/mmcblk0/size": "62333952\n",
    "sys/block/mmcblk0/device/name": "SC32G\n",
    "sys/block/mmcblk0/removable": "0\n",
    "sys/block/sda/size": "garbage\n",
    "sys/block/sda/removable": "1\n",
    "sys/block/loop0/size": "8\n",
    "sys/bus/usb/devices/usb1/idVendor": "1d6b\n",
    "sys/bus/usb/devices/1-1.2/idVendor": "0403\n",
    "sys/bus/usb/devices/1-1.2/idProduct": "6001\n",
    "sys/bus/usb/devices/1-1.2/product": HOSTILE,
    "sys/bus/usb/devices/1-1:1.0/bInterfaceClass": "09\n",
}


def _read(root: Path) -> Inventory:
    return read_inventory("pi-1", lambda: read_facts({"FileScore": (1,)}), root)


def _lay_out(root: Path) -> None:
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_a_device_is_read_as_it_stands(tmp_path: Path) -> None:
    _lay_out(tmp_path)
    found = _read(tmp_path)
    assert found.serial == "10000000abcdef01"
    assert found.cpus == os.cpu_count()
    assert found.kinds == {"FileScore": (1,)}
    (interface,) = found.interfaces
    assert (interface.name, interface.mac) == ("eth9", "dc:a6:32:01:02:03")
    assert interface.addresses == ("2001:db8::7",)
    assert found.disks == (
        Disk(name="mmcblk0", size_bytes=62_333_952 * 512, model="SC32G"),
        Disk(name="sda", size_bytes=0, removable=True),
    )
    assert found.usb == (
        UsbDevice(port="1-1.2", vendor_id="0403", product_id="6001", product=HOSTILE),
    )
    assert inventory_from_json(to_json(found)) == found


def test_what_cannot_be_read_is_not_known(tmp_path: Path) -> None:
    found = _read(tmp_path)
    assert (found.serial, found.interfaces, found.disks, found.usb) == (None, (), (), ())


def test_this_machine_can_be_read() -> None:
    found = _read(Path("/"))
    assert inventory_from_json(to_json(found)) == found


@pytest.mark.parametrize(
    "wrong",
    [
        {"cpus": -1},
        {"memory_bytes": "4 GB"},
        {"interfaces": [{"name": "a", "mac": "b"}] * 65},
        {"disks": [{"name": "a"}]},
        {"usb": {}},
        {"hostname": "x" * 70_000},
    ],
)
def test_what_cannot_be_so_is_refused(wrong: dict[str, Any]) -> None:
    told = json.loads(to_json(Inventory(agent_id="pi-1", agent_version="1"))) | wrong
    with pytest.raises(InvalidManifest, match="not an Inventory"):
        inventory_from_json(json.dumps(told).encode())


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncGenerator[Plane]:
    async with serving(tmp_path, "pi-1", "pi-2") as bus:
        yield bus


@attrs.define
class Counter:
    value: int = 0

    def next(self) -> int:
        self.value += 1
        return self.value


async def _stands(plane: Plane, counter: int) -> Inventory:
    """What stands there, once it has that counter."""
    reports = Reports(plane.home, plane.admin)
    async with asyncio.timeout(20):
        while True:
            found = await reports.read_inventory("pi-1")
            if found is not None and found.value is not None and found.value.counter >= counter:
                return found.value
            await asyncio.sleep(0.02)


async def test_it_is_told_at_each_connect_and_when_it_has_changed(
    plane: Plane, tmp_path: Path
) -> None:
    _lay_out(tmp_path)
    bus = Bus.of(configuration.load(plane.home.agent_toml("pi-1")))
    reporter = InventoryReporter(bus=bus, read=lambda: _read(tmp_path), count=Counter().next)
    bus.on_connect(reporter.tell_again)
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(bus.run()), tasks.create_task(reporter.run())]
        assert (await _stands(plane, 1)).serial == "10000000abcdef01"
        (tmp_path / "proc/device-tree/serial-number").write_text("2")
        reporter._soon.set()  # pyright: ignore[reportPrivateUsage] - five minutes are over
        assert (await _stands(plane, 2)).serial == "2"
        reporter._soon.set()  # pyright: ignore[reportPrivateUsage]
        reporter.tell_again()
        assert (await _stands(plane, 3)).counter == 3, "nothing was told while nothing changed"
        for each in running:
            each.cancel()
    said = await harmony(plane.home, "inventory", "pi-1")
    assert said.status == 0, said.err
    assert "mmcblk0, 31.9 GB, SC32G" in said.out
    assert "\x1b" not in said.out
    assert "\\x1b[2Jevil\\nline" in said.out
    (told,) = (await harmony(plane.home, "inventory", "pi-1", "-o", "json")).documents
    assert told["usb"][0]["product"] == HOSTILE


async def test_of_a_device_that_never_told_nothing_is_shown(plane: Plane) -> None:
    said = await harmony(plane.home, "inventory", "pi-2")
    assert (said.status, said.out) == (4, "")
    assert "pi-2 has not told" in said.err
    assert (await harmony(plane.home, "inventory", "pi-3")).status == 2


async def test_what_a_stranger_tells_is_not_believed(plane: Plane) -> None:
    forged = to_json(Inventory(agent_id="pi-1", agent_version="1"))
    await plane.bucket("inventory").put("pi-1", forged)
    said = await harmony(plane.home, "inventory", "pi-1")
    assert (said.status, said.out) == (4, "")
    assert "is not believed: Unverified" in said.err
