"""What a device allows its owner says: told before a push, and kept to when something comes all the same."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TypeAlias

import pytest

from harmony_agent.apply.policy import DevicePolicy
from harmony_agent.policy_toml import PolicyTable
from harmony_control.device import Device
from harmony_control.push.entries import Pushable
from harmony_core.errors import PolicyRefused
from harmony_core.outcome import Failure, Success
from harmony_core.resources import ContainerDevice, File
from harmony_core.score import Score
from harmony_pi_topology import PiTopology
from harmony_scores import ContainerScore, DirectoryScore, FileScore, SystemdServiceScore
from tests.box import Box
from tests.fleet.ground import AGENT, ControlPlane, code_of, heard_again, until

Pi: TypeAlias = Device[PiTopology]

POLICY = "/etc/harmony/policy.toml"
POWERSAVE = FileScore(path="/etc/NetworkManager/conf.d/10-it.conf", content="[connection]\n")
CRON = FileScore(path="/etc/cron.d/it", content="* * * * * root touch /run/it\n")
NAMED_SSH = SystemdServiceScore(
    name="it.service",
    unit_file="[Service]\nExecStart=/usr/bin/sleep infinity\n[Install]\nAlias=ssh.service\n",
)
APPLIANCE = """\
preset = "appliance"
kinds = ["FileScore", "SystemdServiceScore", "RegistryScore"]
paths = ["/etc/kiosk"]
units = ["kiosk-*.service"]
registries = ["ghcr.io"]
"""


async def ruled(pi: Box, device: Pi, text: str) -> None:
    """Have the device's owner write this policy; none for no file."""
    if text:
        pi.write(POLICY, text)
    else:
        await asyncio.to_thread(pi.run, ["rm", "-f", POLICY])
    await asyncio.to_thread(pi.run, ["systemctl", "restart", AGENT])
    await heard_again(device)


@pytest.fixture
async def owned(pi: Box, device: Pi) -> AsyncGenerator[Pi]:
    """The device; with no policy of its own again afterwards."""
    yield device
    await ruled(pi, device, "")


@pytest.mark.parametrize(
    ("score", "remedy"),
    [
        (POWERSAVE, "use a NetworkConfigScore"),
        (DirectoryScore(path="/var/log", mode=0, owner="nobody"), "choose a directory below it"),
        (SystemdServiceScore(name="ssh.service", state="stopped"), "enabled and running"),
        (SystemdServiceScore(name="podman.service", state="stopped"), "enabled and running"),
        (CRON, "lets no Score run a program as root"),
        (NAMED_SSH, "it.service has Alias=ssh.service: this device is reached by"),
    ],
    ids=["file", "directory", "unit", "podman", "cron", "alias"],
)
async def test_what_is_the_system_s_is_refused_and_the_remedy_told(
    device: Pi, pi: Box, score: Score[PiTopology], remedy: str
) -> None:
    before = pi.text("stat", "--format=%a %U", "/var/log")
    with pytest.raises(PolicyRefused) as caught:
        await device.push(score, id="it")
    assert remedy in caught.value.message
    assert f'refused by the preset "open", since there is no {POLICY}' in caught.value.message
    assert not await device.read_desired()
    assert pi.text("stat", "--format=%a %U", "/var/log") == before


async def test_hardware_that_an_appliance_does_not_list_is_refused_at_push(
    owned: Pi, pi: Box
) -> None:
    rules = (
        'preset = "appliance"\nkinds = ["*"]\nregistries = ["ghcr.io"]\ndevices = ["/dev/ttyA*"]\n'
    )
    await ruled(pi, owned, rules)
    score = ContainerScore(
        name="it",
        image=f"ghcr.io/acme/it@sha256:{'0' * 64}",
        devices=(ContainerDevice(source="/dev/mem"),),
    )
    with pytest.raises(PolicyRefused) as caught:
        await owned.push(score, id="it")
    assert f'{POLICY}, line 4: devices = ["/dev/ttyA*"]' in caught.value.message
    assert 'add "/dev/mem" to devices there' in caught.value.message


async def test_what_comes_all_the_same_is_a_failure_for_good_and_nothing_is_changed(
    device: Pi, pi: Box
) -> None:
    taken = await device.put({"it": CRON}, force=True)
    state = await device.wait(taken)
    assert code_of(state, "it") == "PolicyRefused"
    outcome = state.scores["it"].outcome
    assert isinstance(outcome, Failure)
    assert outcome.error.retry_at is None
    assert pi.run(["test", "-e", "/etc/cron.d/it"], check=False).returncode


def test_the_agent_s_unit_is_the_agent_s_wherever_this_systemd_reads(pi: Box) -> None:
    policy = DevicePolicy(
        rules=PolicyTable(preset="open", paths=("/etc", "/run", "/usr"), jobs="any")
    )
    read_by_systemd = pi.text("systemctl", "show", "--property=UnitPath", "--value").split()
    assert len(read_by_systemd) > 8
    for directory in read_by_systemd:
        for name in (
            "harmony-agent.service",
            "harmony-agent.service.d/it.conf",
            "service.d/it.conf",
        ):
            assert policy.refusal(File(path=f"{directory}/{name}", content=b"")), directory


async def test_what_the_device_s_owner_names_is_done(owned: Pi, pi: Box) -> None:
    with pytest.raises(PolicyRefused):
        await owned.push(POWERSAVE, id="it")
    await owned.put({"it": POWERSAVE}, force=True)
    await ruled(pi, owned, 'preset = "open"\npaths = ["/etc/NetworkManager/conf.d"]\n')
    await until(owned, lambda it: isinstance(it.scores["it"].outcome, Success))
    assert pi.read(POWERSAVE.path) == b"[connection]\n"


async def test_an_appliance_does_what_it_lists_and_nothing_else(
    plane: ControlPlane, owned: Pi, pi: Box, tmp_path: Path
) -> None:
    await ruled(pi, owned, APPLIANCE)
    kiosk: dict[str, Pushable[PiTopology]] = {
        "conf": FileScore(path="/etc/kiosk/conf", content="hello\n"),
        "ui": SystemdServiceScore(
            name="kiosk-ui.service",
            unit_file="[Service]\nExecStart=/usr/bin/sleep infinity\n",
            enabled=None,
            settle_s=0,
        ),
    }
    state = await owned.put_and_wait(kiosk)
    assert {name: page.outcome.status for name, page in state.scores.items()} == {
        "conf": "SUCCESS",
        "ui": "SUCCESS",
    }
    assert state.policy == "appliance"
    checked = await asyncio.to_thread(
        pi.run, ["/opt/harmony/bin/harmony-agent", "check"], check=False
    )
    assert f"policy        appliance ({POLICY}): nothing but what it lists" in (
        checked.stdout.decode()
    )

    scores = tmp_path / "it.json"
    for entry, told in (
        (
            {"id": "it", "kind": "FileScore", "spec": {"path": "/etc/motd", "content": "x"}},
            f'refused by {POLICY}, line 3: paths = ["/etc/kiosk"]; to allow it, add "/etc/motd" to paths',
        ),
        (
            {"id": "it", "kind": "SystemdServiceScore", "spec": {"name": "cron.service"}},
            f'refused by {POLICY}, line 4: units = ["kiosk-*.service"]; to allow it, add "cron.service"',
        ),
        (
            {"id": "it", "kind": "DirectoryScore", "spec": {"path": "/etc/kiosk/more"}},
            f"refused by {POLICY}, line 2: kinds = ",
        ),
        (
            {
                "id": "it",
                "kind": "RegistryScore",
                "spec": {"host": "ghcr.io", "mirrors": ["cache.lan:5000/ghcr"]},
            },
            f'refused by {POLICY}, line 5: registries = ["ghcr.io"]; to allow it, add "cache.lan:5000/ghcr"',
        ),
    ):
        scores.write_text(json.dumps([entry]))
        generation = (await owned.read_seen()).wanted
        for command in ("push-score", "diff"):
            said = await plane.harmony(command, pi.name, str(scores))
            assert said.status == 3, said
            assert told in " ".join(f"{said.out} {said.err}".split())
        assert (await owned.read_seen()).wanted == generation, "something was pushed"


async def test_what_is_allowed_no_more_fails_and_stays_as_it_is(owned: Pi, pi: Box) -> None:
    await ruled(pi, owned, APPLIANCE)
    kept = FileScore(path="/etc/kiosk/kept", content="hello\n")
    assert isinstance(await owned.push(kept, id="kept"), Success)
    await ruled(pi, owned, 'preset = "appliance"\nkinds = ["FileScore"]\n')
    state = await until(owned, lambda state: code_of(state, "kept") == "PolicyRefused")
    assert isinstance(state.scores["kept"].outcome, Failure)
    assert pi.read("/etc/kiosk/kept") == b"hello\n"
    await owned.remove("kept")
    assert pi.run(["test", "-e", "/etc/kiosk/kept"], check=False).returncode
