"""The API over a real bus: what devices have signed is what is told, live."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import httpx
import pytest

from harmony_control.enrol import retire
from harmony_core.outcome import Noop, Running
from harmony_core.wire.inventory import Disk
from harmony_core.wire.replies import Alive, End, Item, LoggedLine, to_item
from harmony_core.wire.vitals import Vitals
from tests.control.scripted_device import NOON, failure, page

from .answering import answering
from .ground import Ground

HOSTILE = "<script>alert(1)</script>"


@asynccontextmanager
async def events(
    client: httpx.AsyncClient, path: str, **headers: str
) -> AsyncGenerator[AsyncIterator[tuple[str, Any, str]]]:
    """Name, data and id of each server-sent event."""
    async with client.stream("GET", path, headers=headers) as reply:
        assert reply.status_code == 200, await reply.aread()

        async def each() -> AsyncGenerator[tuple[str, Any, str]]:
            fields: dict[str, str] = {}
            async for line in reply.aiter_lines():
                name, colon, value = line.partition(": ")
                if colon and name:
                    fields[name] = value
                elif not line and "event" in fields:
                    yield fields["event"], json.loads(fields["data"]), fields.get("id", "")
                    fields = {}

        yield each()


async def until(told: AsyncIterator[tuple[str, Any, str]], name: str) -> tuple[Any, str]:
    async for kind, data, tag in told:
        if kind == name:
            return data, tag
    raise AssertionError(f"no {name} came")


async def whole_fleet(client: httpx.AsyncClient) -> dict[str, Any]:
    """The fleet, once it was read from the bus."""
    async with asyncio.timeout(20):
        while (await client.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.05)
    found: dict[str, Any] = (await client.get("/api/fleet")).json()
    return found


async def test_the_fleet_in_columns_as_its_devices_say(ground: Ground) -> None:
    await ground.one.report(ground.one.state(0))
    await ground.one.beat()
    async with ground.site.client("viewer") as client:
        found = await whole_fleet(client)
        async with events(client, f"/api/fleet/changes?since={found['tag']}") as told:
            assert (await until(told, "source"))[0] == {"problem": ""}
            await ground.two.report(ground.two.state(0, {"web": page(failure("X", "y"), 0)}))
            await ground.two.beat()
            rows: dict[str, str] = {}
            tag = ""
            while rows.get("pi-2", "")[2:] != "E":
                data, tag = await until(told, "changes")
                rows |= {each[0]: each[1] for each in data["rows"]}
        assert rows["pi-2"].startswith("O")
        reply = await client.get("/api/fleet")
        assert reply.headers["etag"] == f'"{tag}"'
        assert reply.headers["content-encoding"] == "gzip"
        found = reply.json()
        assert found["ids"] == ["pi-1", "pi-2", "pi-3"]
        assert found["states"]["workloads"]["Error"] == "E"
        assert found["device"] == "OON"
        assert "web" in found["reasons"][1]
        same = await client.get("/api/fleet", headers={"If-None-Match": f'"{tag}"'})
        assert (same.status_code, same.content) == (304, b"")


async def test_a_device_that_is_retired_leaves_the_board_at_once(ground: Ground) -> None:
    await ground.one.report(ground.one.state(0))
    await ground.one.beat()
    async with ground.site.client("viewer") as client:
        tag = (await whole_fleet(client))["tag"]
        async with events(client, f"/api/fleet/changes?since={tag}") as told:
            await retire(ground.fleet.home, ground.bus.admin, "pi-1")
            gone: list[str] = []
            while not gone:
                gone = (await until(told, "changes"))[0]["gone"]
        assert gone == ["pi-1"]
        assert (await client.get("/api/fleet")).json()["ids"] == ["pi-2", "pi-3"]
        assert (await client.get("/api/devices/pi-1")).status_code == 404


async def test_who_comes_back_is_told_what_was_missed_or_to_begin_anew(ground: Ground) -> None:
    async with ground.site.client("viewer") as client:
        tag = (await whole_fleet(client))["tag"]
        await ground.one.report(ground.one.state(0))
        await ground.one.beat()
        async with events(client, "/api/fleet/changes", **{"Last-Event-ID": tag}) as told:
            data, _ = await until(told, "changes")
            assert "pi-1" in {each[0] for each in data["rows"]}
        for unknown in ("0000-1", "x", "²"):
            path = f"/api/fleet/changes?since={unknown}"
            async with events(client, path) as told:
                assert (await anext(told))[0] == "reset"


async def test_a_device_with_all_that_it_says(ground: Ground) -> None:
    drifted = attrs.evolve(
        page(failure("ImageNotFound", HOSTILE), 0),
        resources={"container/web": {"state": "absent", "ready": False}},
        resources_total=2,
        resources_ready=1,
    )
    scores = {"a": page(Noop(), 0), "web": drifted, "db": page(Running(reason="NotReady"), 0)}
    await ground.one.report(ground.one.state(0, scores, ready=False))
    await ground.one.beat()
    async with ground.site.client("viewer") as client:
        await whole_fleet(client)
        found = (await client.get("/api/devices/pi-1")).json()
    assert [each["id"] for each in found["scores"]] == ["web", "db", "a"]
    web = found["scores"][0]
    assert (web["error_code"], web["message"]) == ("ImageNotFound", HOSTILE)
    assert web["resources"][0]["is_ready"] is False
    assert [each["type"] for each in found["conditions"]] == ["Ready"]
    assert found["presence"] == "Heard"


async def test_how_a_device_is_itself_and_of_what_it_consists(ground: Ground) -> None:
    disk = Disk(name="mmcblk0", size_bytes=32 * 10**9, model=HOSTILE)
    async with ground.site.client("viewer") as client:
        await whole_fleet(client)
        found = (await client.get("/api/devices/pi-1")).json()
        assert (found["vitals"], found["inventory"], found["inventory_problem"]) == ([], [], "")
        await ground.one.beat(vitals=Vitals(temperature_c=51.5, throttled=0x5_0005))
        await ground.one.tell_inventory(model="Raspberry Pi 5", cpus=4, disks=(disk,))
        found = (await client.get("/api/devices/pi-1")).json()
        vitals = {each["name"]: each["text"] for each in found["vitals"]}
        assert vitals["heat"] == "51.5 °C"
        assert vitals["power"].startswith("under-voltage now, throttled now")
        inventory = {each["name"]: each["text"] for each in found["inventory"]}
        assert inventory["model"] == "Raspberry Pi 5"
        assert inventory["disk"] == f"mmcblk0, 32.0 GB, {HOSTILE}"
        # What somebody else has written is not believed, and that is told.
        await ground.bus.bucket("inventory").put("pi-1", b"{}")
        found = (await client.get("/api/devices/pi-1")).json()
        assert found["inventory"] == []
        assert "not signed" in found["inventory_problem"]


async def test_a_list_in_pages_chosen_and_sorted(ground: Ground) -> None:
    async with ground.site.client("viewer") as client:
        await whole_fleet(client)
        found = (await client.get("/api/devices?sort=-id&limit=2")).json()
        assert [each["id"] for each in found["devices"]] == ["pi-3", "pi-2"]
        assert found["total"] == 3
        rest = (await client.get("/api/devices?sort=-id&limit=2&offset=2")).json()
        assert [each["id"] for each in rest["devices"]] == ["pi-1"]
        assert (await client.get("/api/devices?q=PI-2 never")).json()["total"] == 1
        for wrong in ("sort=x", "limit=0", "limit=501", "offset=-1", "offset=x"):
            assert (await client.get(f"/api/devices?{wrong}")).status_code == 400


async def test_a_device_that_there_is_not_is_not_found(ground: Ground) -> None:
    async with ground.site.client("operator") as client:
        await whole_fleet(client)
        for path in ("", "/events", "/events/live", "/logs?score=web"):
            reply = await client.get(f"/api/devices/pi-9{path}")
            assert (reply.status_code, reply.json()["code"]) == (404, "UnknownDevice")
        reply = await client.post("/api/devices/pi-9/reconcile", json={})
        assert reply.status_code == 404


async def test_a_device_that_is_away_is_told_as_that(ground: Ground) -> None:
    async with ground.site.client("operator") as client:
        await whole_fleet(client)
        # At once: each waits for a word of the device.
        asked = asyncio.create_task(
            client.post("/api/devices/pi-3/reconcile", json={"score": "web"})
        )
        async with events(client, "/api/devices/pi-3/logs?score=web") as told:
            problem, _ = await until(told, "problem")
        assert problem["code"] == "NoAnswer"
        assert "pi-3 was never heard of" in problem["message"]
        reply = await asked
        assert (reply.status_code, reply.json()["code"]) == (504, "NoAnswer")


async def test_as_many_as_may_watch_and_no_more(ground: Ground) -> None:
    async with ground.site.client("viewer") as client:
        await whole_fleet(client)
        seats = ground.site.web.watchers
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(seats, "most_of_one", 1)
            async with events(client, "/api/fleet/changes") as told:
                await until(told, "source")
                reply = await client.get("/api/fleet/changes")
                assert (reply.status_code, reply.json()["code"]) == (503, "TooManyWatchers")
        async with asyncio.timeout(20):
            while seats.count:
                await asyncio.sleep(0.02)


async def test_a_stream_ends_with_its_session(ground: Ground) -> None:
    async with ground.site.client("viewer") as client, asyncio.timeout(20):
        await whole_fleet(client)
        async with events(client, "/api/fleet/changes") as told:
            await until(told, "source")
            ground.site.users.remove("viewer")
            ground.site.web.live.notify()
            assert {each[0] async for each in told} <= {"changes", "rollouts", "alive"}


async def test_when_the_bus_is_away_the_page_is_told(ground: Ground) -> None:
    async with ground.site.client("viewer") as client, asyncio.timeout(40):
        await whole_fleet(client)
        async with events(client, "/api/fleet/changes") as told:
            assert (await until(told, "source"))[0] == {"problem": ""}
            assert ground.bus.server.pid is not None
            os.kill(ground.bus.server.pid, signal.SIGKILL)
            problem, _ = await until(told, "source")
            assert problem == {"problem": "the message server is not reachable"}
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/healthz")).status_code == 200


async def test_what_a_score_logs_comes_live(ground: Ground) -> None:
    line = LoggedLine(resource="container:web", at=NOON, stream="stderr", text=HOSTILE, cursor="1")

    def answer(asked: dict[str, Any]) -> list[Alive | Item | End]:
        if asked["args"]["after"]:
            return [Alive(seq=0, at=NOON), End(seq=1)]
        return [Alive(seq=0, at=NOON), Item(seq=1, item=to_item(line)), End(seq=2)]

    await ground.one.beat()
    async with answering(ground.one.device, answer), ground.site.client("viewer") as client:
        await whole_fleet(client)
        async with events(client, "/api/devices/pi-1/logs?score=web") as told:
            async with asyncio.timeout(20):
                kind, data, _ = await anext(told)
    assert (kind, data) == (
        "item",
        {"at": NOON, "resource": "container:web", "stream": "stderr", "text": HOSTILE},
    )
