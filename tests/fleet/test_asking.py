"""A real Pi that is asked: logs of a real unit and a real container, what would change, what was changed."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

from harmony_control.device import Device
from harmony_core.outcome import Success
from harmony_core.resources.container_parts import LogDriver
from harmony_core.score import Score
from harmony_pi_topology import PiTopology
from harmony_scores import ContainerScore, FileScore, SystemdServiceScore
from tests.box import Bed, Box
from tests.fleet.ground import AGENT, TREE, ControlPlane, Host, in_shell

Pi = Device[PiTopology]

TICKING = "i=0; while true; do i=$((i+1)); echo tick $i; sleep 1; done"


def unit(say: str = TICKING, *, name: str = "ticker.service") -> SystemdServiceScore:
    return SystemdServiceScore(name=name, exec_start=("/bin/sh", "-c", say))


@pytest.fixture(scope="module")
def image(bed: Bed) -> str:
    return bed.registry.push_busybox(
        "ticker", "1", command=in_shell("echo out; echo err >&2", "sleep 1000")
    )


async def until_told(plane: ControlPlane, *arguments: str, wanted: str) -> list[str]:
    """The lines that a command prints, once one of them has *wanted* in it."""
    async with asyncio.timeout(30):
        while True:
            said = await plane.harmony(*arguments)
            assert said.status == 0, said.err
            if wanted in said.out:
                return said.out.splitlines()
            await asyncio.sleep(0.2)


async def test_what_a_unit_has_logged_is_told(device: Pi, plane: ControlPlane) -> None:
    assert isinstance(
        await device.push(unit("echo one; echo two; sleep 1000"), id="ticker"), Success
    )
    lines = await until_told(plane, "logs", device.id, "ticker", wanted="two")
    assert [line.split("  ", 1)[1] for line in lines] == ["one", "two"]
    assert all(line.split()[2] == "ticker.service" for line in lines)


@pytest.mark.parametrize("log_driver", ["k8s-file", "journald"])
async def test_what_a_container_has_logged_is_told_with_its_stream(
    device: Pi, plane: ControlPlane, image: str, log_driver: LogDriver
) -> None:
    name = f"in-{log_driver}"
    score = ContainerScore(name=name, image=image, log_driver=log_driver)
    assert isinstance(await device.push(score, id="box"), Success)
    await until_told(plane, "logs", device.id, "box", wanted="err")
    said = await plane.harmony("logs", device.id, "box", "--json")
    told = {(each["resource"], each["stream"], each["text"]) for each in said.documents}
    assert told == {(f"container:{name}", "out", "out"), (f"container:{name}", "err", "err")}


async def test_a_log_is_followed_without_a_gap_while_the_agent_is_started_anew(
    device: Pi, plane: ControlPlane, pi: Box
) -> None:
    # Under a name of its own, since the journal keeps what others of the same have logged.
    await device.push(unit(name="ticking.service"), id="ticker")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "harmony_control.cli", "--home", str(plane.home.root)),
        *("logs", device.id, "ticker", "-f", "--json"),
        cwd=TREE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None

    async def ticks(count: int) -> list[int]:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            lines = [json.loads(await process.stdout.readline()) for _ in range(count)]
        return [int(each["text"].split()[1]) for each in lines]

    try:
        told = await ticks(3)
        await asyncio.to_thread(pi.run, ["systemctl", "restart", AGENT])
        told += await ticks(8)
    finally:
        process.kill()
        await process.communicate()
    assert told == list(range(told[0], told[0] + 11))


async def test_what_would_change_is_what_then_changes(device: Pi, host: Host, image: str) -> None:
    """What would change is asked for by everybody (pyinfra-dev/pyinfra#985), and is worth nothing where
    something else is done then (pyinfra-dev/pyinfra#1370)."""
    await device.put_and_wait(
        {
            "motd": FileScore(path="/etc/motd.d/hello", content="hello\n"),
            "ticker": unit(),
            "box": ContainerScore(name="ticker", image=image),
        }
    )
    wanted: dict[str, Score[PiTopology]] = {
        "motd": FileScore(path="/etc/motd.d/hello", content="good bye\n"),
        "ticker": unit("sleep 1000"),
        "box": ContainerScore(name="ticker", image=image, environment={"A": "b"}),
    }
    before = host.everything()
    found = {each.planned.score: each for each in await device.diff(wanted)}
    assert host.everything() == before
    assert {name: each.planned.status for name, each in found.items()} == dict.fromkeys(
        wanted, "SUCCESS"
    )
    state = await device.put_and_wait(wanted)
    async with device.events(lines=1000) as events:
        done = {
            each["resource"]: tuple(each["actions"])
            async for each in events
            if each["generation"] == state.generation
        }
    planned = {
        change.resource: change.actions for each in found.values() for change in each.changes
    }
    assert done == planned


async def test_scores_are_looked_at_when_somebody_wants_it(device: Pi, plane: ControlPlane) -> None:
    await device.push(FileScore(path="/srv/asked", content="x"), id="asked")
    said = await plane.harmony("reconcile", device.id)
    assert said.status == 0
    assert said.out.split()[:2] == ["asked", "SUCCESS"]
