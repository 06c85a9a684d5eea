"""A disk that is pulled from a real Pi, or that never came: nothing is written beneath its mount point."""

from __future__ import annotations

from harmony_control.fleet import Device
from harmony_core.wire.actual_state import ActualState
from harmony_pi_topology import PiTopology
from harmony_scores import FileScore
from tests.fleet.ground import Host, code_of, statuses, until

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
