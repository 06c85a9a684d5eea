"""What devices say, and what of it is believed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from harmony_control.bus import lifetimes, reports
from harmony_control.bus.connection import Entry
from harmony_control.fleet import Fleet, Seen
from harmony_control.server.buckets import ensure_buckets
from harmony_core.errors import UsageError
from harmony_core.outcome import Noop
from harmony_core.wire.actual_state import Heartbeat, to_json
from harmony_scores import FileScore
from tests.nats import Bus, serving

from .scripted_device import BOOT, ScriptedDevice, page

GARBAGE = [b"", b"{", b"\xff\xfe", b"null", b"[]", b'{"agent_id": "pi-1"}', b"[" * 50_000]


@attrs.frozen
class Rig:
    bus: Bus
    fleet: Fleet
    one: ScriptedDevice
    two: ScriptedDevice

    async def seen(self) -> dict[str, Seen]:
        return {each.agent_id: each for each in await self.fleet.agents()}


def _a_second(_: Entry) -> timedelta:
    """For how long a heartbeat counts that does not say."""
    return timedelta(seconds=1)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncGenerator[Rig]:
    async with serving(tmp_path, "pi-1", "pi-2", "pi-3") as bus, Fleet.connect(bus.home) as fleet:
        one, two = [ScriptedDevice(await bus.device(name)) for name in ("pi-1", "pi-2")]
        yield Rig(bus, fleet, one, two)


async def test_every_device_is_shown_as_it_says(rig: Rig) -> None:
    await rig.one.report(rig.one.state(3, {"motd": page(Noop(), 3)}))
    await rig.one.beat()
    seen = await rig.seen()
    assert list(seen) == ["pi-1", "pi-2", "pi-3"]
    assert seen["pi-1"].presence == "Heard"
    assert seen["pi-1"].state == await rig.fleet.device("pi-1").state()
    assert seen["pi-2"] == Seen(agent_id="pi-2", presence="Never")


async def test_a_device_that_has_reported_and_is_not_heard_is_offline(rig: Rig) -> None:
    await rig.one.report(rig.one.state(3))
    (seen, *_) = await rig.fleet.agents()
    assert seen.presence == "Offline"
    alone = await rig.fleet.device("pi-1").read_seen()
    assert (alone.presence, alone.state) == ("Offline", seen.state)


async def test_a_device_whose_heartbeat_expires_is_silent_before_it_is_offline(rig: Rig) -> None:
    await ensure_buckets(rig.bus.admin, heartbeat_age_s=1.0)
    await rig.one.report(rig.one.state(3))
    await rig.one.beat()
    found: list[str] = []
    async with asyncio.timeout(20):
        while "Offline" not in found:
            presence = (await rig.fleet.device("pi-1").read_seen()).presence
            if presence not in found:
                found.append(presence)
            await asyncio.sleep(0.05)
    assert found[-2:] == ["Silent", "Offline"]


async def test_a_device_that_says_that_it_lives_for_ever_is_silent_after_90_s_all_the_same(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ensure_buckets(rig.bus.admin, heartbeat_age_s=1.0)
    await rig.one.report(rig.one.state(3))
    await rig.one.beat(lifetime="never")
    await asyncio.sleep(2)
    assert await rig.bus.bucket("heartbeat").get("pi-1") is not None, "the server keeps it for ever"
    assert (await rig.seen())["pi-1"].presence == "Heard"
    monkeypatch.setattr(lifetimes, "lifetime_of", _a_second)
    assert (await rig.seen())["pi-1"].presence == "Silent"
    assert (await rig.fleet.device("pi-1").read_seen()).presence == "Silent"
    assert await rig.fleet.device("pi-1").heartbeat() is None


async def test_a_device_says_nothing_of_another(rig: Rig) -> None:
    await rig.one.report(rig.one.state(3))
    await rig.two.report(attrs.evolve(rig.two.state(9), agent_id="pi-1"))
    seen = await rig.seen()
    assert seen["pi-1"].state is not None
    assert seen["pi-1"].state.generation == 3
    assert seen["pi-2"].state is None
    assert seen["pi-2"].problem == "it says that it is 'pi-1'"
    assert await rig.fleet.device("pi-2").state() is None


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda each: repr(each[:12]))
async def test_what_one_device_garbles_hides_no_other_and_stops_no_push(
    rig: Rig, garbage: bytes
) -> None:
    await rig.one.report(rig.one.state(3))
    await rig.two.report_bytes(garbage)
    await rig.bus.bucket("heartbeat").put("pi-2", garbage or b"?")
    seen = await rig.seen()
    assert seen["pi-1"].state is not None
    assert seen["pi-2"].state is None
    assert seen["pi-2"].problem
    assert await rig.fleet.device("pi-2").heartbeat() is None
    pushed = await rig.fleet.device("pi-2").put({"a": FileScore(path="/etc/a", content="a")})
    assert pushed.generation == 1
    assert "cannot be read" in pushed.warnings[0]


@pytest.mark.parametrize("field", ["counter", "generation"])
async def test_a_number_that_is_too_large_hides_no_other_device(rig: Rig, field: str) -> None:
    """The databases of those who read have no room for it."""
    too_large: dict[str, Any] = {field: 2**63}
    await rig.one.report(rig.one.state(3))
    await rig.two.report_bytes(to_json(attrs.evolve(rig.two.state(3), **too_large)))
    beat = Heartbeat(
        agent_id="pi-2",
        boot_id=BOOT,
        agent_version="1.2.3",
        generation=0,
        observed_generation=0,
        queue_seq=1,
    )
    await rig.two.device.say("heartbeat", to_json(attrs.evolve(beat, **too_large)))
    seen = await rig.seen()
    assert seen["pi-1"].state is not None
    assert (seen["pi-2"].state, seen["pi-2"].presence) == (None, "Offline")
    assert "must be a whole number between" in seen["pi-2"].problem
    assert await rig.fleet.device("pi-2").heartbeat() is None


async def test_watching_a_fleet_passes_over_what_cannot_be_read(rig: Rig) -> None:
    await rig.one.report_bytes(b"garbage")
    await rig.two.report(rig.two.state(2))
    async with asyncio.timeout(10), rig.fleet.watch() as states:
        async for state in states:
            assert state.agent_id == "pi-2"
            break


async def test_watching_begins_with_the_newest_and_goes_on(rig: Rig) -> None:
    for generation in (1, 2):
        await rig.one.report(rig.one.state(generation))
    found: list[int] = []
    async with asyncio.timeout(10), rig.fleet.device("pi-1").watch() as states:
        async for state in states:
            found.append(state.generation)
            if state.generation == 4:
                break
            await rig.one.report(rig.one.state(state.generation + 1))
    assert found == [2, 3, 4]


async def test_what_the_compare_and_swap_refused_is_not_told(rig: Rig) -> None:
    await rig.one.report(rig.one.state(1))
    async with asyncio.timeout(10), rig.fleet.device("pi-1").watch() as states:
        assert (await anext(states)).generation == 1
        with pytest.raises(Exception, match="somebody else wrote first"):
            await rig.one.device.bucket("actual-state").update("pi-1", b"{}", last=0)
        await rig.one.report(rig.one.state(2))
        assert (await anext(states)).generation == 2


async def test_what_cannot_be_a_devices_id_is_refused(rig: Rig) -> None:
    for name in ("*", "pi-1.>", "", "Pi", "../pi-1"):
        with pytest.raises(UsageError, match="cannot be a device's id"):
            rig.fleet.device(name)


async def test_a_device_whose_heart_has_not_beaten_yet_is_asked_of_its_policy_all_the_same(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = rig.fleet.device("pi-1")
    await rig.one.report(attrs.evolve(rig.one.state(0), policy="open"))
    heard = await device.put({"motd": FileScore(path="/etc/motd", content="hello\n")})
    assert "pi-1 did not say whether its policy allows this" in " ".join(heard.warnings)
    # One that said something long ago, and nothing since, is away: it refuses for itself.
    monkeypatch.setattr(reports, "HEARTBEAT_AGE_S", 0.0)
    silent = await device.put({"motd": FileScore(path="/etc/motd", content="bye\n")})
    assert not silent.warnings
