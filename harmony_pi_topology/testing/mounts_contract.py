"""The contract of `MountHost`: what every reconciler of mount points passes, fake and real.

::

    class TestMyMounts(MountHostContract):
        @pytest.fixture
        def host(self) -> MountsUnderTest: ...
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Protocol

import attrs
import pytest

from harmony_core.change import Change
from harmony_core.errors import HardwareMissing, InUse, NotOurs, UnsafePath
from harmony_core.reconciler import Reconciler
from harmony_core.resources import AwaitsAccess, Mounted, MountPoint, MountState

from .hearing import Hearer

__all__ = ["MountBystander", "MountHostContract", "MountsUnderTest"]


class MountBystander(Protocol):
    """Somebody else on the same device."""

    has_automount: bool
    """Whether this device has what mounts at the first access."""

    async def mount(self, what: str, where: str) -> None:
        """Mount a tmpfs of this name, as a person does."""

    async def unmount(self, where: str) -> None: ...

    async def remount(self, where: str, option: str) -> None:
        """Mount with another option what is mounted there already."""

    async def use(self, where: str) -> None:
        """Have a process whose directory that is, until `leave`."""

    async def need(self, where: str) -> None:
        """Have a unit that says it needs the mount, and has nothing there open, until `leave`."""

    async def leave(self) -> None: ...

    async def access(self, where: str) -> None:
        """Look into the directory."""

    def mounted(self, where: str) -> tuple[str, str] | None:
        """Return the source and the type of what is seen there; None where nothing is mounted."""
        ...

    def write(self, path: str, content: bytes) -> None:
        """Write a file, and make its directories."""

    def delete(self, path: str) -> None: ...

    def exists(self, path: str) -> bool: ...

    def read(self, path: str) -> bytes | None: ...

    async def plug_in(self, disk: str) -> None:
        """Have a disk with a file system at this path below /dev."""

    async def pull(self, disk: str) -> None:
        """Take it away, whatever is mounted from it."""


@attrs.frozen(kw_only=True)
class MountsUnderTest:
    """A reconciler of mount points, and somebody else on the same device."""

    mounts: Reconciler[MountPoint, MountState]
    bystander: MountBystander

    async def apply_one(self, mount: MountPoint) -> Change:
        return _change((await self.mounts.converge([mount], apply=True))[0])

    async def plan_one(self, mount: MountPoint) -> Change:
        return _change((await self.mounts.converge([mount], apply=False))[0])

    async def expect_refusal(self, mount: MountPoint) -> Exception:
        (error,) = await self.mounts.converge([mount], apply=True)
        assert isinstance(error, Exception), error
        return error

    async def remove_one(self, where: str) -> Change:
        return _change((await self.mounts.remove([where], apply=True))[0])


def _change(result: Change | Exception) -> Change:
    if isinstance(result, Exception):
        raise result
    return result


class MountHostContract:
    """Subclass with a name that pytest collects, and a fixture `host`."""

    BELOW: ClassVar[str] = "/srv/harmony-contract"
    DISK: ClassVar[str] = "/dev/harmony-contract"
    """A disk that may be plugged in."""

    @pytest.fixture
    @abstractmethod
    def host(self) -> MountsUnderTest:
        """Return a device on which there is nothing at `BELOW`, and no disk at `DISK`."""

    def tmpfs(self, *options: str, name: str = "scratch") -> MountPoint:
        return MountPoint(where=f"{self.BELOW}/{name}", what="tmpfs", type="tmpfs", options=options)

    def disk(self) -> MountPoint:
        return MountPoint(where=f"{self.BELOW}/disk", what=self.DISK, type="ext4")

    async def test_it_is_mounted_told_as_seen_and_taken_away_with_its_directories(
        self, host: MountsUnderTest
    ) -> None:
        wish = self.tmpfs("size=1m", "nosuid", "nodev", name="deep/my-scratch")
        assert await host.mounts.observe(wish.where) is None
        planned = await host.plan_one(wish)
        assert not host.bystander.exists(self.BELOW)
        change = await host.apply_one(wish)
        assert change.actions == planned.actions == ("created its file", "enabled", "mounted")
        assert host.bystander.mounted(wish.where) == ("tmpfs", "tmpfs")
        found = await host.mounts.observe(wish.where)
        assert change.after == found
        assert isinstance(found, Mounted)
        assert {"nosuid", "nodev"} <= set(found.options.split(","))
        assert (await host.apply_one(wish)).actions == ()
        (leaving,) = await host.mounts.remove([wish.where], apply=False)
        removed = await host.remove_one(wish.where)
        assert removed.actions == _change(leaving).actions
        assert removed.actions[0] == "unmounted"
        assert host.bystander.mounted(wish.where) is None
        assert not host.bystander.exists(self.BELOW)
        assert (await host.remove_one(wish.where)).actions == ()

    async def test_another_option_is_brought_about_and_files_on_a_used_one_stay(
        self, host: MountsUnderTest
    ) -> None:
        await host.apply_one(self.tmpfs("size=1m"))
        other = self.tmpfs("size=2m", "noexec")
        await host.bystander.use(other.where)
        error = await host.expect_refusal(other)
        await host.bystander.leave()
        assert isinstance(error, InUse), error
        assert "process" in error.message
        change = await host.apply_one(other)
        assert "mounted" in change.actions
        assert any(each.startswith("options ") for each in change.actions)
        assert isinstance(change.after, Mounted)
        assert "noexec" in change.after.options.split(",")
        assert (await host.apply_one(other)).actions == ()

    async def test_what_somebody_has_unmounted_is_mounted_again(
        self, host: MountsUnderTest
    ) -> None:
        told = Hearer()
        await host.apply_one(self.tmpfs())
        await host.mounts.watch([self.tmpfs().where], told)
        await host.bystander.unmount(self.tmpfs().where)
        await told.hears(self.tmpfs().where)
        assert (await host.apply_one(self.tmpfs())).actions == ("mounted",)

    async def test_what_somebody_has_mounted_over_it_is_unmounted(
        self, host: MountsUnderTest
    ) -> None:
        await host.apply_one(self.tmpfs())
        await host.bystander.unmount(self.tmpfs().where)
        await host.bystander.mount("theirs", self.tmpfs().where)
        change = await host.apply_one(self.tmpfs())
        assert change.actions == ("source theirs → tmpfs", "unmounted", "mounted")
        assert host.bystander.mounted(self.tmpfs().where) == ("tmpfs", "tmpfs")

    @pytest.mark.parametrize("above", [False, True])
    async def test_what_somebody_has_mounted_on_top_of_it_is_told_and_stays(
        self, host: MountsUnderTest, above: bool
    ) -> None:
        wish = self.tmpfs()
        at = self.BELOW if above else wish.where
        await host.apply_one(wish)
        # Named as ours is: what is seen there is theirs all the same.
        await host.bystander.mount("tmpfs", at)
        for apply in (False, True):
            for error in (
                *(await host.mounts.converge([wish], apply=apply)),
                *(await host.mounts.remove([wish.where], apply=apply)),
            ):
                assert isinstance(error, NotOurs), error
                assert f"run: umount {at}" in error.message
        assert host.bystander.mounted(at) == ("tmpfs", "tmpfs")
        await host.bystander.unmount(at)
        assert host.bystander.mounted(wish.where) == ("tmpfs", "tmpfs")
        assert (await host.apply_one(wish)).actions == ()
        assert "unmounted" in (await host.remove_one(wish.where)).actions

    async def test_what_somebody_has_remounted_is_mounted_as_wished_though_a_unit_needs_it(
        self, host: MountsUnderTest
    ) -> None:
        wish = self.tmpfs("size=1m")
        await host.apply_one(wish)
        await host.bystander.need(wish.where)
        await host.bystander.remount(wish.where, "size=3m")
        change = await host.apply_one(wish)
        assert "mounted" in change.actions
        assert isinstance(change.after, Mounted)
        assert any(each in change.after.options.split(",") for each in ("size=1m", "size=1024k"))
        assert (await host.apply_one(wish)).actions == ()
        # Who uses it keeps it; and of the unit that needs it, nothing is stopped for that.
        await host.bystander.leave()
        await host.bystander.use(wish.where)
        await host.bystander.remount(wish.where, "size=3m")
        error = await host.expect_refusal(wish)
        await host.bystander.leave()
        assert isinstance(error, InUse), error
        assert "process" in error.message
        assert "mounted" in (await host.apply_one(wish)).actions

    async def test_a_directory_with_files_in_it_is_not_mounted_over_unless_wished_for(
        self, host: MountsUnderTest
    ) -> None:
        theirs = f"{self.tmpfs().where}/theirs"
        host.bystander.write(theirs, b"theirs")
        error = await host.expect_refusal(self.tmpfs())
        assert isinstance(error, UnsafePath)
        assert "over_files" in error.message
        assert host.bystander.mounted(self.tmpfs().where) is None
        await host.apply_one(self.tmpfs().model_copy(update={"over_files": True}))
        assert host.bystander.mounted(self.tmpfs().where) is not None
        await host.remove_one(self.tmpfs().where)
        assert host.bystander.read(theirs) == b"theirs"

    async def test_a_file_in_the_way_is_refused_and_stays(self, host: MountsUnderTest) -> None:
        host.bystander.write(self.tmpfs().where, b"theirs")
        assert isinstance(await host.expect_refusal(self.tmpfs()), UnsafePath)
        assert host.bystander.read(self.tmpfs().where) == b"theirs"

    async def test_a_line_of_fstab_for_the_same_place_is_refused_by_its_text(
        self, host: MountsUnderTest
    ) -> None:
        before = host.bystander.read("/etc/fstab")
        line = f"tmpfs {self.tmpfs().where} tmpfs noauto 0 0"
        host.bystander.write("/etc/fstab", f"# none\n{line}\n".encode())
        try:
            error = await host.expect_refusal(self.tmpfs())
        finally:
            host.bystander.write("/etc/fstab", before or b"")
        assert isinstance(error, NotOurs)
        assert line in error.message
        assert host.bystander.mounted(self.tmpfs().where) is None

    async def test_a_stranger_s_mount_is_refused_and_stays(self, host: MountsUnderTest) -> None:
        await host.bystander.mount("theirs", self.tmpfs().where)
        for error in (
            await host.expect_refusal(self.tmpfs()),
            *(await host.mounts.remove([self.tmpfs().where], apply=True)),
        ):
            assert isinstance(error, NotOurs)
            assert "umount" in error.message
        assert host.bystander.mounted(self.tmpfs().where) == ("theirs", "tmpfs")

    async def test_one_that_is_used_is_not_removed_and_who_uses_it_is_said(
        self, host: MountsUnderTest
    ) -> None:
        await host.apply_one(self.tmpfs())
        await host.bystander.use(self.tmpfs().where)
        (error,) = await host.mounts.remove([self.tmpfs().where], apply=True)
        await host.bystander.leave()
        assert isinstance(error, InUse), error
        assert "process" in error.message
        assert host.bystander.mounted(self.tmpfs().where) == ("tmpfs", "tmpfs")
        assert "unmounted" in (await host.remove_one(self.tmpfs().where)).actions

    async def test_a_unit_that_needs_it_is_said_and_goes_on(self, host: MountsUnderTest) -> None:
        await host.apply_one(self.tmpfs())
        await host.bystander.need(self.tmpfs().where)
        (error,) = await host.mounts.remove([self.tmpfs().where], apply=True)
        assert isinstance(error, InUse), error
        assert ".service" in error.message
        assert host.bystander.mounted(self.tmpfs().where) == ("tmpfs", "tmpfs")
        await host.bystander.leave()
        assert "unmounted" in (await host.remove_one(self.tmpfs().where)).actions

    async def test_a_disk_that_is_not_there_is_told_and_mounted_once_it_is(
        self, host: MountsUnderTest
    ) -> None:
        told = Hearer()
        error = await host.expect_refusal(self.disk())
        assert isinstance(error, HardwareMissing)
        assert self.DISK in error.message
        assert isinstance(await host.expect_refusal(self.disk()), HardwareMissing)
        await host.mounts.watch([self.disk().where], told)
        await host.bystander.plug_in(self.DISK)
        await told.hears(self.disk().where)
        await host.apply_one(self.disk())
        assert host.bystander.mounted(self.disk().where) is not None
        assert (await host.apply_one(self.disk())).actions == ()

    async def test_a_disk_that_is_pulled_is_told_and_mounted_again_when_it_is_back(
        self, host: MountsUnderTest
    ) -> None:
        await host.bystander.plug_in(self.DISK)
        await host.apply_one(self.disk())
        host.bystander.write(f"{self.disk().where}/kept", b"kept")
        await host.bystander.pull(self.DISK)
        assert not isinstance(await host.mounts.observe(self.disk().where), Mounted)
        assert isinstance(await host.expect_refusal(self.disk()), HardwareMissing)
        await host.bystander.plug_in(self.DISK)
        await host.apply_one(self.disk())
        assert host.bystander.read(f"{self.disk().where}/kept") == b"kept"

    async def test_it_waits_for_access_where_that_is_wished_for(
        self, host: MountsUnderTest
    ) -> None:
        if not host.bystander.has_automount:
            pytest.skip("this kernel, or this box, has no autofs")
        wish = self.tmpfs().model_copy(update={"automount": True})
        change = await host.apply_one(wish)
        assert change.after == AwaitsAccess()
        await host.bystander.access(wish.where)
        assert host.bystander.mounted(wish.where) == ("tmpfs", "tmpfs")
        assert (await host.apply_one(wish)).actions == ()
        await host.remove_one(wish.where)
        assert host.bystander.mounted(wish.where) is None

    async def test_whether_it_waits_for_access_may_change_while_it_is_mounted(
        self, host: MountsUnderTest
    ) -> None:
        if not host.bystander.has_automount:
            pytest.skip("this kernel, or this box, has no autofs")
        plain, waiting = self.tmpfs(), self.tmpfs().model_copy(update={"automount": True})
        await host.apply_one(plain)
        change = await host.apply_one(waiting)
        assert "unmounted" in change.actions
        assert change.after == AwaitsAccess()
        assert (await host.apply_one(waiting)).actions == ()
        await host.bystander.access(waiting.where)
        change = await host.apply_one(plain)
        assert "mounted" in change.actions
        assert isinstance(change.after, Mounted)
        assert (await host.apply_one(plain)).actions == ()
        await host.apply_one(waiting)
        change = await host.apply_one(plain)
        assert isinstance(change.after, Mounted)
        await host.remove_one(plain.where)
        assert host.bystander.mounted(plain.where) is None
