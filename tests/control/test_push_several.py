"""One push to several devices, as a person types it: all get it or none does, and one exit code tells."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

import attrs
import pytest

from harmony_control.fleet import Fleet
from harmony_core.outcome import Outcome, Success
from tests.nats import Bus, serving

from .ground import Said, harmony
from .scripted_device import ScriptedDevice, failure, page

MOTD = "- {id: motd, kind: FileScore, spec: {path: /etc/motd, content: hello}}\n"
UNIT = "- {id: unit, kind: SystemdServiceScore, spec: {name: x.service}}\n"
BROKEN = failure("WriteFailed", "the disk is full")
ATTIC = 'labels.site == "attic"'


@attrs.frozen
class Several:
    """Three devices; two of them are kiosks, and a test speaks for each."""

    bus: Bus
    fleet: Fleet
    devices: Mapping[str, ScriptedDevice]

    async def harmony(self, *arguments: str, stdin: str = MOTD) -> Said:
        return await harmony(self.bus.home, *arguments, stdin=stdin)

    async def generations(self) -> dict[str, int]:
        """What was pushed to each device that anything was pushed to."""
        seen = await self.fleet.agents()
        return {each.agent_id: each.wanted for each in seen if each.wanted}

    async def pushed(self, *arguments: str, **outcomes: Outcome) -> Said:
        """What `push-score` says, when each device answers as *outcomes* have it."""
        before = await self.generations()
        running = asyncio.create_task(self.harmony("push-score", *arguments))
        answering = [self._answer(name, each, before) for name, each in outcomes.items()]
        async with asyncio.timeout(30):
            await asyncio.gather(*answering)
            return await running

    async def _answer(self, name: str, outcome: Outcome, before: Mapping[str, int]) -> None:
        agent_id = name.replace("_", "-")
        while (found := (await self.generations()).get(agent_id)) in {None, before.get(agent_id)}:
            await asyncio.sleep(0.05)
        assert found is not None
        device, is_ready = self.devices[agent_id], isinstance(outcome, Success)
        await device.report(device.state(found, {"motd": page(outcome, found)}, ready=is_ready))
        await device.beat()


@pytest.fixture
async def several(tmp_path: Path) -> AsyncGenerator[Several]:
    ids = ("door", "kiosk-1", "kiosk-2")
    async with serving(tmp_path, *ids) as bus, Fleet.connect(bus.home) as fleet:
        devices = {each: ScriptedDevice(await bus.device(each)) for each in ids}
        for each in devices.values():
            await each.report(each.state(0))
            await each.beat()
        yield Several(bus, fleet, devices)


async def test_a_list_a_pattern_and_what_is_true_name_devices(several: Several) -> None:
    said = await several.pushed("kiosk-1,door", "-", kiosk_1=Success(), door=Success())
    assert said.status == 0, said.err
    assert said.out.splitlines()[0] == "2 devices: door, kiosk-1"
    assert said.out.splitlines()[-1] == "2 of 2 devices converged"
    assert await several.generations() == {"door": 1, "kiosk-1": 1}

    said = await several.pushed("kiosk-*", "-", "--yes", kiosk_1=Success(), kiosk_2=Success())
    assert said.status == 0, said.err
    assert await several.generations() == {"door": 1, "kiosk-1": 2, "kiosk-2": 1}

    await several.fleet.device("kiosk-2").label({"site": "attic"})
    said = await several.pushed("--where", ATTIC, "-", "--yes", kiosk_2=Success())
    assert said.status == 0, said.err
    assert said.out.splitlines()[0] == "1 device: kiosk-2"


async def test_what_fails_on_one_is_told_of_that_one_and_ends_the_others_well(
    several: Several,
) -> None:
    said = await several.pushed("kiosk-1,kiosk-2", "-", kiosk_1=Success(), kiosk_2=BROKEN)
    assert said.status == 1
    lines = {" ".join(line.split()) for line in said.out.splitlines()}
    assert "kiosk-1 converged" in lines
    assert "kiosk-2 motd: FAILURE WriteFailed (permanent): the disk is full" in lines
    assert "1 of 2 devices converged" in lines


async def test_who_does_not_answer_is_told_by_name(several: Several) -> None:
    said = await several.pushed("door,kiosk-1", "-", "--timeout", "5", kiosk_1=Success())
    assert said.status == 4
    assert any(line.startswith("door ") and "NoAnswer" in line for line in said.out.splitlines())


async def test_where_one_cannot_take_it_none_gets_it(several: Several) -> None:
    """They offer files only."""
    said = await several.harmony("push-score", "door,kiosk-1", "-", "--json", stdin=MOTD + UNIT)
    assert said.status == 3
    told = said.documents
    assert [each["event"] for each in told] == ["chosen", "error", "error", "not pushed"]
    assert {each["code"] for each in told[1:3]} == {"UnknownKind"}
    assert await several.generations() == {}

    said = await several.harmony("push-score", "door,nobody", "-")
    assert said.status == 3
    assert "nobody" in said.out
    assert await several.generations() == {}


async def test_what_stands_for_devices_is_asked_about_first(several: Several) -> None:
    said = await several.harmony("push-score", "kiosk-*", "-")
    assert (said.status, "pass --yes" in said.err) == (2, True)
    assert await several.generations() == {}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("shop-*", "-"), "no device is called 'shop-*'"),
        (("--where", "labels.site == cellar", "-"), "is true of no device"),
        (("door,Kiosk", "-"), "'Kiosk' cannot be a device's id"),
        (("door,kiosk-1", "--all"), "are for one device"),
        (("door,kiosk-1", "-", "--prune"), "are for one device"),
        (("door,kiosk-1",), "name the Score files"),
        (("--class", "kiosk", "--where", "labels.site == attic", "-"), "give one of the two"),
    ],
)
async def test_what_cannot_be_meant_is_refused(
    several: Several, arguments: tuple[str, ...], told: str
) -> None:
    said = await several.harmony("push-score", *arguments, "--yes")
    assert said.status == 2
    assert told in said.err
    assert await several.generations() == {}


async def test_who_does_not_say_what_would_change_is_told(several: Several) -> None:
    said = await several.harmony("diff", "door,kiosk-1", "-", "--json")
    assert said.status == 4
    assert said.documents == [{"event": "chosen", "agents": ["door", "kiosk-1"]}]
    errors = [json.loads(line)["error"] for line in said.err.splitlines()]
    assert [(each["agent"], each["code"]) for each in errors] == [
        ("door", "NoAnswer"),
        ("kiosk-1", "NoAnswer"),
    ]


@pytest.mark.parametrize("command", ["diff", "push-score --dry-run"])
async def test_what_is_true_of_them_names_devices_of_a_diff_too(
    several: Several, command: str
) -> None:
    said = await several.harmony(*command.split(), "--where", "id == door", "-", "--json")
    assert said.status == 4
    assert said.documents == [{"event": "chosen", "agents": ["door"]}]

    said = await several.harmony("diff", "door")
    assert (said.status, "name the Score files" in said.err) == (2, True)


async def test_where_it_cannot_be_merged_into_what_one_has_none_gets_it(several: Several) -> None:
    """That one has no Score for it to wait for; and of another, somebody else has written the bucket."""
    await several.pushed("door", "-", door=Success())
    later = (
        "- {id: later, kind: FileScore, after: [motd], spec: {path: /etc/later, content: hello}}\n"
    )
    said = await several.harmony("push-score", "door,kiosk-1", "-", "--json", stdin=later)
    assert said.status == 2
    assert [each["event"] for each in said.documents] == ["chosen", "error", "not pushed"]
    assert (said.documents[1]["agent"], said.documents[1]["code"]) == (
        "kiosk-1",
        "UnknownDependency",
    )
    assert await several.generations() == {"door": 1}

    await several.bus.bucket("desired-state").create("kiosk-2", b"{}")
    said = await several.harmony("push-score", "door,kiosk-2", "-", "--json")
    assert said.status == 3
    assert (said.documents[1]["agent"], said.documents[1]["code"]) == (
        "kiosk-2",
        "UntrustedSignature",
    )
    assert (await several.generations())["door"] == 1


async def test_a_server_that_is_lost_while_it_is_waited_is_told_of_each(several: Several) -> None:
    running = asyncio.create_task(
        several.harmony("push-score", "door,kiosk-1", "-", "--timeout", "4", "--json")
    )
    async with asyncio.timeout(30):
        while len(await several.generations()) < 2:
            await asyncio.sleep(0.05)
        pid = several.bus.server.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            said = await running
        finally:
            os.kill(pid, signal.SIGCONT)
    assert said.status == 4
    told = {each["agent"] for each in said.documents if each["event"] == "error"}
    assert told == {"door", "kiosk-1"}
