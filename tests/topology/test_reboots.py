"""Reboots as systemd-logind is asked for them, on a private bus; and the rule, in memory."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from sdbus import DbusFailedError, dbus_method_async_override

from harmony_core import RebootRule
from harmony_core.change import Change
from harmony_core.errors import CapabilityUnavailable, NotInForce, TimedOut
from harmony_core.reboots import Rebooting, RebootNote
from harmony_core.reconciler import MemoryRecords
from harmony_core.resources import RebootRuleAt
from harmony_core.testing import FakePi, FakeReboots, interpret_twice
from harmony_pi_topology.common.dbus_connection import Connection
from harmony_pi_topology.reboots.logind import LOGIND, LogindManager, LogindReboots
from harmony_scores import RebootScore

from .served_systemd import hang, private_bus

SUNDAY = RebootRule(when="window", window="Sun 03:00", lasts_s=7200)


class ServedLogind(LogindManager):
    """Counts how often it was to boot."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.hangs = self.fails = False
        self.inhibitors = [
            ("sleep", "desktop", "locks the screen", "delay", 1000, 7),
            ("shutdown:sleep", "NetworkManager", "wants to be told", "delay", 0, 8),
            ("idle:sleep", "player", "plays", "block", 1000, 9),
        ]

    @dbus_method_async_override()
    async def reboot(self, interactive: bool) -> None:
        if self.hangs:
            await hang()
        if self.fails:
            raise DbusFailedError("no room for wtmp")
        self.asked += 1

    @dbus_method_async_override()
    async def list_inhibitors(self) -> list[tuple[str, str, str, str, int, int]]:
        return self.inhibitors


class Served:
    """logind, and a folder that stands for the device."""

    def __init__(self, root: Path, address: str) -> None:
        (root / "run").mkdir(parents=True)
        self.run = root / "run"
        self.logind = ServedLogind()
        self.reboots = LogindReboots(
            records=MemoryRecords(), address=address, root=str(root), answer_within_s=1.0
        )


@pytest.fixture
async def served(tmp_path: Path) -> AsyncGenerator[Served]:
    async with private_bus(tmp_path) as bus:
        connection = Connection(bus.address, closed=lambda: None)
        it = await asyncio.to_thread(Served, tmp_path / "root", bus.address)
        await connection.bus.request_name_async(LOGIND[0], 0)
        it.logind.export_to_dbus(LOGIND[1], connection.bus)
        yield it
        await it.reboots.close()
        connection.close()


async def test_logind_is_asked_and_what_it_does_wrong_is_told(served: Served) -> None:
    assert (await served.reboots.availability()).available
    await served.reboots.reboot()
    assert served.logind.asked == 1
    served.logind.fails = True
    with pytest.raises(CapabilityUnavailable, match="no room for wtmp"):
        await served.reboots.reboot()
    served.logind.hangs = True
    with pytest.raises(TimedOut):
        await served.reboots.reboot()
    assert served.logind.asked == 1


@pytest.mark.parametrize("mode", ["block", "block-weak"])
async def test_whoever_blocks_a_shutdown_is_named_and_nobody_else(
    served: Served, mode: str
) -> None:
    assert list(await served.reboots.find_obstacles()) == []
    served.logind.inhibitors.append(("handle-power-key:shutdown", "apt", "upgrades", mode, 0, 1))
    assert list(await served.reboots.find_obstacles()) == ["apt: upgrades"]


@pytest.mark.parametrize("lock", ["lock-frontend", "lock"])
async def test_nobody_is_cut_off_who_installs_packages(served: Served, lock: str) -> None:
    path = served.run.parent / "var/lib/dpkg" / lock
    path.parent.mkdir(parents=True)
    path.touch()
    assert list(await served.reboots.find_obstacles()) == []
    apt = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        f"import fcntl; f = open({str(path)!r}, 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print('has it', "
        "flush=True); input()",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert apt.stdout is not None
    assert await apt.stdout.readline() == b"has it\n"
    (why,) = await served.reboots.find_obstacles()
    assert why == f"dpkg: packages are being installed or removed (process {apt.pid})"
    await apt.communicate(b"\n")
    assert list(await served.reboots.find_obstacles()) == []


async def test_what_debians_packages_say_is_read(served: Served) -> None:
    assert not await served.reboots.find_system_reasons()
    (served.run / "reboot-required.pkgs").write_text("left over\n")
    assert not await served.reboots.find_system_reasons()
    (served.run / "reboot-required").touch()
    (served.run / "reboot-required.pkgs").write_text("linux-image\n\ndbus\nlinux-image\n")
    assert list(await served.reboots.find_system_reasons()) == ["dbus", "linux-image"]
    (served.run / "reboot-required.pkgs").unlink()
    assert list(await served.reboots.find_system_reasons()) == ["the system"]


async def test_without_a_bus_it_is_not_available(tmp_path: Path) -> None:
    reboots = LogindReboots(records=MemoryRecords(), address=f"unix:path={tmp_path}/none")
    assert not (await reboots.availability()).available
    with pytest.raises(CapabilityUnavailable):
        await reboots.find_obstacles()
    await reboots.close()


async def test_the_rule_is_noted_changed_and_taken_back() -> None:
    records = MemoryRecords()
    reboots = FakeReboots(records)
    assert isinstance(reboots, Rebooting)
    (planned,) = await reboots.converge([SUNDAY], apply=False)
    assert reboots.read_rule() is None
    (made,) = await reboots.converge([SUNDAY], apply=True)
    assert planned == made
    # As the next process has it.
    again = FakeReboots(records)
    assert again.read_rule() == RebootRuleAt(when="window", window="Sun 03:00", lasts_s=7200)
    assert await again.observe("device") == again.read_rule()
    (kept,) = await again.converge([SUNDAY], apply=True)
    assert isinstance(kept, Change)
    assert not kept.changed
    (changed,) = await again.converge([RebootRule(when="now")], apply=True)
    assert isinstance(changed, Change)
    assert changed.actions == ("rule Sun 03:00 for 7200 s → now",)
    (gone,) = await again.remove(["device"], apply=True)
    assert isinstance(gone, Change)
    assert gone.actions == ("removed",)
    assert again.read_rule() is None
    (gone,) = await again.remove(["device"], apply=True)
    assert isinstance(gone, Change)
    assert not gone.changed


async def test_a_note_is_kept_and_what_is_in_vain_is_a_failure_that_says_what_to_do() -> None:
    records = MemoryRecords()
    note = RebootNote(
        boot_id="b", at="2026-11-30T03:00:00Z", causes=("a x 1",), in_vain=("boot block:x 2",)
    )
    reboots = FakeReboots(records)
    await reboots.note(note)
    assert FakeReboots(records).read_note() == note
    (error,) = await reboots.converge([RebootRule(when="now")], apply=True)
    assert isinstance(error, NotInForce)
    assert error.message.startswith("boot block:x: ")
    assert "journalctl -b" in error.message
    await reboots.note(RebootNote())
    assert reboots.read_note() == RebootNote()
    assert isinstance((await reboots.converge([RebootRule(when="now")], apply=True))[0], Change)


async def test_the_score_sets_it_once() -> None:
    pi = FakePi()
    first, second = await interpret_twice(RebootScore(when="now"), pi.offers)
    assert (first.status, second.status) == ("SUCCESS", "NOOP")
    assert pi.reboots.read_rule() == RebootRuleAt(when="now")
