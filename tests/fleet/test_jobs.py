"""Scripts on a real Pi: only where the device itself allows them, once, and told of in full."""

from __future__ import annotations

import asyncio
from typing import TypeAlias

import pytest

from harmony_control.device import Device
from harmony_core.errors import PolicyRefused
from harmony_core.outcome import Noop, Success
from harmony_pi_topology import PiTopology
from harmony_scores import ShellJobScore
from tests.box import Box
from tests.fleet.ground import AGENT, ControlPlane, allowed, code_of, until

Pi: TypeAlias = Device[PiTopology]

HELLO = ShellJobScore(name="hello", script="echo hello; echo careful >&2\n")


async def test_a_device_runs_no_scripts_unless_it_was_told_to_on_the_device_itself(
    device: Pi, pi: Box
) -> None:
    with pytest.raises(PolicyRefused, match='jobs = "confined"'):
        await device.push(HELLO, id="it")
    taken = await device.put({"it": HELLO}, force=True)
    assert code_of(await device.wait(taken), "it") == "PolicyRefused"
    await allowed(pi, device, "confined")
    await until(device, lambda state: state.scores["it"].outcome.status == "SUCCESS")
    privileged = HELLO.model_copy(update={"privileged": True})
    with pytest.raises(PolicyRefused, match=r'line 2: jobs = "confined"; .*make it jobs = "any"'):
        await device.push(privileged, id="it")


async def test_what_was_run_is_told_in_full_and_to_the_end(
    plane: ControlPlane, device: Pi, pi: Box
) -> None:
    await allowed(pi, device, "confined")
    assert isinstance(await device.push(HELLO, id="it"), Success)
    said = await plane.harmony("events", pi.name, "--json")
    assert said.status == 0, said.err
    begun, ended = said.documents[-2:]
    assert begun["actions"] == ["begun"]
    assert "+echo hello; echo careful >&2\n" in begun["diff"]
    assert begun["signed_by"]
    assert ended["actions"] == ["ran to its end"]
    after = ended["after"]
    assert (after["exit_code"], after["stdout"], after["stderr"]) == (0, "hello", "careful")
    assert len(after["sha256"]) == 64
    assert isinstance(await device.push(HELLO, id="it"), Noop)


async def test_a_script_outlives_the_agent_and_is_not_run_twice(device: Pi, pi: Box) -> None:
    await allowed(pi, device, "any")
    await asyncio.to_thread(pi.run, ["rm", "-f", "/run/harmony-runs"])
    slow = ShellJobScore(
        name="slow", script="echo x >> /run/harmony-runs; sleep 5; echo done", privileged=True
    )
    taken = await device.put({"it": slow})
    await asyncio.to_thread(pi.wait_for, ["test", "-e", "/run/harmony-runs"])
    await asyncio.to_thread(pi.run, ["systemctl", "kill", "-s", "KILL", AGENT])
    state = await device.wait(taken)
    assert state.scores["it"].outcome.status == "SUCCESS"
    assert pi.read("/run/harmony-runs") == b"x\n"
    assert state.scores["it"].resources["job:slow"]["stdout"] == "done"


async def test_one_that_was_cut_short_by_a_reboot_is_told_and_not_run_again(
    device: Pi, pi: Box
) -> None:
    await allowed(pi, device, "confined")
    await device.put({"it": ShellJobScore(name="endless", script="sleep 1000")})
    await asyncio.to_thread(pi.wait_for, ["systemctl", "is-active", "harmony-job-endless"])
    await asyncio.to_thread(pi.reboot)
    state = await until(device, lambda state: code_of(state, "it") not in {"RUNNING", "SUCCESS"})
    assert code_of(state, "it") == "JobInterrupted"


@pytest.mark.parametrize("jobs", ["everything", "Any"])
async def test_a_policy_that_is_none_is_told_at_start(pi: Box, device: Pi, jobs: str) -> None:
    path = "/etc/harmony/policy.toml"
    before = pi.read(path)
    pi.write(path, f'preset = "open"\njobs = "{jobs}"\n')
    done = await asyncio.to_thread(pi.run, ["/opt/harmony/bin/harmony-agent", "check"], check=False)
    pi.write(path, before)
    assert done.returncode
    assert b"policy.toml: jobs: " in done.stdout
