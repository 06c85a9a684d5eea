"""A real device is booted anew by its own agent: by systemd-logind, in order, and once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from harmony_control.bus.connection import admin
from harmony_control.bus.requests import Asking
from harmony_control.device import Device
from harmony_core.errors import BootedSince
from harmony_core.outcome import Failure
from harmony_core.wire.actual_state import ActualState
from harmony_pi_topology import PiTopology
from harmony_scores import BootConfigScore, FileScore, KernelModuleScore, RebootScore
from tests.box import Box
from tests.fleet.ground import AGENT, ControlPlane, allowed, code_of, heard_again, until

CONFIG, CMDLINE = "/boot/firmware/config.txt", "/boot/firmware/cmdline.txt"
LINE = "console=serial0,115200 root=PARTUUID=1-02 rootwait\n"
NOW = RebootScore(when="now")


def reason(state: ActualState) -> str:
    return next((each.reason for each in state.conditions if each.type == "RebootRequired"), "")


def lay_ground(box: Box) -> None:
    """What a Pi boots with; and, since a box has its host's kernel, that it was booted with it."""
    box.run(["mkdir", "-p", "/boot/firmware"])
    box.write(CONFIG, "[all]\narm_64bit=1\n")
    box.write(CMDLINE, LINE)
    box.write("/run/cmdline", LINE.replace("serial0", "ttyS0"))
    box.run(["mount", "--bind", "/run/cmdline", "/proc/cmdline"])
    box.run(["systemctl", "restart", AGENT])


async def test_it_is_booted_once_when_nobody_inhibits_it_and_looked_at_afterwards(
    plane: ControlPlane, device: Device[PiTopology], pi: Box
) -> None:
    lay_ground(pi)
    # Debian's own word, without a rule.
    pi.write("/run/reboot-required", "*** System restart required ***\n")
    pi.write("/run/reboot-required.pkgs", "linux-image-rpi-v8\nlinux-image-rpi-v8\n")
    state = await until(device, lambda state: reason(state) == "NoRule")
    said = await plane.harmony("status", pi.name)
    assert "RebootRequired" in said.out
    assert "the system (linux-image-rpi-v8)" in said.out
    pi.run(["rm", "/run/reboot-required", "/run/reboot-required.pkgs"])
    await until(device, lambda state: not reason(state))

    before = state.boot_id
    inhibit = ["systemd-inhibit", "--what=shutdown", "--who=apt", "--why=upgrades", "sleep", "1000"]
    pi.run(["systemd-run", "--unit=upgrading", *inhibit])
    pi.wait_for(["sh", "-c", "systemd-inhibit --list | grep -q apt"])
    await device.put(
        {
            "config": BootConfigScore(settings={"gpu_mem": "64"}),
            "line": BootConfigScore(words=("logo.nologo",)),
            "reboots": NOW,
        }
    )
    await until(device, lambda state: reason(state) == "Inhibited")
    told = next(each for each in (await _state(device)).conditions if each.type == "RebootRequired")
    assert "config (" in told.message
    assert "line (" in told.message
    assert told.message.endswith("apt: upgrades")

    pi.run(["systemctl", "stop", "upgrading"])
    await asyncio.to_thread(pi.await_end)
    await asyncio.to_thread(pi.power_cut)
    # Now with the line of the host's kernel, which has none of these words.
    await asyncio.to_thread(pi.power_on)
    state = await until(
        device, lambda state: state.boot_id != before and code_of(state, "line") == "NotInForce"
    )
    outcome = state.scores["line"].outcome
    assert isinstance(outcome, Failure)
    assert "/boot/firmware/cmdline.txt has logo.nologo, and the device was booted without" in (
        outcome.error.message
    )
    state = await until(device, lambda state: code_of(state, "config") in {"SUCCESS", "NOOP"})
    assert not reason(state)
    assert code_of(state, "reboots") in {"SUCCESS", "NOOP"}
    await heard_again(device)
    assert (await _state(device)).boot_id == state.boot_id, "it does not boot again and again"
    (asked,) = await _told(plane, pi.name, lambda each: "rebooting" in each["actions"][0])
    assert asked["score"] == "reboots"
    assert "because a boot is awaited by config (" in asked["actions"][0]


LOCKED = (
    "import fcntl, time; file = open('/var/lib/dpkg/lock-frontend', 'w'); fcntl.lockf(file, fcntl.LOCK_EX); "
    "print('locked', flush=True); time.sleep(1000)"
)


async def test_it_is_booted_by_command_once_whoever_installs_has_ended(
    plane: ControlPlane, device: Device[PiTopology], pi: Box
) -> None:
    await device.push(FileScore(path="/run/motd", content="hello\n"), id="motd")
    before = await _state(device)
    pi.run(["systemd-run", "--unit=installing", "python3", "-c", LOCKED])
    pi.wait_for(["sh", "-c", "journalctl -u installing | grep -q locked"])
    postponed = await plane.harmony("reboot", pi.name, "--no-wait")
    assert postponed.status == 4
    assert "dpkg: packages are being installed or removed (process" in postponed.err

    running = asyncio.create_task(plane.harmony("reboot", pi.name, "--timeout", "300"))
    await asyncio.sleep(2)
    assert not running.done()
    pi.run(["systemctl", "stop", "installing"])
    await asyncio.to_thread(pi.await_end)
    await asyncio.to_thread(pi.power_cut)
    await asyncio.to_thread(pi.power_on)
    said = await running
    assert said.status == 0, said
    last = said.out.splitlines()[-1]
    assert last.split() == [pi.name, "converged,", "in", "another", "boot"]
    state = await _state(device)
    assert state.boot_id != before.boot_id
    assert pi.read("/run/motd") == b"hello\n", "what a boot takes away is there again"

    # What was asked of the boot before ends no other.
    async with admin(plane.home) as client:
        with pytest.raises(BootedSince, match=before.boot_id):
            await Asking(plane.home, client, pi.name).reboot(before.boot_id, if_needed=False)
    said = await plane.harmony("reboot", pi.name, "--if-needed")
    assert (said.status, "not needed" in said.out) == (0, True)
    await heard_again(device)
    assert (await _state(device)).boot_id == state.boot_id
    (asked,) = await _told(plane, pi.name, lambda each: each["why"] == "request")
    assert asked["resource"] == "reboot:device"
    assert asked["signed_by"]


async def test_a_module_that_is_loaded_otherwise_awaits_a_boot(
    device: Device[PiTopology], pi: Box
) -> None:
    """Of a box, the modules are its host's: one that is built in there stands for one that is loaded."""
    await allowed(pi, device, "any")
    absent = KernelModuleScore(name="printk", parameters={"time": "2"})
    taken = await device.put({"module": absent})
    outcome = (await device.wait(taken)).scores["module"].outcome
    assert isinstance(outcome, Failure)
    assert "printk: this device has no modprobe; install the package kmod" in outcome.error.message

    pi.run(["sh", "-c", "mkdir -p /lib/modules/$(uname -r)"])
    pi.write("/usr/local/sbin/modprobe", "#!/bin/sh\n", mode=0o755)
    await until(device, lambda state: code_of(state, "module") == "SUCCESS", within_s=90)
    assert pi.read("/etc/modprobe.d/harmony-printk.conf") == b"options printk time=2\n"
    state = await until(device, lambda state: reason(state) == "NoRule")
    told = next(each for each in state.conditions if each.type == "RebootRequired")
    assert "the system (kernel module printk)" in told.message
    await device.remove("module")
    assert not (pi.root / "etc/modprobe.d/harmony-printk.conf").exists()
    pi.run(["rm", "/run/reboot-required", "/run/reboot-required.pkgs"])


async def _told(
    plane: ControlPlane, name: str, is_meant: Callable[[dict[str, Any]], bool]
) -> list[dict[str, Any]]:
    """Return the events that are meant, once there are any: of an agent that was ended before it could note
    that it has asked for a boot, that comes once it knows what the boot has helped."""
    async with asyncio.timeout(60):
        while True:
            events = (await plane.harmony("events", name, "--json")).documents
            if found := [each for each in events if is_meant(each)]:
                return found
            await asyncio.sleep(0.5)


async def _state(device: Device[PiTopology]) -> ActualState:
    state = await device.state()
    assert state is not None
    return state
