"""A disk that is pulled from a real Pi, or that never came: nothing is written beneath its mount point."""

from __future__ import annotations

from collections.abc import Generator, Mapping

import pytest

from harmony_control.device import Device
from harmony_control.push.entries import Pushable
from harmony_core.resources import Mount
from harmony_core.wire.actual_state import ActualState
from harmony_pi_topology import PiTopology
from harmony_scores import ContainerScore, FileScore, WebAppScore
from tests.box import Bed, Box
from tests.fleet.ground import SERVE, Host, code_of, heard_again, in_shell, statuses, until

APPS = "/etc/harmony-apps"

CONF = FileScore(path="/srv/usb/app/conf", content="x\n")


def fails_for_the_disk(state: ActualState) -> bool:
    return "conf" in state.scores and code_of(state, "conf") == "MountMissing"


def has_converged(state: ActualState) -> bool:
    return statuses(state).get("conf") in {"SUCCESS", "NOOP"}


async def test_a_disk_that_is_pulled_is_missed_within_a_moment_and_goes_on_when_it_is_back(
    device: Device[PiTopology], host: Host
) -> None:
    box = host.box
    box.run(["mkdir", "-p", "/srv/usb"])
    box.run(["mount", "-t", "tmpfs", "-o", "mode=755", "usbdisk", "/srv/usb"])
    await device.put_and_wait({"conf": CONF})
    box.run(["umount", "--lazy", "/srv/usb"])
    await until(device, fails_for_the_disk)
    assert box.run(["find", "/srv/usb", "-mindepth", "1"]).stdout == b""
    box.run(["mount", "-t", "tmpfs", "-o", "mode=755", "usbdisk", "/srv/usb"])
    await until(device, has_converged)
    assert box.run(["cat", "/srv/usb/app/conf"]).stdout == b"x\n"
    await device.remove("conf")
    box.run(["umount", "/srv/usb"])


async def test_a_disk_that_fstab_names_is_waited_for_before_anything_is_written(
    device: Device[PiTopology], host: Host
) -> None:
    box = host.box
    box.run(["mkdir", "-p", "/srv/usb"])
    fstab = "LABEL=usbdisk /srv/usb ext4 defaults,nofail 0 2\n"
    box.run(["sh", "-c", f"printf '{fstab}' >> /etc/fstab"])
    await device.put({"conf": CONF})
    state = await until(device, fails_for_the_disk)
    error = state.scores["conf"].outcome
    assert "LABEL=usbdisk" in str(error)
    assert box.run(["find", "/srv/usb", "-mindepth", "1"]).stdout == b""
    box.run(["mount", "-t", "tmpfs", "-o", "mode=755", "usbdisk", "/srv/usb"])
    await until(device, has_converged)
    await device.remove("conf")
    box.run(["umount", "/srv/usb"])
    box.run(["sed", "-i", "/usbdisk/d", "/etc/fstab"])


DISKS = ("/srv/usb", APPS)


def mount_disks(box: Box) -> None:
    for point in DISKS:
        box.run(["mkdir", "-p", point])
        box.run(["mount", "-t", "tmpfs", "-o", "mode=755", "usbdisk", point])


@pytest.fixture
def apps(bed: Bed, host: Host) -> Generator[Mapping[str, Pushable[PiTopology]]]:
    """An application that writes its data to a disk, and one whose configuration is on one."""
    image = bed.registry.push_busybox("on-a-disk", "1", page="served\n")
    bed.registry.make_known_to(host.box)
    mount_disks(host.box)
    yield {
        "data": ContainerScore(
            name="data",
            image=image,
            user="0",
            command=in_shell("date >> /data/starts", "sleep 3600"),
            mounts=(Mount(source="/srv/usb", target="/data", read_only=False),),
            stop_timeout_s=0,
            settle_s=0.2,
        ),
        "web": WebAppScore(
            name="web",
            image=image,
            command=("sh", "-c", SERVE),
            config="a\n",
            config_path="/etc/web.conf",
            port=80,
            published_port=8080,
        ),
    }
    for point in DISKS:
        host.box.run(["umount", "--lazy", point], check=False)


def all_miss(state: ActualState) -> bool:
    return {code_of(state, each) for each in ("data", "web")} == {"MountMissing"}


def all_serve(state: ActualState) -> bool:
    return set(statuses(state).values()) <= {"SUCCESS", "NOOP"} and len(statuses(state)) == 2


async def test_applications_go_on_without_their_disks_and_are_not_made_anew_beneath(
    device: Device[PiTopology], host: Host, apps: Mapping[str, Pushable[PiTopology]]
) -> None:
    await device.put_and_wait(apps)
    before = host.identities(containers=("data", "web"))
    for point in DISKS:
        host.box.run(["umount", "--lazy", point])
    await until(device, all_miss)
    await heard_again(device)
    assert host.identities(containers=("data", "web")) == before
    assert host.box.run(["find", *DISKS, "-mindepth", "1"]).stdout == b""
    mount_disks(host.box)
    await until(device, all_serve)
    assert host.box.read(f"{APPS}/web/web.conf") == b"a\n"
    await device.remove("data", "web")


async def test_after_a_boot_without_their_disks_applications_wait_for_them(
    device: Device[PiTopology], host: Host, apps: Mapping[str, Pushable[PiTopology]]
) -> None:
    """podman starts at boot what it can: what the agent finds running beneath, it stops."""
    await device.put_and_wait(apps)
    host.box.reboot()
    await until(device, all_miss, within_s=120)
    for name in ("data", "web"):
        found = host.container(name)
        assert found is not None
        assert not found["State"]["Running"]
    starts = host.box.run(["cat", "/srv/usb/starts"], check=False).stdout.splitlines()
    assert len(starts) <= 1, "podman's own start at boot, and no other"
    mount_disks(host.box)
    await until(device, all_serve)
    await device.remove("data", "web")
