"""MountScore: what it takes, what its unit says, and what a device lets it do."""

from __future__ import annotations

import re

import pytest
from pydantic import ValidationError

from harmony_agent.apply.policy import DevicePolicy
from harmony_agent.policy_toml import PolicyTable
from harmony_core.resources import MountPoint
from harmony_core.testing import FakePi, interpret_twice
from harmony_pi_topology.mounts.unit import make_automount_unit, make_mount_unit
from harmony_scores import MountScore

UUID = "UUID=1c2f-33"


async def test_it_is_mounted_once() -> None:
    pi = FakePi()
    score = MountScore(what="nas:/films", where="/srv/films", type="nfs", options=("ro",))
    first, second = await interpret_twice(score, pi.offers)
    assert (first.status, second.status) == ("SUCCESS", "NOOP")
    assert pi.mounts.mounted("/srv/films") == ("nas:/films", "nfs")


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"what": "sda1"}, "names no device"),
        ({"what": "/srv/a"}, "is no device; add bind"),
        ({"what": "/srv/a", "type": "none"}, "write both, or neither"),
        ({"what": UUID, "options": ("bind",)}, "write both, or neither"),
        ({"what": UUID, "type": "none", "options": ("bind",)}, "the path of a directory"),
        ({"what": "nas:/a"}, "write which it is"),
        ({"what": "LABEL=a/b"}, "no slash"),
        ({"what": "/dev/../etc"}, "'..'"),
        ({"what": "a\nb"}, "one line"),
        ({"what": 'LABEL="x"'}, "quotes"),
        ({"what": "\ud800"}, "unicode"),
        ({"options": ("noauto",)}, "at_boot: false"),
        ({"options": ("nofail",)}, "nofail: true"),
        ({"options": ("x-systemd.automount",)}, "/etc/fstab alone"),
        ({"options": ("rw,noatime",)}, "one option each"),
        ({"options": ("a b",)}, "one option each"),
        ({"options": ("remount",)}, "by itself"),
        ({"options": ("rbind",)}, "write bind"),
        ({"options": ("loop", "offset=1048576")}, "is for an image"),
        ({"what": "/dev/mmcblk0", "options": ("offset=512",)}, "is for an image"),
        ({"what": "image", "type": "ext4", "options": ("sizelimit=512",)}, "is for an image"),
        ({"what": "/srv/a.img", "options": ("loop=/dev/loop0",)}, "write loop"),
        ({"type": "btrfs", "options": ("device=/dev/mmcblk0p2",)}, "another disk"),
        ({"type": "xfs", "options": ("logdev=/dev/mmcblk0p2",)}, "another disk"),
        ({"options": ("users",)}, "nobody else's"),
        *(
            ({"what": "//nas/a", "type": "cifs", "options": (each,)}, "credentials=")
            for each in ("password=hunter2", "password2=hunter2", "username=kiosk%hunter2")
        ),
        ({"what": "nas:/a", "type": "ceph", "options": ("secret=hunter2",)}, "secretfile="),
        ({"type": "Ext4"}, "the type of a file system"),
        ({"where": "/srv/a\\"}, "backslashes"),
        ({"where": "/srv/a "}, "spaces around"),
        ({"where": '/srv/"a"'}, "quotes"),
        ({"where": "srv"}, "not an absolute path"),
        ({"where": "/" + "-" * 70}, "longer than systemd allows"),
    ],
)
def test_what_cannot_be_mounted_is_refused_with_what_to_write(
    fields: dict[str, object], why: str
) -> None:
    with pytest.raises(ValidationError, match=re.escape(why)) as refused:
        MountScore.model_validate({"what": UUID, "where": "/srv/data", **fields})
    assert "hunter2" not in str(refused.value.errors()[0]["msg"])


def test_whom_a_server_lets_in_is_no_option_of_fstab() -> None:
    mount = MountPoint(what="//nas/a", where="/srv/a", type="cifs", options=("user=kiosk",))
    assert "user=kiosk" in (make_mount_unit(mount).content or "")


def test_a_disk_is_named_as_systemd_has_it_and_mounted_whenever_it_is_plugged_in() -> None:
    mount = MountPoint(what="LABEL=my disk", where="/srv/my-data", options=("noatime",))
    unit = make_mount_unit(mount)
    assert unit.name == r"srv-my\x2ddata.mount"
    assert unit.enabled is True
    assert (unit.content or "").splitlines() == [
        "[Unit]",
        "Description=/srv/my-data",
        "ConditionDirectoryNotEmpty=!/srv/my-data",
        r"Wants=systemd-fsck@dev-disk-by\x2dlabel-my\x5cx20disk.service",
        r"After=systemd-fsck@dev-disk-by\x2dlabel-my\x5cx20disk.service",
        "[Mount]",
        r"What=/dev/disk/by-label/my\x20disk",
        "Where=/srv/my-data",
        "Options=noatime,nosuid,nodev,nofail",
        "[Install]",
        "WantedBy=local-fs.target",
        r"WantedBy=dev-disk-by\x2dlabel-my\x5cx20disk.device",
    ]


@pytest.mark.parametrize(
    ("fields", "lines"),
    [
        ({"what": UUID, "nofail": False}, {"RequiredBy=local-fs.target"}),
        ({"what": "nas:/a", "type": "nfs"}, {"WantedBy=remote-fs.target", "Type=nfs"}),
        ({"what": UUID, "options": ("_netdev",)}, {"WantedBy=remote-fs.target"}),
        ({"what": "//nas/a%b", "type": "cifs"}, {"What=//nas/a%%b"}),
        (
            {"what": "tmpfs", "type": "tmpfs", "options": ("size=50%",)},
            {"Options=size=50%%,nosuid,nodev,nofail"},
        ),
    ],
)
def test_its_unit_says_when_and_how_it_is_mounted(
    fields: dict[str, object], lines: set[str]
) -> None:
    mount = MountPoint.model_validate({"where": "/srv/data", **fields})
    assert lines <= set((make_mount_unit(mount).content or "").splitlines())


def test_one_that_waits_for_access_is_not_enabled_but_what_waits_is() -> None:
    mount = MountPoint(what=UUID, where="/srv/data", automount=True, at_boot=False)
    assert make_mount_unit(mount).enabled is None
    assert "[Install]" not in (make_mount_unit(mount).content or "")
    waiting = make_automount_unit(mount)
    assert (waiting.name, waiting.enabled, waiting.state) == (
        "srv-data.automount",
        False,
        "running",
    )


def point(what: str, where: str, *options: str) -> MountPoint:
    kind = "none" if "bind" in options else "ext4"
    return MountPoint(what=what, where=where, type=kind, options=options)


@pytest.mark.parametrize(
    ("mount", "why"),
    [
        (point(UUID, "/srv"), "came with the system"),
        (point(UUID, "/etc/apt"), "keeps this device running"),
        (point(UUID, "/var/lib"), "the agent itself"),
        (point(UUID, "/var/lib/harmony"), "the agent itself"),
        (point(UUID, "/home/ada"), "keeps this device running"),
        (point("/etc", "/srv/a", "bind"), "hand out the device"),
        (point("/var/lib/harmony", "/srv/a", "bind"), "the agent itself"),
        (MountPoint(what="x", where="/srv/a", type="fuse.x"), "as root"),
        (MountPoint(what="x", where="/srv/a", type="overlay"), "as root"),
    ],
)
def test_where_and_of_what_no_mount_may_be(mount: MountPoint, why: str) -> None:
    policy = DevicePolicy("/var/lib/harmony", rules=PolicyTable(preset="open"))
    assert why in (policy.refusal(mount) or "")


def test_a_place_of_the_agent_s_is_known_by_an_escaped_name_too() -> None:
    policy = DevicePolicy("/var/lib/my-agent")
    assert "the agent itself" in (policy.refusal(point(UUID, "/var/lib/my-agent")) or "")


def test_elsewhere_it_may_be_and_in_an_appliance_where_it_is_listed() -> None:
    mount, shown = point(UUID, "/srv/data"), point("/srv/a", "/srv/b", "bind")
    for each in (mount, shown):
        assert DevicePolicy("/var/lib/harmony").refusal(each) is None
    closed = PolicyTable(preset="appliance", paths=("/srv",))
    assert "srv-data.mount" in (DevicePolicy(rules=closed).refusal(mount) or "")
    listed = PolicyTable(preset="appliance", paths=("/srv",), units=("srv-*",))
    assert "mounts" in (DevicePolicy(rules=listed).refusal(shown) or "")
    units = ("srv-data.mount", "srv-data.automount")
    listed = PolicyTable(preset="appliance", paths=("/srv",), units=units)
    assert "devices" in (DevicePolicy(rules=listed).refusal(mount) or "")
    listed = listed.model_copy(update={"devices": (UUID,)})
    assert DevicePolicy(rules=listed).refusal(mount) is None


@pytest.mark.parametrize(
    ("what", "kind", "is_refused"),
    [
        (UUID, "ext4", True),
        ("/dev/sda1", "auto", True),
        ("//nas/photos", "cifs", True),
        ("share", "9p", True),
        ("nas:/films", "nfs", False),
        ("scratch", "tmpfs", False),
    ],
)
def test_an_appliance_lists_which_disk_and_which_server_may_be_mounted(
    what: str, kind: str, *, is_refused: bool
) -> None:
    rules = PolicyTable(preset="appliance", paths=("/srv",), units=("*",), devices=("nas:/*",))
    mount = MountPoint(what=what, where="/srv/data", type=kind)
    assert ((DevicePolicy(rules=rules).refusal(mount)) is not None) == is_refused


@pytest.mark.parametrize(
    ("given", "in_force"),
    [
        ((), ("nosuid", "nodev")),
        (("suid",), ("suid", "nodev")),
        (("nodev", "dev", "noatime"), ("nodev", "dev", "noatime", "nosuid")),
    ],
)
def test_what_is_brought_along_gives_nobody_root_unless_that_is_said(
    given: tuple[str, ...], in_force: tuple[str, ...]
) -> None:
    assert point(UUID, "/srv/a", *given).options_in_force == in_force
    assert point("/srv/b", "/srv/a", "bind", *given).options_in_force == ("bind", *given)
