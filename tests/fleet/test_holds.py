"""An application on a real Pi says "not now", and is waited for until it is done or a person says so."""

from __future__ import annotations

import asyncio
import json
from typing import TypeAlias

import pytest

from harmony_control.device import Device
from harmony_core.outcome import Running
from harmony_core.wire.actual_state import ActualState
from harmony_pi_topology import PiTopology
from harmony_scores import ContainerScore
from tests.box import Bed, Box
from tests.fleet.ground import AGENT, ControlPlane, Host, until

Pi: TypeAlias = Device[PiTopology]

HOLD = '{"owner": "recorder", "reason": "writes the archive"}'


@pytest.fixture(scope="module")
def image(bed: Bed) -> str:
    return bed.registry.push_busybox("recorder", "1", command=("sleep", "4711"))


def is_held(state: ActualState) -> bool:
    page = state.scores.get("it")
    return page is not None and isinstance(page.outcome, Running) and page.outcome.reason == "Held"


def has_converged(state: ActualState) -> bool:
    return state.scores["it"].outcome.status in {"SUCCESS", "NOOP"}


async def within(pi: Box, command: str) -> None:
    """What the application does."""
    await asyncio.to_thread(pi.run, ["podman", "exec", "recorder", "sh", "-c", command])


def recorder(image: str, mode: str) -> ContainerScore:
    return ContainerScore(
        name="recorder",
        image=image,
        environment={"MODE": mode},
        max_hold_s=3600,
        stop_timeout_s=0,
        user="1000",
    )


async def test_a_container_is_made_anew_when_it_says_so_or_a_person_does(
    plane: ControlPlane, device: Pi, pi: Box, host: Host, image: str
) -> None:
    await device.push(recorder(image, "one"), id="it")
    await within(pi, f"echo '{HOLD}' > /run/harmony-hold/hold.json")
    before = host.identities(containers=["recorder"])
    await device.put({"it": recorder(image, "two")})
    await until(device, is_held)
    await asyncio.to_thread(pi.run, ["systemctl", "restart", AGENT])
    await until(device, is_held)
    assert host.identities(containers=["recorder"]) == before

    await within(pi, "rm /run/harmony-hold/hold.json")
    await until(device, has_converged)
    assert host.identities(containers=["recorder"]) != before

    await within(pi, f"echo '{HOLD}' > /run/harmony-hold/hold.json")
    await device.put({"it": recorder(image, "three")})
    await until(device, is_held)
    released = await plane.harmony("release", pi.name, "it")
    assert (released.status, released.err) == (0, "")
    await until(device, has_converged)
    again = await plane.harmony("release", pi.name, "it")
    assert again.status == 2
    assert "Score 'it' has no postponed changes" in again.err


async def test_an_application_writes_no_line_into_the_agents_own_journal(
    device: Pi, pi: Box, image: str
) -> None:
    await device.push(recorder(image, "one"), id="it")
    forged = r'{"owner": "a", "reason": "b", "x\nERROR motd: forged\u001b[31m": 1}'
    await within(pi, f"cat > /run/harmony-hold/hold.json <<'END'\n{forged}\nEND")
    await device.push(recorder(image, "two"), id="it")
    entries = [
        str(json.loads(line)["MESSAGE"])
        for line in pi.text("journalctl", "-u", AGENT, "-o", "json").splitlines()
    ]
    told = [entry for entry in entries if "ERROR motd: forged" in entry]
    assert told != []
    assert [entry for entry in told if entry.startswith("ERROR motd") or "\x1b" in entry] == []


async def test_after_a_reboot_nothing_is_held(device: Pi, pi: Box, image: str) -> None:
    await device.push(recorder(image, "one"), id="it")
    await within(pi, f"echo '{HOLD}' > /run/harmony-hold/hold.json")
    await asyncio.to_thread(pi.reboot)
    await device.push(recorder(image, "two"), id="it")
