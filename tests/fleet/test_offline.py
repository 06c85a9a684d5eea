"""Offline is normal: what was asked for last is kept up without a control plane, and told on return."""

from __future__ import annotations

import asyncio
from typing import TypeAlias

import pytest

from harmony_control.bus.connection import Bucket, admin
from harmony_control.device import Device
from harmony_control.fleet import Fleet
from harmony_core.score import Score
from harmony_pi_topology import PiTopology
from harmony_scores import ContainerScore, FileScore, SystemdServiceScore, WebAppScore
from tests.box import Bed, Box
from tests.fleet.ground import (
    AGENT,
    SERVE,
    ControlPlane,
    Host,
    heard_again,
    in_shell,
    statuses,
    until,
)

Pi: TypeAlias = Device[PiTopology]

FILES = ("/srv/note", "/etc/systemd/system/sleeper.service", "/etc/harmony-apps/web/web.conf")
UNITS = ("sleeper.service",)
CONTAINERS = ("box", "web")


@pytest.fixture(scope="module")
def scores(bed: Bed) -> dict[str, Score[PiTopology]]:
    image = bed.registry.push_busybox("web", "1", command=in_shell(SERVE))
    return {
        "note": FileScore(path="/srv/note", content="note\n"),
        "sleeper": SystemdServiceScore(
            name="sleeper.service", exec_start=("/usr/bin/sleep", "infinity"), settle_s=0.5
        ),
        "box": ContainerScore(name="box", image=image, settle_s=0.5),
        "web": WebAppScore(
            name="web", image=image, config="x = 1\n", config_path="/etc/web.conf", port=80
        ),
    }


@pytest.fixture
async def working(device: Pi, scores: dict[str, Score[PiTopology]]) -> Pi:
    """Everything is there and runs."""
    state = await device.put_and_wait(scores)
    assert set(statuses(state).values()) == {"SUCCESS"}
    return device


def _right(host: Host) -> bool:
    return (
        all(map(host.file, FILES))
        and all(host.unit(name, "ActiveState")["ActiveState"] == "active" for name in UNITS)
        and all(
            found is not None and found["State"]["Status"] == "running"
            for found in map(host.container, CONTAINERS)
        )
    )


async def _revision(plane: ControlPlane, pi: Box) -> int:
    """How many reports the bus has taken."""
    async with admin(plane.home) as client:
        found = await Bucket(client, "actual-state").get(pi.name)
    assert found is not None
    return found.revision


async def _until_idle(device: Pi) -> None:
    await until(
        device,
        lambda state: any(
            each.type == "Ready" and each.status == "True" for each in state.conditions
        ),
    )


async def test_stopped_and_started_it_changes_nothing_that_is_right(
    working: Pi, pi: Box, host: Host
) -> None:
    """Elsewhere an agent that is started anew runs anew what it finds (hashicorp/nomad#5883)."""
    before = host.identities(files=FILES, units=UNITS, containers=CONTAINERS)
    everything = host.everything()
    pi.run(["systemctl", "stop", AGENT])
    assert _right(host)
    pi.run(["systemctl", "start", AGENT])
    await asyncio.to_thread(pi.wait_for, lambda: "4 of 4 Scores converged" in _status(host))
    await heard_again(working)
    assert host.identities(files=FILES, units=UNITS, containers=CONTAINERS) == before
    assert host.everything() == everything


def _status(host: Host) -> str:
    return host.unit(AGENT, "StatusText")["StatusText"]


async def test_without_a_control_plane_it_puts_right_what_was_changed_and_tells_it_once(
    plane: ControlPlane, working: Pi, pi: Box, host: Host
) -> None:
    # What was pushed has settled as soon as its Scores have: that all has may be told a moment later.
    await _until_idle(working)
    before = await _revision(plane, pi)
    plane.stop()
    pi.run(["systemctl", "stop", AGENT])
    pi.run(["rm", FILES[0], FILES[2]])
    pi.run(["systemctl", "stop", *UNITS])
    pi.run(["podman", "rm", "-f", "-t", "0", "box"])
    pi.run(["podman", "stop", "-t", "0", "web"])
    pi.run(["systemctl", "start", AGENT])
    await asyncio.to_thread(pi.wait_for, lambda: _right(host))
    await asyncio.to_thread(pi.wait_for, lambda: "4 of 4 Scores converged" in _status(host))
    plane.start()
    async with Fleet.connect(plane.home) as fleet:
        device = fleet.device(pi.name)
        await heard_again(device)
        await _until_idle(device)
    assert await _revision(plane, pi) == before + 1


async def test_a_connection_that_lost_its_way_is_given_up_and_made_anew_soon_after_that_is_back(
    working: Pi, pi: Box
) -> None:
    """By itself TCP is as long without a try as it was without an answer, up to two minutes."""
    lost = pi.journal(AGENT).count("connection to the control plane lost")
    pi.cut_network()
    await asyncio.to_thread(
        pi.wait_for,
        lambda: pi.journal(AGENT).count("connection to the control plane lost") > lost,
        timeout_s=60,
    )
    pi.restore_network()
    await heard_again(working)


async def test_rebooted_without_a_cable_it_brings_everything_up_and_returns_to_the_newest(
    plane: ControlPlane, working: Pi, pi: Box, host: Host
) -> None:
    """Of other systems nothing starts after a reboot until their server is reached (hashicorp/nomad#24629,
    kubeedge/kubeedge#4210)."""
    pi.cut_network()
    await asyncio.to_thread(pi.reboot)
    await asyncio.to_thread(pi.wait_for, lambda: _right(host))
    passing = FileScore(path="/srv/passing", content="never to be seen\n")
    lasting = FileScore(path="/srv/lasting", content="the newest\n")
    await working.put({"passing": passing})
    newest = await working.put({"lasting": lasting}, remove=["passing"])
    assert host.file("/srv/lasting") is None
    pi.restore_network()
    state = await working.wait(newest)
    assert state.generation == newest.generation
    assert set(state.scores) == {"note", "sleeper", "box", "web", "lasting"}
    assert pi.read("/srv/lasting") == b"the newest\n"
    assert "/srv/passing" not in pi.journal(AGENT)
    assert _right(host)
