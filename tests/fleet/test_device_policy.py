"""What is the system's is no Score's, unless the device itself was told so by its owner."""

from __future__ import annotations

import asyncio
from typing import TypeAlias

import pytest

from harmony_control.fleet import Device
from harmony_core.outcome import Failure, Success
from harmony_core.score import Score
from harmony_pi_topology import PiTopology
from harmony_scores import DirectoryScore, FileScore, SystemdServiceScore
from tests.box import Box
from tests.fleet.ground import AGENT, heard_again, until

Pi: TypeAlias = Device[PiTopology]

POWERSAVE = FileScore(path="/etc/NetworkManager/conf.d/10-it.conf", content="[connection]\n")


@pytest.mark.parametrize(
    ("score", "remedy"),
    [
        (POWERSAVE, "use a NetworkConfigScore"),
        (DirectoryScore(path="/var/log", mode=0, owner="nobody"), "choose a directory below it"),
        (SystemdServiceScore(name="ssh.service", state="stopped"), "enabled and running"),
    ],
    ids=["file", "directory", "unit"],
)
async def test_what_is_the_system_s_is_refused_and_the_remedy_told(
    device: Pi, pi: Box, score: Score[PiTopology], remedy: str
) -> None:
    before = pi.text("stat", "--format=%a %U", "/var/log")
    outcome = await device.push(score, id="it")
    assert isinstance(outcome, Failure)
    assert outcome.error.code == "PolicyRefused"
    assert outcome.error.retry_at is None
    assert remedy in outcome.error.message
    assert "to allow under [policy] in /etc/harmony/agent.toml" in outcome.error.message
    assert pi.text("stat", "--format=%a %U", "/var/log") == before


async def test_what_the_device_s_owner_allows_is_done(device: Pi, pi: Box) -> None:
    assert isinstance(await device.push(POWERSAVE, id="it"), Failure)
    path = "/etc/harmony/agent.toml"
    text = pi.read(path).decode()
    allow = '[policy]\nallow = ["/etc/NetworkManager/conf.d"]\n'
    pi.write(path, f"{text}{allow}", mode=0o600)
    await asyncio.to_thread(pi.run, ["systemctl", "restart", AGENT])
    await heard_again(device)
    state = await until(device, lambda it: isinstance(it.scores["it"].outcome, Success))
    assert "it" in state.scores
    assert pi.read(POWERSAVE.path) == b"[connection]\n"
    pi.write(path, text, mode=0o600)
