"""Mounts, swap, ssh keys, sudo rules and a firewall by a real agent: who may log in, and do what, is asked of
sshd and sudo; what is swapped to, and what is filtered, of the kernel.
"""

from __future__ import annotations

import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harmony_control.device import Device
from harmony_control.push.entries import Entry, Pushable
from harmony_core import FirewallRule
from harmony_pi_topology import PiTopology
from harmony_scores import (
    AuthorizedKeysScore,
    DirectoryScore,
    FileScore,
    FirewallScore,
    MountScore,
    SudoRuleScore,
    SwapScore,
    UserScore,
)
from tests.box import Box
from tests.fleet.ground import ControlPlane, Host, allowed, code_of, pushed, statuses, until

KEYS = "/home/ada/.ssh/authorized_keys"
RULE = "/etc/sudoers.d/web"


class Ada:
    """Who has a key, and logs in by ssh."""

    def __init__(self, box: Box, directory: Path) -> None:
        self._box = box
        self._key = directory / "key"
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "ada", "-f", str(self._key)]
        subprocess.run(command, check=True)
        self.public = (directory / "key.pub").read_text().strip()

    def runs(self, command: str) -> subprocess.CompletedProcess[str]:
        options = [
            *("-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "ConnectTimeout=10"),
            *("-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-i", str(self._key)),
        ]
        return subprocess.run(
            ["ssh", *options, f"ada@{self._box.address}", command],
            capture_output=True,
            text=True,
            check=False,
        )


def entries(ada: Ada) -> dict[str, Pushable[PiTopology]]:
    return {
        "user": UserScore(name="ada", home="/home/ada", shell="/bin/sh"),
        "home": Entry(DirectoryScore(path="/home/ada", owner="ada", group="ada"), after=["user"]),
        "keys": Entry(
            AuthorizedKeysScore(user="ada", authorized_keys=(ada.public,)), after=["home"]
        ),
        "sudo": Entry(
            SudoRuleScore(name="web", user="ada", commands=("/usr/bin/id -u",), password=False),
            after=["user"],
        ),
        "scratch": MountScore(what="tmpfs", where="/srv/my-scratch", type="tmpfs"),
        "page": Entry(FileScore(path="/srv/my-scratch/page", content="x\n"), after=["scratch"]),
    }


def is_mounted(box: Box) -> bool:
    return " /srv/my-scratch " in box.read("/proc/1/mountinfo").decode()


@pytest.mark.timeout(180)
async def test_who_has_a_key_logs_in_and_does_what_the_rule_says_until_it_goes(
    device: Device[PiTopology], host: Host, tmp_path: Path
) -> None:
    box = host.box
    await allowed(box, device, "any")
    box.run(["systemctl", "start", "ssh.service"])
    ada = Ada(box, tmp_path)
    wanted = entries(ada)
    state = await device.put_and_wait(wanted)
    assert set(statuses(state).values()) <= {"SUCCESS", "NOOP"}, state.scores
    assert ada.runs("sudo -n id -u").stdout == "0\n", ada.runs("sudo -n id -u").stderr
    assert ada.runs("sudo -n cat /etc/shadow").returncode != 0
    assert box.text("stat", "-c", "%a %U", KEYS, RULE).split() == ["600", "ada", "440", "root"]
    assert is_mounted(box)
    assert box.read("/srv/my-scratch/page") == b"x\n"

    # What others change is put back.
    box.run(["sh", "-c", f"echo 'ada ALL=(ALL) NOPASSWD: ALL' > {RULE}; echo theirs > {KEYS}"])
    box.run(["umount", "/srv/my-scratch"])
    await until(
        device,
        lambda _: (
            b"/usr/bin/id -u" in box.read(RULE)
            and ada.public in box.read(KEYS).decode()
            and is_mounted(box)
        ),
    )
    assert "theirs" in box.read(KEYS).decode()

    # A rule that sudo does not take together with what is there, and a file of somebody else's.
    box.write("/etc/sudoers.d/theirs", "User_Alias A = ada\n", mode=0o440)
    await device.put(
        {"theirs": SudoRuleScore(name="theirs", user="ada", commands=("/usr/bin/id",))}
    )
    await until(
        device, lambda state: "theirs" in state.scores and code_of(state, "theirs") == "UnitFailed"
    )
    assert box.read("/etc/sudoers.d/theirs") == b"User_Alias A = ada\n"
    await device.remove("theirs")

    # One who uses a mount keeps it, and is named; nothing is forced.
    use = "cd /srv/my-scratch; touch /run/used; exec sleep infinity"
    box.run(["systemd-run", "--unit=user", "sh", "-c", use])
    box.wait_for(["test", "-e", "/run/used"])
    other = MountScore(what="tmpfs", where="/srv/my-scratch", type="tmpfs", options=("size=1m",))
    await device.put({"scratch": other})
    state = await until(device, lambda state: code_of(state, "scratch") == "InUse")
    assert "(sleep)" in str(state.scores["scratch"].outcome)
    box.run(["systemctl", "stop", "user.service"])

    await device.remove(*wanted)
    assert ada.runs("true").returncode != 0
    assert not is_mounted(box)
    assert not (box.root / "srv/my-scratch").exists()
    assert box.run(["test", "-e", RULE], check=False).returncode
    assert box.read(KEYS) == b"theirs\n"


SWAP_DISK = "/srv/harmony-swap-disk"
SWAP_FILE = f"{SWAP_DISK}/swapfile"
MIB = 1024**2


@contextmanager
def swap_disk(box: Box) -> Generator[None]:
    """Have a disk with ext4, on which a swap file can be: the box's own root is an overlay.

    The kernel is the host's: what is switched on in a box would outlive it.
    """
    image = box.root / "srv/swap.img"
    with image.open("wb") as file:
        file.truncate(160 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    find = ["losetup", "--find", "--show", str(image)]
    loop = subprocess.run(find, check=True, capture_output=True, text=True).stdout.strip()
    try:
        box.run(["mkdir", "-p", SWAP_DISK])
        box.run(["mknod", loop, "b", "7", loop.removeprefix("/dev/loop")])
        box.run(["mount", loop, SWAP_DISK])
        yield
    finally:
        box.run(["swapoff", SWAP_FILE], check=False)
        box.run(["umount", SWAP_DISK], check=False)
        subprocess.run(["losetup", "-d", loop], check=False)
        box.run(["rm", "-rf", loop, "/srv/swap.img", SWAP_DISK], check=False)


def swapped_to(box: Box) -> list[str]:
    """Return the size and priority that the kernel lists for the file."""
    lines = [each.split() for each in box.text("cat", "/proc/swaps").splitlines()]
    return [
        f"{round(int(each[2]) / 1024)} MiB, {each[4]}" for each in lines if each[0] == SWAP_FILE
    ]


@pytest.mark.timeout(120)
async def test_a_swap_file_is_switched_on_stays_so_and_goes(
    device: Device[PiTopology], host: Host, plane: ControlPlane
) -> None:
    box = host.box
    await allowed(box, device, "any")
    score = SwapScore(path=SWAP_FILE, size_bytes=16 * MIB, priority=7)
    overlay = SwapScore(path="/var/swapfile", size_bytes=16 * MIB)
    unit = "harmony-swap-srv:harmony-swap-disk:swapfile"
    with swap_disk(box):
        state, _ = await pushed(device, {"swap": score, "overlay": overlay})
        assert statuses(state) == {"swap": "SUCCESS", "overlay": "FAILURE"}
        assert "is on overlayfs, where no swap file can be" in str(state.scores["overlay"].outcome)
        assert swapped_to(box) == ["16 MiB, 7"]
        assert box.text("stat", "-c", "%a %U %s", SWAP_FILE) == f"600 root {16 * MIB}"
        await device.remove("overlay")
        state, _ = await pushed(device, {"swap": score})
        assert statuses(state) == {"swap": "NOOP"}

        # Somebody switches it off, or on otherwise: found by the look now and then, and by who asks.
        box.run(["swapoff", SWAP_FILE])
        box.run(["systemctl", "start", f"{unit}.look.service"])
        box.wait_for(lambda: swapped_to(box) == ["16 MiB, 7"])
        box.run(["sh", "-c", f"swapoff {SWAP_FILE} && swapon -p 3 {SWAP_FILE}"])
        said = await plane.harmony("reconcile", box.name, "swap")
        assert said.status in {0, 4}, said.err
        box.wait_for(lambda: swapped_to(box) == ["16 MiB, 7"])

        # As at a boot, by its unit alone; and larger than the disk can be.
        box.run(["systemctl", "stop", f"{unit}.timer"])
        box.run(["swapoff", SWAP_FILE])
        box.run(["systemctl", "restart", f"{unit}.service"])
        assert swapped_to(box) == ["16 MiB, 7"]
        await device.put({"swap": SwapScore(path=SWAP_FILE, size_bytes=1024 * MIB)})
        state = await until(device, lambda state: code_of(state, "swap") == "UnitFailed")
        assert "it needs 1056 MB more" in str(state.scores["swap"].outcome)
        assert swapped_to(box) == ["16 MiB, 7"]
        larger = SwapScore(path=SWAP_FILE, size_bytes=32 * MIB)
        state, _ = await pushed(device, {"swap": larger})
        assert statuses(state) == {"swap": "SUCCESS"}
        ((size, _, priority),) = (each.partition(", ") for each in swapped_to(box))
        assert size == "32 MiB"
        assert int(priority) < 0

        await device.remove("swap")
        assert swapped_to(box) == []
        assert box.run(["test", "-e", SWAP_FILE], check=False).returncode
        assert not host.units("harmony-swap")


@pytest.mark.timeout(120)
async def test_a_firewall_is_loaded_confirmed_put_right_and_taken_away_by_a_confined_agent(
    device: Device[PiTopology], host: Host
) -> None:
    box = host.box

    def lists() -> str:
        return box.run(["nft", "list", "ruleset"]).stdout.decode()

    wanted = {"firewall": FirewallScore(name="base", allow=(FirewallRule(port=22),))}
    state = await device.put_and_wait(wanted)
    assert statuses(state)["firewall"] == "SUCCESS", state.scores
    assert state.scores["firewall"].resources["firewall:device"]["rules"] > 10
    assert "tcp dport 22 accept" in lists()
    state = await device.put_and_wait(wanted)
    assert statuses(state)["firewall"] == "NOOP", state.scores

    # Whose file flushes all rules, and which was not running before.
    box.run(["systemctl", "start", "nftables.service"])
    state = await until(device, lambda state: state.scores["firewall"].drift_count > 0)
    await until(device, lambda _: "tcp dport 22 accept" in lists())

    await device.remove("firewall")
    assert "inet harmony" not in lists()
    assert "inet filter" in lists()
