"""Mount points on real systemd and kernel, in a box: the contract, and what only these can show.

A disk is a loop device. There is no udev in a box, so what is not shown is that systemd mounts one by itself
as it is plugged in, nor one that is gone while it is mounted.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncGenerator
from contextlib import suppress

import pytest

from harmony_core.reconciler import MemoryBackups, MemoryRecords
from harmony_core.resources import MountPoint, SystemdUnit
from harmony_core.testing import MountHostContract, MountsUnderTest
from harmony_pi_topology.common.journal import Journal
from harmony_pi_topology.mounts.reconciler import name_of_asking
from harmony_pi_topology.mounts.systemd import SystemdMounts
from harmony_pi_topology.posix.mounts import mounts_of
from harmony_pi_topology.systemd.reconciler import SdbusSystemd
from tests.box import Box

from .box_units import RootOfABox

BELOW = MountHostContract.BELOW
_USER = "harmony-contract-user.service"
_USED = "/run/harmony-contract.used"
_EMPTY = f"""
umount -R -l {BELOW}/* {BELOW}/*/* 2>/dev/null
rm -f /etc/systemd/system/srv-harmony* /etc/systemd/system/*/srv-harmony*
systemctl daemon-reload
systemctl reset-failed
rm -rf {BELOW} {MountHostContract.DISK}
"""


class BoxMounts:
    """A `MountBystander` in a box."""

    def __init__(self, box: Box) -> None:
        self._box = box
        self._loops: dict[str, str] = {}
        self._image = box.root / "srv/harmony-contract.img"
        self.has_automount = (box.root / "dev/autofs").exists()

    async def mount(self, what: str, where: str) -> None:
        await self._run("mkdir", "-p", where)
        await self._run("mount", "-t", "tmpfs", what, where)

    async def unmount(self, where: str) -> None:
        await self._run("umount", where)

    async def remount(self, where: str, option: str) -> None:
        await self._run("mount", "-o", f"remount,{option}", where)

    async def use(self, where: str) -> None:
        # No WorkingDirectory=: a service that says it needs a mount is stopped with it.
        script = f"cd '{where}' && touch {_USED} && exec sleep infinity"
        await self._run("systemd-run", f"--unit={_USER}", "sh", "-c", script)
        await asyncio.to_thread(self._box.wait_for, ["test", "-e", _USED])

    async def need(self, where: str) -> None:
        needs = f"RequiresMountsFor={where}"
        await self._run("systemd-run", f"--unit={_USER}", "-p", needs, "sleep", "infinity")

    async def leave(self) -> None:
        command = f"systemctl stop {_USER}; rm -f {_USED}"
        await asyncio.to_thread(self._box.run, ["sh", "-c", command], check=False)

    async def access(self, where: str) -> None:
        await self._run("ls", where)

    def mounted(self, where: str) -> tuple[str, str] | None:
        found = [each for each in mounts_of("1", self._box.root / "proc") if each.point == where]
        return (found[-1].source, found[-1].kind) if found else None

    def write(self, path: str, content: bytes) -> None:
        self._box.write(path, content)

    def delete(self, path: str) -> None:
        (self._box.root / path[1:]).unlink()

    def exists(self, path: str) -> bool:
        return (self._box.root / path[1:]).exists()

    def read(self, path: str) -> bytes | None:
        with suppress(FileNotFoundError):
            return self._box.read(path)
        return None

    async def plug_in(self, disk: str) -> None:
        if not self._image.exists():
            with self._image.open("wb") as image:
                image.truncate(8 * 1024 * 1024)
            await _on_host("mkfs.ext4", "-q", "-F", str(self._image))
        loop = (await _on_host("losetup", "--find", "--show", str(self._image))).strip()
        self._loops[disk] = loop
        number = loop.removeprefix("/dev/loop")
        await self._run("mknod", loop, "b", "7", number)
        await self._run("ln", "-s", loop, disk)

    async def pull(self, disk: str) -> None:
        """As systemd and udev leave it, once nobody uses it."""
        loop = self._loops.pop(disk)
        await self._run("rm", "-f", disk, loop)
        await self._run("sh", "-c", f"umount {loop} || true")
        await _on_host("losetup", "-d", loop)

    async def close(self) -> None:
        await self.leave()
        for disk in list(self._loops):
            await self.pull(disk)
        self._image.unlink(missing_ok=True)
        await asyncio.to_thread(self._box.run, ["sh", "-c", _EMPTY], check=False)

    async def _run(self, *command: str) -> None:
        await asyncio.to_thread(self._box.run, command)


async def _on_host(*command: str) -> str:
    done = await asyncio.to_thread(
        subprocess.run, command, check=True, capture_output=True, text=True
    )
    return done.stdout


def units_of(pi: Box) -> SdbusSystemd:
    return SdbusSystemd(
        records=MemoryRecords(),
        backups=MemoryBackups(),
        address=pi.dbus_address,
        files=RootOfABox(pi),
        journal=Journal(pi.inside(["journalctl"])),
        job_wait_s=5.0,
    )


@pytest.fixture
async def host(pi: Box) -> AsyncGenerator[MountsUnderTest]:
    mounts = SystemdMounts(units_of(pi), str(pi.root), records=MemoryRecords())
    bystander = BoxMounts(pi)
    yield MountsUnderTest(mounts=mounts, bystander=bystander)
    await mounts.close()
    await bystander.close()


class TestMountsInABox(MountHostContract):
    @pytest.fixture
    def host(self, host: MountsUnderTest) -> MountsUnderTest:
        return host


async def test_a_service_that_needs_the_mount_is_restarted_with_it(
    pi: Box, host: MountsUnderTest
) -> None:
    wish = TestMountsInABox().tmpfs("size=1m")
    await host.apply_one(wish)
    directory = f"WorkingDirectory={wish.where}"
    command = ["systemd-run", f"--unit={_USER}", "-p", directory, "sleep", "infinity"]
    await asyncio.to_thread(pi.run, command)
    await host.apply_one(wish.model_copy(update={"options": ("size=2m",)}))
    is_up = await asyncio.to_thread(pi.run, ["systemctl", "is-active", _USER], check=False)
    assert is_up.stdout.strip() in {b"active", b"activating"}


async def test_a_unit_that_asks_and_whose_agent_was_killed_is_taken_away_by_the_next(
    pi: Box, host: MountsUnderTest
) -> None:
    assert isinstance(host.mounts, SystemdMounts)
    await host.mounts.availability()
    name = name_of_asking("users", TestMountsInABox().tmpfs().where)
    content = "[Service]\nType=oneshot\nExecStart=/bin/false\n"
    asking = SystemdUnit(name=name, content=content, enabled=None, settle_s=0)
    await host.mounts.units.converge([asking], apply=True)
    assert name in pi.text("systemctl", "list-units", "--all", "harmony-mount-*")
    again = SystemdMounts(host.mounts.units, str(pi.root), records=MemoryRecords())
    assert (await again.availability()).available
    assert not (pi.root / "etc/systemd/system" / name).exists()
    assert name not in pi.text("systemctl", "list-units", "--all", "harmony-mount-*")


async def test_a_disk_is_checked_before_it_is_mounted_to_be_written_and_mounted_whatever_came_of_it(
    pi: Box, host: MountsUnderTest
) -> None:
    assert (pi.root / "usr/lib/systemd/system/systemd-fsck@.service").exists()
    wish = TestMountsInABox().disk()
    checked = pi.root / "run/harmony-checked"
    # In its place, since it waits for udev to tell of the disk.
    check = f"! mountpoint -q {wish.where} && echo %f > /run/harmony-checked; exit 1"
    service = (
        f"[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nExecStart=/bin/sh -c '{check}'\n"
    )
    pi.write("/etc/systemd/system/systemd-fsck@.service", service)
    try:
        await host.bystander.plug_in(wish.what)
        await host.apply_one(wish.model_copy(update={"options": ("ro",)}))
        assert not checked.exists()
        await host.remove_one(wish.where)
        await host.apply_one(wish)
        assert checked.read_text() == f"{wish.what}\n"
        assert host.bystander.mounted(wish.where) is not None
        assert (await host.apply_one(wish)).actions == ()
        await host.remove_one(wish.where)
    finally:
        (pi.root / "etc/systemd/system/systemd-fsck@.service").unlink()
        checked.unlink(missing_ok=True)


async def test_a_directory_at_another_place_is_the_very_same_and_stays_when_that_goes(
    pi: Box, host: MountsUnderTest
) -> None:
    source, where = f"{BELOW}/source", f"{BELOW}/seen"
    await asyncio.to_thread(pi.run, ["mkdir", "-p", source])
    pi.write(f"{source}/it", "v1\n")
    wish = MountPoint(where=where, what=source, type="none", options=("bind", "nosuid"))
    await host.apply_one(wish)
    assert pi.text("cat", f"{where}/it") == "v1"
    assert (await host.apply_one(wish)).actions == ()
    pi.write(f"{source}/it", "v2\n")
    assert pi.text("cat", f"{where}/it") == "v2"

    # Somebody has another directory of the same disk there: the same device, and not what is wished for.
    await asyncio.to_thread(pi.run, ["sh", "-c", f"umount {where} && mount --bind /etc {where}"])
    assert (await host.apply_one(wish)).changed
    assert pi.text("cat", f"{where}/it") == "v2"

    # What was there is moved away, and made anew: seen is still the one that nobody finds any more.
    swap = f"mv {source} {source}.old && mkdir {source} && echo new > {source}/it"
    await asyncio.to_thread(pi.run, ["sh", "-c", swap])
    assert (await host.plan_one(wish)).changed
    await host.apply_one(wish)
    assert pi.text("cat", f"{where}/it") == "new"

    await host.apply_one(wish.model_copy(update={"options": ("bind", "ro")}))
    written = await asyncio.to_thread(pi.run, ["touch", f"{where}/more"], check=False)
    assert b"Read-only" in written.stderr
    await host.remove_one(where)
    assert host.bystander.mounted(where) is None
    assert pi.text("cat", f"{source}/it", f"{source}.old/it") == "new\nv2"
