"""A Pi whose card has one file more becomes a device of the fleet at its first boot, by cloud-init itself."""

from __future__ import annotations

from collections.abc import Generator
from itertools import count
from pathlib import Path

import pytest

from tests.box import Bed, Box
from tests.box.layers import built_wheel, cloud_init_layers, packages
from tests.fleet.ground import AGENT, TREE, URL, ControlPlane

SEED = "/boot/firmware/user-data"
PLACE = "/var/lib/harmony-first-boot"
UNIT = "harmony-first-boot.service"
SERIAL = "10000000abcdef12"
MOTD = '- {id: motd, kind: FileScore, spec: {path: /etc/motd, content: "hello\\n"}}\n'
OWN = """\
#cloud-config
# What its owner wrote, as it stands here: "quoted", and yes.
hostname: raspberrypi
write_files:
  - {path: /etc/of-the-owner, content: "mine\\n", permissions: '0640'}
runcmd:
  - echo ran >> /etc/ran-by-the-owner
"""
_numbers = count(1)


@pytest.fixture(scope="module")
def wheel() -> Path:
    return built_wheel(TREE)


@pytest.fixture
def card(bed: Bed) -> Generator[Box]:
    """A Pi with cloud-init, as Raspberry Pi OS sets it up, and the wheels on its boot partition. Nothing of
    cloud-init has run: as long as there is no user-data, it has nothing to do."""
    pi = bed.boot(f"card-{next(_numbers)}", cloud_init_layers())
    pi.write(
        "/etc/cloud/cloud.cfg.d/99_raspberry-pi.cfg",
        "datasource_list: [NoCloud, None]\n"
        "datasource: {NoCloud: {seedfrom: 'file:///boot/firmware/'}}\n"
        # What the box has of a network is the bed's.
        "network: {config: disabled}\n",
    )
    pi.write("/boot/firmware/meta-data", "instance-id: from-the-imager\n")
    for path in filter(Path.is_file, packages().iterdir()):
        pi.write(f"/boot/firmware/harmony-packages/{path.name}", path.read_bytes())
    yield pi
    pi.end()


def boot_by(pi: Box, user_data: Path) -> None:
    """Boot *pi* for the first time with *user_data* on its card."""
    pi.write(SEED, user_data.read_bytes())
    pi.reboot()


async def invited(plane: ControlPlane, file: Path, wheel: Path, *options: str) -> str:
    """Make *file*; the invitation in it."""
    said = await plane.harmony(
        *("invite", "--first-boot", str(file), "--url", URL, "--wheel", str(wheel), "--json"),
        *options,
    )
    assert said.status == 0, said.err
    (told,) = said.documents
    assert told["file"] == str(file)
    assert "invitation" not in told
    (line,) = (each for each in file.read_text().splitlines() if "harmony-invitation:" in each)
    return line.split()[-1]


def where_is(pi: Box, text: str) -> list[str]:
    """Each file of the card, and of what is kept in memory, in which *text* is still to be read."""
    found = pi.run(
        ["grep", "-rlsF", text, "/boot", "/etc", "/opt", "/root", "/run", "/tmp", "/var"],
        check=False,
    )
    return found.stdout.decode().split()


@pytest.mark.timeout(300)
async def test_one_file_on_fifty_cards_brings_each_into_the_fleet_under_an_id_of_its_own(
    plane: ControlPlane, card: Box, wheel: Path, tmp_path: Path
) -> None:
    file = tmp_path / "user-data"
    file.write_text(OWN)
    invitation = await invited(plane, file, wheel, "--count", "50", "--expires-in", "7d")
    # Without a network, as where the router comes up later than the Pi.
    card.cut_network()
    card.write("/etc/systemd/system/serial.service", SERIAL_UNIT)
    card.run(["systemctl", "enable", "serial.service"])
    boot_by(card, file)
    assert where_is(card, invitation) != []
    # It warns of nothing: both parts are valid, and together, too.
    assert card.text("cloud-init", "status") == "status: done"
    card.wait_for(lambda: "waiting" in card.journal(UNIT), timeout_s=120)
    assert plane.home.agents() == {}
    card.restore_network()
    card.wait_for(lambda: not (card.root / PLACE[1:]).exists(), timeout_s=60)

    agent = f"pi-{SERIAL}"
    assert list(plane.home.agents()) == [agent]
    told = await plane.harmony("push-score", agent, "-", stdin=MOTD)
    assert told.status == 0, told.err + told.out
    assert card.read("/etc/motd") == b"hello\n"
    assert card.text("systemctl", "is-enabled", AGENT) == "enabled"
    key = f'seed = "{seed_of(card)}"'
    assert where_is(card, key) == ["/etc/harmony/agent.toml"]

    # Of the invitation nothing is left, and of what the owner wrote all.
    assert where_is(card, invitation) == []
    assert card.read(SEED) == OWN.encode()
    assert card.read("/etc/of-the-owner") == b"mine\n"
    assert card.run(["systemctl", "cat", UNIT], check=False).returncode != 0
    before = card.read("/etc/harmony/agent.toml")
    card.reboot()
    assert card.text("cloud-init", "status") == "status: done"
    assert card.read("/etc/ran-by-the-owner") == b"ran\n"
    assert where_is(card, invitation) == []
    card.wait_for(["systemctl", "is-active", AGENT])
    assert card.read("/etc/harmony/agent.toml") == before


SERIAL_UNIT = f"""\
[Unit]
Description=What the firmware of a Pi says of its board
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart=mount -t tmpfs tmpfs /sys/firmware
ExecStart=mkdir -p /sys/firmware/devicetree/base
ExecStart=sh -c "printf '{SERIAL}\\\\0' >/sys/firmware/devicetree/base/serial-number"
[Install]
WantedBy=sysinit.target
"""


def seed_of(pi: Box) -> str:
    return pi.text("sed", "-n", 's/^seed = "\\(.*\\)"/\\1/p', "/etc/harmony/agent.toml")


@pytest.mark.timeout(300)
async def test_a_card_for_one_device_goes_on_after_its_plug_was_pulled(
    plane: ControlPlane, card: Box, wheel: Path, tmp_path: Path
) -> None:
    file = tmp_path / "user-data"
    await invited(plane, file, wheel, "kiosk-7")
    card.write("/root/user-data", file.read_bytes())
    checked = card.text("cloud-init", "schema", "--config-file", "/root/user-data")
    assert "Valid schema" in checked
    boot_by(card, file)
    card.wait_for(["test", "-e", "/etc/harmony/agent.toml"], timeout_s=120)
    card.power_cut()
    card.power_on()
    card.wait_for(lambda: not (card.root / PLACE[1:]).exists(), timeout_s=60)
    said = await plane.harmony("push-score", "kiosk-7", "-", stdin=MOTD)
    assert said.status == 0, said.err + said.out
    assert card.read(SEED) == b"#cloud-config\n"

    # Of such a device one has what other cards need that are to come without an index.
    card.run(["sh", "-ec", PACKAGES_FOR_CARDS], timeout_s=120)
    names = "cd /root/harmony-packages && ls"
    assert card.text("sh", "-c", names).split() == sorted(
        path.name for path in packages().iterdir() if path.suffix in {".whl", ".gz"}
    )


PACKAGES_FOR_CARDS = """
export PIP_NO_INDEX=1 PIP_FIND_LINKS=/boot/firmware/harmony-packages
cd /root
locks=$(echo /opt/harmony/lib/python3*/site-packages/harmony_agent/deploy)
/opt/harmony/bin/pip download --require-hashes --no-deps --no-build-isolation -d harmony-packages \\
    -r $locks/build.lock -r $locks/agent.lock
"""
"""As docs/enrolment.md has it, of the box's own packages in the place of an index."""
