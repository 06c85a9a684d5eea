"""What is set on a Pi beside files and services, by a real agent: links, parts of files, host and boot."""

from __future__ import annotations

import stat

from harmony_control.device import Device
from harmony_control.push.entries import Entry, Pushable
from harmony_core.outcome import Success
from harmony_core.wire.actual_state import ActualState
from harmony_pi_topology import PiTopology
from harmony_scores import (
    BlockScore,
    BootConfigScore,
    DirectoryScore,
    FileScore,
    HostnameScore,
    KeyboardScore,
    LinkScore,
    LocaleScore,
    TimezoneScore,
)
from tests.box import Box
from tests.fleet.ground import Host, code_of, statuses, until

CONFIG, CMDLINE = "/boot/firmware/config.txt", "/boot/firmware/cmdline.txt"
STOCK = b"# For more options\r\ndtparam=audio=on\r\n\r\n[cm4]\r\notg_mode=1\r\n\r\n[all]\r\n"
LINE = b"console=tty1 root=PARTUUID=1-02 rootwait\n"
HOSTS = b"127.0.0.1\tlocalhost\n127.0.1.1\traspberrypi\n"
OURS = (
    b"# harmony: begin lab\n10.0.0.1 gateway\n# harmony: end lab\n"
    b"# harmony: begin alias\n127.0.1.1 kiosk-1\n# harmony: end alias\n"
)

SCORES: dict[str, Pushable[PiTopology]] = {
    "shared": DirectoryScore(path="/srv/shared", mode=0o2775, group="www-data"),
    "open": DirectoryScore(path="/srv/open", mode=0o1777),
    "link": LinkScore(path="/srv/current", target="shared"),
    "hosts": BlockScore(path="/etc/hosts", name="lab", lines="10.0.0.1 gateway"),
    "alias": Entry(
        BlockScore(path="/etc/hosts", name="alias", lines="127.0.1.1 kiosk-1"), after=["hosts"]
    ),
    "boot": BootConfigScore(
        dtparam={"audio": "off", "i2c_arm": "on"}, dtoverlay=("w1-gpio",), words=("quiet",)
    ),
    "hostname": HostnameScore(name="kiosk-1"),
    "timezone": TimezoneScore(name="Europe/Berlin"),
    "locale": LocaleScore(name="C.UTF-8"),
    "keyboard": KeyboardScore(layout="de(nodeadkeys)"),
}


def lay_ground(box: Box) -> None:
    """What a Pi has of its own before any Score."""
    box.run(["mkdir", "-p", "/boot/firmware"])
    # No FAT: the kernel that this runs on may have none. What FAT does is asked of blocks on an odd disk.
    box.write(CONFIG, STOCK)
    box.write(CMDLINE, LINE)
    box.write("/etc/hosts", HOSTS)
    box.run(["ln", "-sfn", "theirs", "/srv/current"])
    box.run(["timedatectl", "set-timezone", "Europe/London"])
    # localed itself lets nobody set them, by Debian's policy for its bus.
    box.write("/etc/locale.conf", "LANG=C\nLC_TIME=POSIX\n")
    box.write("/etc/default/keyboard", 'XKBMODEL="pc105"\nXKBLAYOUT="gb"\nXKBVARIANT=""\n')


def of(box: Box) -> dict[str, object]:
    """All that the Scores are about, as the box's own tools have it."""
    return {
        **{path: box.read(path) for path in (CONFIG, CMDLINE, "/etc/hosts")},
        "link": str((box.root / "srv/current").readlink()),
        "hostname": (box.text("hostname").strip(), box.text("cat", "/etc/hostname").strip()),
        "timezone": box.text("timedatectl", "show", "-p", "Timezone", "--value").strip(),
        "localed": [
            line.strip()
            for line in box.text("localectl", "status").splitlines()
            if "LANG=" in line or "LC_" in line or "X11 Layout" in line or "X11 Variant" in line
        ],
        "directories": [
            oct(stat.S_IMODE((box.root / f"srv/{name}").stat().st_mode))
            for name in ("shared", "open")
            if (box.root / f"srv/{name}").exists()
        ],
    }


def all_are(state: ActualState, *words: str) -> bool:
    return set(statuses(state).values()) <= set(words) and len(state.scores) == len(SCORES)


async def test_all_of_it_is_made_kept_and_given_back(
    device: Device[PiTopology], host: Host
) -> None:
    box = host.box
    lay_ground(box)
    before = of(box)
    state = await device.put_and_wait(SCORES)
    assert all_are(state, "SUCCESS", "NOOP"), statuses(state)
    made = of(box)
    assert made == {
        CONFIG: STOCK.replace(b"audio=on", b"audio=off")
        + b"dtparam=i2c_arm=on\r\ndtoverlay=w1-gpio\r\n",
        CMDLINE: b"console=tty1 root=PARTUUID=1-02 rootwait quiet\n",
        "/etc/hosts": HOSTS + OURS,
        "link": "shared",
        "hostname": ("kiosk-1", "kiosk-1"),
        "timezone": "Europe/Berlin",
        "localed": [
            "System Locale: LANG=C.UTF-8",
            "LC_TIME=POSIX",
            "X11 Layout: de",
            "X11 Variant: nodeadkeys",
        ],
        "directories": ["0o2775", "0o1777"],
    }
    assert box.text("stat", "-c", "%G", "/srv/shared").strip() == "www-data"
    assert box.read(f"{CONFIG}.harmony-previous") == STOCK
    boot = state.scores["boot"].outcome
    assert isinstance(boot, Success)
    assert boot.message.startswith("RebootRequired: ")

    # Others may write the rest of a file; what is ours is put right.
    box.run(["sed", "-i", "s/^127.0.0.1.*/127.0.0.1 others/; s/gateway/elsewhere/", "/etc/hosts"])
    box.run(["sed", "-i", "s/audio=off/audio=on/", CONFIG])
    box.run(["ln", "-sfn", "elsewhere", "/srv/current"])
    box.run(["chmod", "0755", "/srv/shared"])
    box.run(["hostnamectl", "set-hostname", "others"])
    box.run(["timedatectl", "set-timezone", "Asia/Tokyo"])
    box.run(["sed", "-i", "s/^LANG=.*/LANG=C/", "/etc/locale.conf"])
    box.run(["sed", "-i", 's/^XKBLAYOUT=.*/XKBLAYOUT="us"/', "/etc/default/keyboard"])
    made["/etc/hosts"] = b"127.0.0.1 others\n127.0.1.1\traspberrypi\n" + OURS
    await until(device, lambda _: of(box) == made)

    # Whoever wants the whole file is told whose a part of it is.
    await device.put({"whole": FileScore(path="/etc/hosts", content="x\n")})
    await until(device, lambda state: "whole" in state.scores and bool(code_of(state, "whole")))
    assert of(box)["/etc/hosts"] == made["/etc/hosts"]
    await device.remove("whole")

    await device.remove(*SCORES)
    after = of(box)
    assert after.pop("/etc/hosts") == HOSTS.replace(b"127.0.0.1\tlocalhost", b"127.0.0.1 others")
    del before["/etc/hosts"]
    assert after == before

    # A locale that is in no package of this device.
    taken = await device.put({"locale": LocaleScore(name="de_DE.UTF-8")})
    state = await device.wait(taken)
    assert code_of(state, "locale") == "InvalidResource"
    assert of(box)["localed"] == before["localed"]
