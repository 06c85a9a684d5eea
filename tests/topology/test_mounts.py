"""Mount points in memory: the contracts, and what is compared with the kernel's table."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from pathlib import Path

import attrs
import pytest

from harmony_core import File
from harmony_core.change import Change
from harmony_core.errors import DidNotStick, InvalidResource, UnsafePath
from harmony_core.reconciler import AnyReconciler
from harmony_core.resources import MountPoint
from harmony_core.testing import (
    CapabilityContract,
    CapabilityUnderTest,
    FakeMounts,
    MountHostContract,
    MountsUnderTest,
)
from harmony_core.unit_paths import path_of_unit, unit_of_path
from harmony_pi_topology.mounts.in_force import (
    Difference,
    FoundMount,
    FoundSource,
    find_difference,
)
from harmony_pi_topology.mounts.kernel import KernelMounts


class TestFakeMounts(MountHostContract):
    @pytest.fixture
    def host(self) -> MountsUnderTest:
        fake = FakeMounts()
        return MountsUnderTest(mounts=fake, bystander=fake)


def tmpfs(where: str, *options: str) -> MountPoint:
    return MountPoint(where=where, what="tmpfs", type="tmpfs", options=options)


class _Outsider:
    def __init__(self, fake: FakeMounts) -> None:
        self._fake = fake

    def identity(self, key: str) -> object | None:
        found = self._fake.mounts.get(key)
        return tuple(found) if found else None

    def disturb(self, key: str) -> None:
        self._fake.hide(key)

    def make_foreign(self) -> str:
        self._fake.show("/theirs", FoundMount(source="theirs", type="tmpfs", options=()))
        return "/theirs"


class TestMountsAsACapability(CapabilityContract[MountPoint]):
    @pytest.fixture
    def host(self) -> CapabilityUnderTest[MountPoint]:
        fake = FakeMounts()
        fake.write("/full/theirs", b"theirs")

        def again() -> AnyReconciler:
            return fake.reopen()

        return CapabilityUnderTest(
            reconciler=fake,
            restarted=again,
            wish=tmpfs("/it", "size=1m"),
            changed=tmpfs("/it", "size=2m"),
            beside=tmpfs("/beside"),
            refused=tmpfs("/full"),
            outsider=_Outsider(fake),
        )


DISK = FoundSource(
    is_there=True, device="8:1", names=frozenset({"/dev/sda1", "/dev/disk/by-uuid/1"})
)


def found(
    *options: str,
    kind: str = "ext4",
    source: str = "/dev/sda1",
    device: str = "8:1",
    root: str = "/",
) -> FoundMount:
    options = options or ("rw", "relatime")
    if "suid" not in options:
        options = (*options, "nosuid", "nodev")
    return FoundMount(source=source, type=kind, options=options, device=device, root=root)


def disk(*options: str, kind: str = "auto") -> MountPoint:
    return MountPoint(where="/srv/a", what="UUID=1", type=kind, options=options)


@pytest.mark.parametrize(
    ("wanted", "there", "field"),
    [
        (disk(), found(), None),
        (disk(), found(device="8:2", source="/dev/sdb1"), "source"),
        (disk(), found(device="0:40", kind="btrfs"), None),
        (disk(kind="vfat"), found(), "type"),
        (disk(kind="ext3"), found(), None),
        (disk("ro"), found(), "options"),
        (disk(), found("ro", "errors=remount-ro"), "options"),
        (disk(), found("ro", kind="squashfs"), None),
        (disk("noexec"), found(), "options"),
        (disk("noatime", "nosuid"), found("rw", "noatime", "nosuid"), None),
        (disk(), found("rw", "suid"), "options"),
        (disk("suid", "dev"), found("rw", "suid"), None),
        (disk("suid"), found("rw", "nosuid"), "options"),
        (disk("strictatime"), found(), "options"),
        (disk("strictatime"), found("rw"), None),
        (disk("uid=1000"), found("rw", "uid=1000"), None),
        (disk("uid=1000"), found("rw", "uid=0"), "options"),
        (disk("uid=pi"), found("rw", "uid=1000"), None),
        (disk("umask=022"), found("rw", "umask=0022"), None),
        (disk("fmask=0133"), found("rw", "fmask=0022"), "options"),
        (disk("credentials=/etc/x"), found(), None),
        (disk("size=1m"), found("rw", "size=1024k"), None),
        (disk("size=2m"), found("rw", "size=1024k"), "options"),
    ],
)
def test_what_is_mounted_is_compared_as_the_kernel_shows_it(
    wanted: MountPoint, there: FoundMount, field: str | None
) -> None:
    other = find_difference(wanted, there, DISK)
    assert (other and other.field) == field


def test_of_a_bind_the_directory_counts_and_of_a_server_its_path() -> None:
    bind = MountPoint(where="/srv/b", what="/srv/a", type="none", options=("bind",))
    source = FoundSource(is_there=True, device="8:1", root="/srv/a")
    # What is shown of the device itself may have its programs and devices.
    for there in (found(root="/srv/a"), found("rw", "suid", root="/srv/a")):
        assert find_difference(bind, there, source) is None
    assert find_difference(bind, found(root="/etc"), source) == Difference(
        "source", "/srv/a", "/dev/sda1"
    )
    nfs = MountPoint(where="/srv/n", what="nas:/a", type="nfs")
    server = FoundSource(is_there=True, names=frozenset({"nas:/a"}))
    assert find_difference(nfs, found(source="nas:/a/", kind="nfs4"), server) is None
    assert find_difference(nfs, found(source="nas:/b", kind="nfs4"), server) is not None


@pytest.fixture
async def kernel(tmp_path: Path) -> AsyncGenerator[KernelMounts]:
    """A folder with what a kernel shows: / and a disk at /srv/a, on 8:1 and 8:16."""
    for directory in ("proc/1", "sys/dev/block/8:1", "sys/dev/block/8:16", "dev", "srv/a", "etc"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "proc/1/mountinfo").write_text(
        "1 0 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"
        "2 1 8:16 / /srv/a rw,noatime shared:1 - ext4 /dev/sdb rw,errors=remount-ro\n"
        "3 1 8:16 / /srv/a\\040b rw - ext4 /dev/sdb ro\n"
    )
    table = KernelMounts(str(tmp_path), 5.0)
    yield table
    table.close()


async def test_a_disk_that_was_pulled_is_told_though_it_is_mounted_still(
    kernel: KernelMounts, tmp_path: Path
) -> None:
    there = await kernel.look("/srv/a")
    assert there is not None
    assert not there.is_disk_gone
    assert there.options == ("rw", "noatime", "errors=remount-ro")
    (tmp_path / "sys/dev/block/8:16").rmdir()
    gone = await kernel.look("/srv/a")
    assert gone is not None
    assert gone.is_disk_gone


async def test_what_is_mounted_over_what_waits_for_access_is_told_so(
    kernel: KernelMounts, tmp_path: Path
) -> None:
    lines = (tmp_path / "proc/1/mountinfo").read_text().splitlines(keepends=True)
    lines[1] = lines[1].replace("2 1 ", "2 9 ")
    lines.insert(1, "9 1 0:50 / /srv/a rw - autofs systemd-1 rw\n")
    (tmp_path / "proc/1/mountinfo").write_text("".join(lines))
    for where, is_automounted in (("/srv/a", True), ("/srv/a b", False)):
        there = await kernel.look(where)
        assert there is not None
        assert there.is_automounted is is_automounted


@pytest.mark.parametrize(
    ("more", "hides_from"),
    [
        ("", ""),
        ("4 2 0:60 / /srv/a rw - tmpfs theirs rw\n", "/srv/a"),
        ("4 1 0:60 / /srv rw - tmpfs theirs rw\n", "/srv"),
        (
            "4 1 0:60 / /srv rw - tmpfs theirs rw\n5 4 0:61 / /srv/a rw - tmpfs theirs rw\n",
            "/srv/a",
        ),
        ("4 1 0:60 / / rw - tmpfs theirs rw\n", "/"),
        ("4 2 0:60 / /srv/a/beneath rw - tmpfs theirs rw\n", ""),
        ("4 1 0:60 / /srv/ab rw - tmpfs theirs rw\n", ""),
    ],
)
async def test_what_is_mounted_over_it_or_above_it_is_what_is_seen(
    kernel: KernelMounts, tmp_path: Path, more: str, hides_from: str
) -> None:
    with (tmp_path / "proc/1/mountinfo").open("a") as file:
        file.write(more)
    there = await kernel.look("/srv/a")
    assert there is not None
    assert there.hides_from == hides_from
    assert there.source == ("theirs" if hides_from else "/dev/sdb")


async def test_what_is_read_only_on_either_side_is_read_only(kernel: KernelMounts) -> None:
    there = await kernel.look("/srv/a b")
    assert there is not None
    assert there.options == ("ro",)


async def test_the_disk_that_the_device_is_on_is_known_by_its_number(
    kernel: KernelMounts, tmp_path: Path
) -> None:
    os.mknod(tmp_path / "dev/sda1", 0o60600, os.makedev(8, 1))
    os.mknod(tmp_path / "dev/sdb", 0o60600, os.makedev(8, 16))
    (tmp_path / "dev/disk/by-uuid").mkdir(parents=True)
    (tmp_path / "dev/disk/by-uuid/1").symlink_to("../../sda1")
    own = await kernel.look_for_source(disk())
    assert (own.device, own.holds) == ("8:1", ("/",))
    other = await kernel.look_for_source(MountPoint(where="/srv/a", what="/dev/sdb"))
    assert (other.device, other.holds) == ("8:16", ("/srv/a", "/srv/a b"))
    away = await kernel.look_for_source(MountPoint(where="/srv/a", what="UUID=2"))
    assert not away.is_there


def put_in_sys(tmp_path: Path, number: str, at: str, *, is_part: bool = False) -> Path:
    """Have a device of this number below /sys/devices, as the kernel shows it."""
    device = tmp_path / "sys/devices" / at
    device.mkdir(parents=True)
    (device / "dev").write_text(f"{number}\n")
    if is_part:
        (device / "partition").write_text("1\n")
    link = tmp_path / "sys/dev/block" / number
    if link.is_dir():
        link.rmdir()
    link.symlink_to(device)
    return device


@pytest.mark.parametrize(
    ("what", "holds"), [("sda", ("/",)), ("sda1", ("/",)), ("sda2", ()), ("dm-0", ("/",))]
)
async def test_the_whole_disk_and_what_lies_on_its_partition_are_the_device_s_own_too(
    kernel: KernelMounts, tmp_path: Path, what: str, holds: tuple[str, ...]
) -> None:
    put_in_sys(tmp_path, "8:0", "sda")
    root = put_in_sys(tmp_path, "8:1", "sda/sda1", is_part=True)
    put_in_sys(tmp_path, "8:2", "sda/sda2", is_part=True)
    mapped = put_in_sys(tmp_path, "254:0", "dm-0")
    for links, other in ((mapped / "slaves", root), (root / "holders", mapped)):
        links.mkdir()
        (links / other.name).symlink_to(other)
    numbers = {"sda": (8, 0), "sda1": (8, 1), "sda2": (8, 2), "dm-0": (254, 0)}
    os.mknod(tmp_path / "dev" / what, 0o60600, os.makedev(*numbers[what]))
    found = await kernel.look_for_source(MountPoint(where="/srv/b", what=f"/dev/{what}"))
    assert found.holds == holds


async def test_what_is_no_disk_and_what_is_no_directory_is_refused(
    kernel: KernelMounts, tmp_path: Path
) -> None:
    (tmp_path / "dev/file").touch()
    with pytest.raises(InvalidResource, match="is no disk"):
        await kernel.look_for_source(MountPoint(where="/srv/a", what="/dev/file"))
    (tmp_path / "srv/link").symlink_to("/etc")
    with pytest.raises(UnsafePath):
        await kernel.look_beneath("/srv/link")
    bind = MountPoint(where="/srv/b", what="/srv/link", type="none", options=("bind",))
    with pytest.raises(UnsafePath):
        await kernel.look_for_source(bind)


@pytest.mark.parametrize("kind", ["bind", "loop"])
@pytest.mark.parametrize("who", ["others", "a user"])
async def test_what_others_than_root_could_exchange_is_not_shown(
    kernel: KernelMounts, tmp_path: Path, kind: str, who: str
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may give a directory away")
    within = tmp_path / "srv/theirs"
    if kind == "bind":
        (within / "it").mkdir(parents=True)
    else:
        within.mkdir()
        (within / "it").touch()
    fs_type = "none" if kind == "bind" else "ext4"
    wish = MountPoint(where="/srv/b", what="/srv/theirs/it", type=fs_type, options=(kind,))
    assert (await kernel.look_for_source(wish)).is_there
    if who == "others":
        within.chmod(0o777)
    else:
        os.chown(within, 1000, 1000)
    with pytest.raises(UnsafePath, match="could put a link"):
        await kernel.look_for_source(wish)


async def test_a_directory_is_on_what_is_mounted_above_it(kernel: KernelMounts) -> None:
    bind = MountPoint(where="/srv/b", what="/srv/a", type="none", options=("bind",))
    source = await kernel.look_for_source(bind)
    assert (source.device, source.root) == ("8:16", "/")


async def test_a_line_of_fstab_is_found_however_it_is_written(
    kernel: KernelMounts, tmp_path: Path
) -> None:
    (tmp_path / "etc/fstab").write_text(
        "# /dev/x /srv/a ext4\nUUID=1\t/srv/a/  ext4 defaults 0 0\n"
    )
    assert await kernel.find_fstab_line("/srv/a") == "UUID=1 /srv/a/ ext4 defaults 0 0"
    assert await kernel.find_fstab_line("/srv/b") is None


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/srv/my-data", r"srv-my\x2ddata.mount"),
        ("/.a/b", r"\x2ea-b.mount"),
        ("/a b/c%d", r"a\x20b-c\x25d.mount"),
        ("/mnt/\u00e4", r"mnt-\xc3\xa4.mount"),
        ("/", "-.mount"),
    ],
)
def test_a_unit_is_named_by_its_path_and_the_path_is_read_back(path: str, name: str) -> None:
    assert unit_of_path(path, "mount") == name
    assert path_of_unit(name) == path
    assert path_of_unit("a-b.service") is None


@pytest.mark.parametrize(
    ("mountinfo", "cmdline", "holds"),
    [
        ("1 0 0:30 / / rw - btrfs /dev/sda1 rw\n", "quiet", ("/",)),
        ("1 0 0:30 / / rw - overlay overlay rw\n", "quiet root=UUID=1 rootwait", ("/",)),
        ("1 0 8:1 /home /home rw - ext4 /dev/sda1 rw\n", "", ("/home",)),
        ("1 0 8:2 / / rw - ext4 /dev/sda2 rw\n", "root=/dev/sda2", ()),
    ],
    ids=["btrfs", "overlay", "a partition of its own", "another disk"],
)
async def test_the_system_s_disk_is_known_whatever_it_is_seen_through(
    kernel: KernelMounts, tmp_path: Path, mountinfo: str, cmdline: str, holds: tuple[str, ...]
) -> None:
    os.mknod(tmp_path / "dev/sda1", 0o60600, os.makedev(8, 1))
    os.mknod(tmp_path / "dev/sda2", 0o60600, os.makedev(8, 2))
    (tmp_path / "dev/disk/by-uuid").mkdir(parents=True)
    (tmp_path / "dev/disk/by-uuid/1").symlink_to("../../sda1")
    (tmp_path / "proc/1/mountinfo").write_text(mountinfo)
    (tmp_path / "proc/cmdline").write_text(f"{cmdline}\n")
    assert (await kernel.look_for_source(disk())).holds == holds


async def test_a_disk_that_is_mounted_is_had_twice_only_by_mount_points() -> None:
    fake = FakeMounts()
    await fake.plug_in("/dev/sda1")
    one, other = (
        MountPoint(where=where, what="/dev/sda1", type="ext4") for where in ("/srv/1", "/srv/2")
    )
    options = ("rw", "nosuid", "nodev")
    theirs = FoundMount(source="/dev/sda1", type="ext4", options=options, device="/dev/sda1")
    fake.show("/var/lib", theirs)
    for each in await fake.converge([one, other], apply=True):
        assert isinstance(each, UnsafePath)
        assert "/var/lib" in each.message
    fake.hide("/var/lib")
    # A unit that somebody else has put there is taken over, as before.
    fake.write("/etc/systemd/system/srv-1.mount", b"")
    fake.show("/srv/1", theirs)
    for _ in range(2):
        changes = await fake.converge([one, other], apply=True)
        assert all(isinstance(each, Change) for each in changes), changes
    fake.show("/srv/1/containers", theirs)
    assert isinstance((await fake.converge([one], apply=True))[0], Change)


async def test_a_disk_that_the_kernel_has_made_read_only_is_not_mounted_to_be_written() -> None:
    fake = FakeMounts()
    await fake.plug_in("/dev/sda1")
    wish = MountPoint(where="/srv/it", what="/dev/sda1", type="ext4")
    await fake.converge([wish], apply=True)
    saved = attrs.evolve(fake.mounts["/srv/it"][-1], options=("ro",))
    fake.mounts["/srv/it"][-1] = saved
    for apply in (False, True, True):
        (error,) = await fake.converge([wish], apply=apply)
        assert isinstance(error, DidNotStick)
        assert "dmesg" in error.message
        assert "fsck /dev/sda1" in error.message
        assert fake.mounts["/srv/it"] == [saved]
    await fake.unmount("/srv/it")
    assert isinstance((await fake.converge([wish], apply=True))[0], Change)
    assert "rw" in fake.mounts["/srv/it"][-1].options


async def test_what_was_wished_to_be_read_only_is_written_once_that_is_wished_for() -> None:
    fake = FakeMounts()
    await fake.plug_in("/dev/sda1")
    for options in (("ro",), ()):
        wish = MountPoint(where="/srv/it", what="/dev/sda1", type="ext4", options=options)
        assert isinstance((await fake.converge([wish], apply=True))[0], Change)
    assert "rw" in fake.mounts["/srv/it"][-1].options


async def test_what_turns_out_to_be_something_else_is_taken_away_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeMounts()
    show = fake.show

    def show_other(where: str, found: FoundMount) -> None:
        show(where, attrs.evolve(found, source="/dev/mmcblk0", device="179:0"))

    monkeypatch.setattr(fake, "show", show_other)
    await fake.plug_in("/dev/sda1")
    wish = MountPoint(where="/srv/it", what="/dev/sda1", type="ext4")
    (error,) = await fake.converge([wish], apply=True)
    assert isinstance(error, DidNotStick)
    assert error.field == "source"
    assert fake.mounted("/srv/it") is None
    assert not fake.exists("/etc/systemd/system/srv-it.mount")


async def test_what_lies_on_it_goes_while_it_is_mounted_and_the_directory_with_the_mount() -> None:
    fake = FakeMounts()
    await fake.converge([tmpfs("/srv/deep/it")], apply=True)
    (file,) = await fake.files.converge([File(path="/srv/deep/it/x", content=b"x")], apply=True)
    assert isinstance(file, Change)
    (gone,) = await fake.files.remove(["/srv/deep/it/x"], apply=True)
    assert isinstance(gone, Change)
    assert fake.exists("/srv/deep/it")
    await fake.remove(["/srv/deep/it"], apply=True)
    assert not fake.exists("/srv/deep")
