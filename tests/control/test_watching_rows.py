"""The rows of a fleet as they change, on a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import attrs
import pytest

from harmony_control.bus.connection import Entry
from harmony_control.bus.reports import Reports
from harmony_control.enrol import retire
from harmony_control.fleet import DeviceRow, Fleet
from harmony_control.fleet_view import watching
from harmony_control.server.buckets import ensure_buckets
from harmony_core.outcome import Noop
from harmony_scores import FileScore
from tests.nats import Bus, serving

from .scripted_device import ScriptedDevice, failure, page

PATIENCE_S = 30


@attrs.frozen
class Rig:
    bus: Bus
    fleet: Fleet
    one: ScriptedDevice
    two: ScriptedDevice


def _a_second(_: Entry) -> timedelta:
    """For how long a heartbeat counts that does not say."""
    return timedelta(seconds=1)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncGenerator[Rig]:
    async with serving(tmp_path, "pi-1", "pi-2") as bus, Fleet.connect(bus.home) as fleet:
        one, two = [ScriptedDevice(await bus.device(name)) for name in ("pi-1", "pi-2")]
        yield Rig(bus, fleet, one, two)


async def _until(
    changes: AsyncIterator[list[DeviceRow]], agent_id: str, holds: Callable[[DeviceRow], bool]
) -> list[DeviceRow]:
    """The rows of that device on the way to one of which it holds."""
    passed: list[DeviceRow] = []
    async with asyncio.timeout(PATIENCE_S):
        async for rows in changes:
            passed += [each for each in rows if each.id == agent_id]
            if passed and holds(passed[-1]):
                return passed
    raise AssertionError(passed)


async def test_the_rows_of_a_fleet_are_of_every_device(rig: Rig) -> None:
    await rig.one.report(rig.one.state(0, {"motd": page(Noop(), 0)}))
    await rig.one.beat()
    one, two = await rig.fleet.rows()
    assert (one.id, one.device, one.update, one.workloads) == (
        "pi-1",
        "Online",
        "UpToDate",
        "Healthy",
    )
    assert (two.id, two.device, two.workloads) == ("pi-2", "Never", "Unknown")


async def test_watching_begins_with_all_rows_and_tells_only_what_changes(rig: Rig) -> None:
    await rig.one.report(rig.one.state(0))
    await rig.one.beat()
    async with rig.fleet.watch_rows() as changes:
        first = await anext(changes)
        assert [each.device for each in first] == ["Online", "Never"]
        await rig.two.beat()
        passed = await _until(changes, "pi-2", lambda row: row.device == "Online")
        assert passed[-1].workloads == "Unknown"
        await rig.one.report(rig.one.state(0, {"a": page(failure("Bad", "no"), 0)}, ready=False))
        passed = await _until(changes, "pi-1", lambda row: row.workloads == "Error")
        assert passed[-1].reason == "1 of 1 Scores failed: a: Bad"


async def test_what_is_pushed_is_out_of_date_until_the_device_has_it(rig: Rig) -> None:
    await rig.one.report(rig.one.state(0))
    await rig.one.beat()
    async with rig.fleet.watch_rows() as changes:
        assert [each.update for each in await anext(changes)] == ["UpToDate", "UpToDate"]
        await rig.fleet.device("pi-1").put({"a": FileScore(path="/etc/a", content="a")})
        passed = await _until(changes, "pi-1", lambda row: row.update == "OutOfDate")
        assert passed[-1].wanted_generation == 1
        await rig.one.report(rig.one.state(1, {"a": page(Noop(), 1)}))
        await _until(changes, "pi-1", lambda row: row.update == "UpToDate")


async def test_labels_are_those_that_were_signed(rig: Rig) -> None:
    await rig.fleet.device("pi-1").label({"site": "attic"})
    async with rig.fleet.watch_rows() as changes:
        assert (await anext(changes))[0].labels == {"site": "attic"}
        wanted = rig.bus.bucket("desired-state")
        signed = await wanted.get("pi-1")
        assert signed is not None
        payload = signed.value.partition(b'"payload":"')[2].partition(b'"')[0]
        forged = b'{"payload":"' + payload + b'","payloadType":"x","signatures":[]}'
        await wanted.put("pi-1", forged)
        await _until(changes, "pi-1", lambda row: row.labels == {})


async def test_labels_that_were_signed_for_another_device_are_not_its_own(rig: Rig) -> None:
    await rig.fleet.device("pi-1").label({"site": "attic"})
    wanted = rig.bus.bucket("desired-state")
    signed = await wanted.get("pi-1")
    assert signed is not None
    await wanted.put("pi-2", signed.value)
    one, two = await rig.fleet.rows()
    assert (one.labels, two.labels) == ({"site": "attic"}, {})


async def test_the_server_tells_that_a_device_is_silent_and_it_is_back_at_its_next_heartbeat(
    rig: Rig,
) -> None:
    await ensure_buckets(rig.bus.admin, heartbeat_age_s=1.0)
    reports = Reports(rig.bus.home, rig.bus.admin)
    async with watching.watching_rows(reports, heartbeat_age_s=1.0) as changes:
        await anext(changes)
        await rig.one.report(rig.one.state(0))
        await rig.one.beat()
        states = await _until(changes, "pi-1", lambda row: row.device == "Silent")
        assert "Online" in [each.device for each in states]
        await rig.one.beat()
        await _until(changes, "pi-1", lambda row: row.device == "Online")
        states = await _until(changes, "pi-1", lambda row: row.device == "Offline")
        assert "Silent" in [each.device for each in states]
        assert states[-1].last_seen is not None


async def test_where_nobody_tells_that_a_heartbeat_has_ended_a_clock_here_does(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_LATE_S", 0.1)
    reports = Reports(rig.bus.home, rig.bus.admin)
    await rig.one.beat()
    async with watching.watching_rows(reports, heartbeat_age_s=1.0) as changes:
        assert (await anext(changes))[0].device == "Online"
        # Nobody beats, and the server would tell of it only much later.
        (row,) = await _until(changes, "pi-1", lambda row: row.device == "Silent")
        assert row.workloads == "Unknown"


async def test_an_older_agent_that_ended_long_ago_does_not_seem_to_live_to_who_begins_to_watch(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not say how long its heartbeats count, and the server keeps them for half an hour."""
    monkeypatch.setattr("harmony_control.bus.lifetimes.lifetime_of", _a_second)
    monkeypatch.setattr("harmony_control.bus.reports.HEARTBEAT_AGE_S", 0.5)
    await rig.one.report(rig.one.state(0))
    await rig.one.beat()
    await asyncio.sleep(2)
    async with rig.fleet.watch_rows() as changes:
        assert [each.device for each in await anext(changes)] == ["Offline", "Never"]
        # By then all that stands there was told once more.
        await rig.two.beat()
        passed: list[DeviceRow] = []
        async for rows in changes:
            passed += rows
            if any(each.id == "pi-2" for each in rows):
                break
        assert {each.device for each in passed if each.id == "pi-1"} <= {"Offline"}


async def test_what_a_stranger_writes_is_unverified(rig: Rig) -> None:
    await rig.one.report(rig.one.state(0))
    await rig.one.beat()
    async with rig.fleet.watch_rows() as changes:
        assert (await anext(changes))[0].device == "Online"
        await rig.bus.bucket("heartbeat").put("pi-1", b'{"agent_id": "pi-1"}')
        passed = await _until(changes, "pi-1", lambda row: row.device == "Unverified")
        assert "not signed with the key" in passed[-1].reason


async def test_a_device_that_is_retired_leaves_at_once_and_stays_away(rig: Rig) -> None:
    await ensure_buckets(rig.bus.admin, heartbeat_age_s=1.0)
    reports = Reports(rig.bus.home, rig.bus.admin)
    for each in (rig.one, rig.two):
        await each.report(each.state(0))
    async with watching.watching(reports, heartbeat_age_s=1.0) as watch:
        changes = watch.rows()
        assert [row.id for row in await anext(changes)] == ["pi-1", "pi-2"]
        await rig.one.beat()
        await _until(changes, "pi-1", lambda row: row.device == "Online")
        await retire(rig.bus.home, rig.bus.admin, "pi-1")
        passed = await _until(changes, "pi-1", lambda row: row.is_gone)
        assert passed[-1].reason == "it was taken out of the fleet"
        assert [each.agent_id for each in watch.read()] == ["pi-2"]
        # By then the server has told that the mark in place of its heartbeat has ended, too.
        await rig.two.beat()
        await _until(changes, "pi-2", lambda row: row.device == "Online")
        await _until(changes, "pi-2", lambda row: row.device == "Silent")
        assert [each.agent_id for each in watch.read()] == ["pi-2"]
        assert [each.agent_id for each in await reports.read_all_seen()] == ["pi-2"]
        # Let in anew under its name, it is another one.
        await rig.bus.enrol("pi-1")
        anew = ScriptedDevice(await rig.bus.device("pi-1"))
        await anew.beat()
        (row,) = await _until(changes, "pi-1", lambda row: row.device == "Online")
        assert not row.is_gone


async def test_a_device_that_only_takes_back_what_it_said_stays(rig: Rig) -> None:
    await rig.one.report(rig.one.state(0, {"a": page(Noop(), 0)}))
    async with rig.fleet.watch_rows() as changes:
        assert [row.scores for row in await anext(changes)] == [1, 0]
        await rig.bus.bucket("actual-state").clear("pi-1")
        (row,) = await _until(changes, "pi-1", lambda row: row.scores == 0)
        assert not row.is_gone


async def test_however_many_watch_the_server_tells_it_once_and_the_last_one_ends_it(
    rig: Rig,
) -> None:
    async def count_consumers() -> int:
        answer = await rig.bus.admin.request("$JS.API.STREAM.INFO.KV_heartbeat", b"")
        count: int = json.loads(answer.data)["state"]["consumer_count"]
        return count

    async with rig.fleet.watch_rows() as one:
        await anext(one)
        async with rig.fleet.watch_rows() as other:
            assert [each.device for each in await anext(other)] == ["Never", "Never"]
            assert await count_consumers() == 1
            await rig.two.beat()
            for changes in (one, other):
                await _until(changes, "pi-2", lambda row: row.device == "Online")
        assert await count_consumers() == 1
        await rig.one.beat()
        await _until(one, "pi-1", lambda row: row.device == "Online")
    async with asyncio.timeout(PATIENCE_S):
        while await count_consumers():
            await asyncio.sleep(0.05)
