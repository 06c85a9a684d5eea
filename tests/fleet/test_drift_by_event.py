"""What somebody else changes on a real Pi is put right long before any periodic pass."""

from __future__ import annotations

import asyncio
from typing import TypeAlias

import pytest

from harmony_control.fleet import Device
from harmony_pi_topology import PiTopology
from harmony_scores import ContainerScore, FileScore, SystemdServiceScore
from tests.box import Bed, Box
from tests.fleet.ground import AGENT, Host, until

Pi: TypeAlias = Device[PiTopology]

DIRECTORY = "/etc/greetings"
PATH = f"{DIRECTORY}/hello"
UNIT = "sleeper.service"
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
LONG_BEFORE_A_PASS_S = 60


@pytest.fixture(scope="module")
def image(bed: Bed) -> str:
    return bed.registry.push_busybox("drifting", "1", command=("sleep", "4711"))


async def drifted(device: Pi, *, beyond: int) -> None:
    """Wait until the agent has put right more than so many."""
    await until(
        device,
        lambda state: (
            state.scores["it"].drift_count > beyond
            and state.scores["it"].outcome.status in {"SUCCESS", "NOOP"}
        ),
        within_s=LONG_BEFORE_A_PASS_S,
    )


@pytest.mark.parametrize(
    "deed",
    [
        f"echo changed > {PATH}",
        f"chmod 600 {PATH}",
        f"rm {PATH}",
        f"rm -r {DIRECTORY}",
        f"mv {DIRECTORY} {DIRECTORY}.old",
    ],
)
async def test_a_file_is_put_right(device: Pi, pi: Box, deed: str) -> None:
    await device.push(FileScore(path=PATH, content="hello\n"), id="it")
    for count in range(2):
        await asyncio.to_thread(pi.run, ["sh", "-c", f"rm -rf {DIRECTORY}.old; {deed}"])
        await drifted(device, beyond=count)
        assert pi.text("stat", "-c", "%a", PATH) == "644"
        assert pi.read(PATH) == b"hello\n"


@pytest.mark.parametrize(
    "deed",
    [
        f"systemctl stop {UNIT}",
        f"systemctl disable {UNIT}",
        f"rm /etc/systemd/system/multi-user.target.wants/{UNIT}",
        f"echo '# by hand' >> {UNIT_FILE}",
    ],
)
async def test_a_unit_is_put_right(device: Pi, pi: Box, host: Host, deed: str) -> None:
    score = SystemdServiceScore(name=UNIT, exec_start=("/usr/bin/sleep", "infinity"))
    await device.push(score, id="it")
    before = pi.read(UNIT_FILE)
    for count in range(2):
        await asyncio.to_thread(pi.run, ["sh", "-c", deed])
        await drifted(device, beyond=count)
        assert pi.read(UNIT_FILE) == before
        assert host.unit(UNIT, "ActiveState", "UnitFileState") == {
            "ActiveState": "active",
            "UnitFileState": "enabled",
        }


@pytest.mark.parametrize(
    "deed",
    [
        # It is back so soon that podman complains of not being able to clean up.
        "podman stop -t 0 box || true",
        "podman rm -f -t 0 box",
        "systemctl stop podman.service; pkill -KILL --full '^sleep 4711$'",
    ],
)
async def test_a_container_is_put_right(device: Pi, pi: Box, image: str, deed: str) -> None:
    await device.push(
        ContainerScore(name="box", image=image, restart="no", stop_timeout_s=0), id="it"
    )
    for count in range(2):
        await asyncio.to_thread(pi.run, ["sh", "-c", deed])
        await drifted(device, beyond=count)
        assert pi.text("podman", "inspect", "-f", "{{.State.Status}}", "box") == "running"


@pytest.mark.usefixtures("device")
async def test_everything_could_be_watched(pi: Box) -> None:
    assert "is not watched" not in pi.journal(AGENT)
