"""Units whose stop takes back what was done: it is run before they go, and has to succeed."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import attrs
import pytest

from harmony_core.change import Change
from harmony_core.errors import UnitFailed
from harmony_core.reconciler import MemoryBackups, MemoryRecords
from harmony_pi_topology.posix.root import Root
from harmony_pi_topology.systemd.reconciler import SdbusSystemd
from harmony_pi_topology.systemd.records import UnitRecord
from tests.topology.served_systemd import NAME, ServedManager, private_bus, served

_RECORD = UnitRecord(wrote=True, takes_back=True)


class Device:
    """A systemd of which each stop ends as is said, and a unit of ours."""

    def __init__(self, systemd: ServedManager, root: Path, units: SdbusSystemd) -> None:
        self.systemd, self.units = systemd, units
        self.ends = ["inactive"]
        """How it is after each of its stops; in the end always as after the last one."""
        self.done: list[str] = []
        self.file = root / "etc/systemd/system" / NAME
        self.file.parent.mkdir(parents=True)
        self.file.write_text("[Service]\n")
        systemd.enablement = "disabled"
        systemd.on_start, systemd.on_stop = self._start, self._stop

    async def _start(self) -> None:
        self.done.append("started")
        self.systemd.unit.active = "active"
        self.systemd.end_job("done")

    async def _stop(self) -> None:
        if self.systemd.unit.active == "active":
            self.done.append("stopped")
            self.systemd.unit.active = self.ends.pop(0) if len(self.ends) > 1 else self.ends[0]
        self.systemd.end_job("done")

    async def remove(self) -> Change | Exception:
        (result,) = await self.units.remove([NAME], apply=True)
        return result


@pytest.fixture
def records() -> MemoryRecords:
    return MemoryRecords()


@pytest.fixture
async def device(tmp_path: Path, records: MemoryRecords) -> AsyncGenerator[Device]:
    async def tell(unit: str, lines: int) -> str:
        return f"the last of {lines} lines of {unit}"

    async with private_bus(tmp_path) as bus, served(bus) as systemd:
        (tmp_path / "root").mkdir()
        units = SdbusSystemd(
            records=records,
            backups=MemoryBackups(),
            address=bus.address,
            files=Root(str(tmp_path / "root")),
            journal_tail=tell,
            job_wait_s=1,
        )
        await records.put(f"unit:{NAME}", _RECORD.written)
        yield Device(systemd, tmp_path / "root", units)
        await units.close()


async def test_what_could_not_be_taken_back_is_told_and_tried_again(device: Device) -> None:
    device.systemd.unit.active = "active"
    device.ends = ["failed", "failed", "inactive"]
    for count in (1, 2):
        error = await device.remove()
        assert isinstance(error, UnitFailed)
        assert f"{NAME} has not taken back what was done" in error.message
        assert f"lines of {NAME}" in error.message
        assert device.done.count("stopped") == count
        assert device.file.exists()
    assert isinstance(await device.remove(), Change)
    assert device.done == ["stopped", "started", "stopped", "started", "stopped"]
    assert not device.file.exists()


@pytest.mark.parametrize("active", ["inactive", "failed"])
async def test_one_that_does_not_run_is_started_for_it(device: Device, active: str) -> None:
    device.systemd.unit.active = active
    (planned,) = await device.units.remove([NAME], apply=False)
    assert isinstance(planned, Change)
    assert "stopped" in planned.actions
    assert isinstance(await device.remove(), Change)
    assert device.done == ["started", "stopped"]


@pytest.mark.parametrize("active", ["inactive", "failed"])
async def test_one_that_cannot_be_started_for_it_is_told_and_stays(
    device: Device, active: str
) -> None:
    async def start_in_vain() -> None:
        device.done.append("not started")
        device.systemd.unit.active = active
        device.systemd.end_job("done")

    device.systemd.unit.active = active
    starts, device.systemd.on_start = device.systemd.on_start, start_in_vain
    error = await device.remove()
    assert isinstance(error, UnitFailed)
    assert f"{NAME} has not taken back what was done" in error.message
    assert device.file.exists()
    device.systemd.on_start = starts
    assert isinstance(await device.remove(), Change)
    assert device.done == ["not started", "started", "stopped"]


async def test_one_that_is_slow_to_stop_is_not_begun_anew(device: Device) -> None:
    device.systemd.unit.active = "active"
    device.ends = ["deactivating"]
    waiting = await device.remove()
    assert isinstance(waiting, Change)
    assert waiting.pending is not None
    device.systemd.unit.active = "inactive"
    assert isinstance(await device.remove(), Change)
    assert device.done == ["stopped"]
    assert not device.file.exists()


async def test_any_other_goes_however_its_stop_has_ended(
    device: Device, records: MemoryRecords
) -> None:
    await records.put(f"unit:{NAME}", attrs.evolve(_RECORD, takes_back=False).written)
    device.systemd.unit.active = "active"
    device.ends = ["failed"]
    assert isinstance(await device.remove(), Change)
    assert not device.file.exists()
    assert device.done == ["stopped"]
