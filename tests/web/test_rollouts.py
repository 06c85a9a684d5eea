"""Rollouts over HTTP, on a real bus: how they stand, live, and who may want what of them."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest

from harmony_control.fleet import Fleet
from harmony_control.operators import add_operator, join
from harmony_control.server.roster import publish_devices
from harmony_control.store import operator_key
from harmony_control.store.gate_key import load_gate_key
from harmony_control.store.home import Home, write_whole
from harmony_control.web.users import Role
from harmony_core.wire.envelope import open_envelope, pin_keys
from harmony_core.wire.gate import GATE_TYPE, Gate
from harmony_core.wire.names import ROLLOUT
from tests.control.ground import harmony
from tests.control.light_fleet import CLASS, LightFleet, light_fleet

from .ground import Site, running
from .test_api import events, until

PATH = f"/api/rollouts/{CLASS}"


@attrs.frozen
class Rig:
    """A site before a fleet of three light devices, and its home."""

    site: Site
    fleet: Fleet
    light: LightFleet

    async def gates(self) -> list[tuple[str, int]]:
        """State and wave of each gate that there was."""
        gates: list[Gate] = await self.fleet.rollout(CLASS).history()
        return [(each.state, each.step) for each in gates]


@asynccontextmanager
async def rig_of(root: Path, *, with_key: bool) -> AsyncGenerator[Rig]:
    async with light_fleet(root, 3) as light, Fleet.connect(light.bus.home) as fleet:
        await light.publish("one", ["1", "2"])
        if with_key:
            light.keys.update(pin_keys([await fleet.allow_gate_key()]))
        async with running(fleet) as site:
            yield Rig(site, fleet, light)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harmony_control.web.live.LOOK_AGAIN_S", 0.1)


async def page_when(
    client: httpx.AsyncClient, holds: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """The rollout's page, once *holds* says so of it."""
    async with asyncio.timeout(20):
        while True:
            reply = await client.get(PATH)
            if reply.status_code == 200 and holds(found := reply.json()):
                return dict(found)
            await asyncio.sleep(0.05)


async def want(client: httpx.AsyncClient, verb: str, reason: str = "") -> httpx.Response:
    return await client.post(f"{PATH}/orders", json={"verb": verb, "reason": reason})


async def test_without_a_key_for_gates_it_shows_and_proposes_and_writes_nothing(
    tmp_path: Path,
) -> None:
    async with rig_of(tmp_path, with_key=False) as rig, rig.site.client("approver") as client:
        await rig.light.look()
        found = await page_when(client, lambda page: page["line"]["counts"]["Ready"] == 1)
        assert [each["state"] for each in found["waves"]] == ["open", "to come", "to come"]
        assert found["line"]["counts"]["NotReached"] == 2
        assert "gate.key" in found["only_looks"]
        assert {each["is_signed_here"] for each in found["actions"]} == {False}
        reply = await want(client, "pause", "it's late; $(reboot)")
        assert (reply.status_code, reply.json()["is_done"]) == (200, False)
        assert await rig.gates() == [("running", 0)]

        # What is proposed is what does it.
        command = shlex.split(reply.json()["action"]["command"])
        assert command[0] == "harmony"
        assert (await harmony(rig.light.bus.home, *command[1:])).status == 0
        found = await page_when(client, lambda page: page["line"]["state"] == "paused")
        assert found["line"]["why"] == "it's late; $(reboot)"


async def test_with_a_key_for_gates_it_opens_each_wave_and_tells_it_live(tmp_path: Path) -> None:
    async with rig_of(tmp_path, with_key=True) as rig, rig.site.client("viewer") as client:
        states: list[tuple[str, int]] = []
        async with events(client, "/api/fleet/changes") as told, asyncio.timeout(30):
            while ("done", 3) not in states:
                data, _ = await until(told, "rollouts")
                states += [
                    (each["state"], each["counts"]["Ready"])
                    for each in data["lines"]
                    if each["generation"]
                ]
                await rig.light.look()
        assert await rig.gates() == [("running", 0), ("running", 1), ("running", 2), ("done", 2)]
        assert all(each.followed == [1] for each in rig.light.devices)
        last = await rig.light.bus.bucket(ROLLOUT).get(CLASS)
        key = await asyncio.to_thread(load_gate_key, rig.fleet.home)
        assert last is not None
        assert key is not None
        opened = open_envelope(last.value, pin_keys([key.public]), payload_type=GATE_TYPE)
        assert b'"done"' in opened.payload
        (line,) = (await client.get("/api/rollouts")).json()["rollouts"]
        assert (line["name"], line["state"], line["waves"]) == (CLASS, "done", 3)
        device = (await client.get(f"/api/devices/{rig.light.devices[0].id}")).json()
        (layer,) = device["layers"]
        assert (layer["name"], layer["generation"], layer["wanted"]) == (CLASS, 1, 1)
        assert (layer["phase"], layer["reason"]) == ("Applied", "")
        assert [each["layer"] for each in device["scores"]] == [f"class:{CLASS}"]


async def test_a_wave_on_its_way_says_who_is_unhealthy_and_until_when_the_others_have_time(
    tmp_path: Path,
) -> None:
    async with rig_of(tmp_path, with_key=True) as rig, rig.site.client("viewer") as client:
        found = await page_when(client, lambda page: page["line"]["counts"]["Progressing"] == 1)
        (first,) = [each for each in found["devices"] if each["state"] == "Progressing"]
        assert found["at"] < first["until"]
        assert (first["wave"], found["actions"]) == (1, [])
        for each in rig.light.devices:
            each.breaks = frozenset({1})
        await rig.light.look()
        found = await page_when(client, lambda page: page["line"]["state"] == "aborted")
        assert found["devices"][0]["id"] == first["id"]
        assert "JobFailed" in found["line"]["why"]


ORDERS: list[tuple[Role, str, str | None]] = [
    ("operator", "abort", None),
    ("operator", "promote", None),
    ("operator", "pause", "paused"),
    ("operator", "resume", None),
    ("approver", "promote --full", None),
    ("approver", "resume", "running"),
    ("approver", "abort", "aborted"),
]


async def test_each_role_has_done_what_is_its_own_and_the_rest_is_proposed(tmp_path: Path) -> None:
    async with (
        rig_of(tmp_path, with_key=True) as rig,
        rig.site.client("operator") as operator,
        rig.site.client("approver") as approver,
    ):
        await page_when(operator, lambda page: not page["only_looks"])
        for role, verb, expected in ORDERS:
            client = {"operator": operator, "approver": approver}[role]
            before = (await rig.fleet.rollout(CLASS).history())[-1]
            done = (await want(client, verb, "because")).json()
            assert done["is_done"] == (expected is not None), verb
            after = (await rig.fleet.rollout(CLASS).history())[-1]
            if expected is None:
                assert after == before
                command = f"harmony rollout {verb.removesuffix(' --full')} {CLASS}"
                assert done["action"]["command"].startswith(command)
            else:
                word = {"running": "resumed"}.get(expected, expected)
                assert (after.state, after.reason) == (expected, f"{word} by {role}: because")
                await page_when(client, _is_in(expected))


def _is_in(state: str) -> Callable[[dict[str, Any]], bool]:
    return lambda page: bool(page["line"]["state"] == state)


async def test_a_viewer_another_site_and_nonsense_change_nothing(tmp_path: Path) -> None:
    async with rig_of(tmp_path, with_key=True) as rig:
        async with rig.site.client("viewer") as client:
            await page_when(client, lambda page: not page["only_looks"])
            reply = await want(client, "pause")
            assert (reply.status_code, reply.json()["code"]) == (403, "PermissionDeniedException")
        async with rig.site.client("approver") as client:
            for origin in ("https://elsewhere.example", "null"):
                reply = await client.post(
                    f"{PATH}/orders", json={"verb": "pause"}, headers={"Origin": origin}
                )
                assert (reply.status_code, reply.json()["code"]) == (403, "CrossSiteRequest")
            assert (await want(client, "resume")).status_code == 400  # it is running
            assert (await want(client, "explode")).status_code == 400
            assert (await want(client, "pause", "two\nlines")).status_code == 400
            assert (await want(client, "pause", "x" * 400)).status_code == 400
            for path in ("/api/rollouts/door", "/api/rollouts/door/orders"):
                method = "POST" if path.endswith("orders") else "GET"
                reply = await client.request(method, path, json={"verb": "pause"})
                assert (reply.status_code, reply.json()["code"]) == (404, "UnknownClass")
        async with rig.site.client() as client:
            assert (await client.get(PATH)).status_code == 401
        assert await rig.gates() == [("running", 0)]


async def test_from_a_home_that_may_only_look_all_is_shown_and_nothing_written(
    tmp_path: Path,
) -> None:
    async with light_fleet(tmp_path, 3) as light, Fleet.connect(light.bus.home) as fleet:
        key = light.bus.home.root / "gate.key"
        await fleet.allow_gate_key()
        await publish_devices(light.bus.home, light.bus.admin)
        await light.publish("one", ["1"])
        bob = Home(tmp_path / "bob")
        operator_key.create(bob)
        added = await asyncio.to_thread(
            add_operator, light.bus.home, "bob", bob.operator_pub, access="look"
        )
        added.write(tmp_path / "bob.fleet")
        await join(bob, tmp_path / "bob.fleet")
        async with (
            Fleet.connect(bob) as looked,
            running(looked) as site,
            site.client("approver") as client,
        ):
            found = await page_when(client, lambda page: page["line"]["state"] == "running")
            assert "gate.key" in found["only_looks"]
            # The key alone is not enough: the server refuses what it has signed.
            write_whole(bob.root / "gate.key", await asyncio.to_thread(key.read_text))
            await light.look()
            found = await page_when(
                client,
                lambda page: page["line"]["problem"] and page["line"]["counts"]["Ready"] == 1,
            )
            assert "this key may only look" in found["line"]["problem"]
            reply = await want(client, "pause")
            assert (reply.status_code, reply.json()["code"]) == (403, "NotAllowed")
        assert [each.seq for each in await fleet.rollout(CLASS).history()] == [1]
