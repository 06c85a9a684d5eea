"""A device's page over a real agent, in a process of its own, on a folder: its timeline, drift, and looks."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
from playwright.async_api import expect

from examples.pis import as_folder
from harmony_control.fleet import Fleet
from harmony_scores import FileScore
from tests.browser import browsing, find_violations
from tests.nats import serving

from .ground import Site, enter, running
from .test_api import events, until, whole_fleet

pytestmark = pytest.mark.timeout(120)
PATH = "/api/devices/pi-1"
HAND = "by hand <img src=x onerror=alert(1)>\n"


@attrs.frozen
class Told:
    """A site, and a device with a real agent, whose file ``/etc/motd`` is wanted."""

    site: Site
    fleet: Fleet
    file: Path

    async def push(self, text: str) -> None:
        """Want the file to have that *text*, and wait until it has."""
        user, group = str(os.geteuid()), str(os.getegid())
        motd = FileScore(path="/etc/motd", content=text, owner=user, group=group)
        await self.fleet.device("pi-1").push(motd, id="motd")
        assert self.file.read_text() == text

    async def score(
        self, client: httpx.AsyncClient, holds: Callable[[dict[str, Any]], bool]
    ) -> dict[str, Any]:
        """The Score on the device's page, once *holds* says so of it."""
        async with asyncio.timeout(20):
            while True:
                (found,) = (await client.get(PATH)).json()["scores"]
                if holds(found):
                    return dict(found)
                await asyncio.sleep(0.05)


@pytest.fixture
async def told(tmp_path: Path) -> AsyncGenerator[Told]:
    async with serving(tmp_path, "pi-1") as bus, Fleet.connect(bus.home) as fleet:
        toml = tmp_path / "agent.toml"
        enrolled = bus.home.agent_toml("pi-1").read_text()
        toml.write_text(f"heartbeat_s = 1.0\n{as_folder(enrolled, tmp_path)}")
        toml.chmod(0o600)
        with (tmp_path / "said").open("wb") as said:
            agent = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "harmony_agent.cli", "run", "--config", str(toml)),
                stderr=said,
            )
        try:
            async with running(fleet) as site:
                told = Told(site, fleet, tmp_path / "root/etc/motd")
                async with asyncio.timeout(30):
                    while (await fleet.rows())[0].device != "Online":
                        await asyncio.sleep(0.05)
                await told.push("as pushed\n")
                yield told
            assert agent.returncode is None
        finally:
            agent.kill()
            await agent.wait()


async def test_what_was_done_is_told_with_its_cause_and_what_is_done_meanwhile_comes_live(
    told: Told,
) -> None:
    async with told.site.client("viewer") as client, asyncio.timeout(60):
        await whole_fleet(client)
        (first,) = (await client.get(f"{PATH}/events")).json()
        assert (first["score"], first["resource"], first["why"], first["generation"]) == (
            *("motd", "file:/etc/motd"),
            *("desired", 1),
        )
        async with events(client, f"{PATH}/events/live?score=motd") as live:
            assert (await until(live, "item"))[0] == first
            await told.push("as pushed again\n")
            second, _ = await until(live, "item")
            assert (second["why"], second["generation"]) == ("desired", 2)
            assert "-as pushed\n+as pushed again" in second["diff"]
            told.file.write_text(HAND)
            third, _ = await until(live, "item")
            assert third["why"] == "drift"
            assert f"-{HAND}+as pushed again" in third["diff"]
        assert (await client.get(f"{PATH}/events?lines=2")).json() == [second, third]
        assert (await client.get(f"{PATH}/events?score=other")).json() == []


async def test_what_drifted_is_told_line_by_line_and_shown_so(told: Told, axe: str) -> None:
    async with (
        told.site.client("viewer") as client,
        browsing(viewport={"width": 1280, "height": 1600}, bypass_csp=True) as view,
    ):
        await enter(view, told.site, "viewer")
        await view.get_by_role("link", name="pi-1").click()
        await expect(view.locator(".timeline > li")).to_have_count(1)
        await expect(view.locator(".drift")).to_have_count(0)
        told.file.write_text(HAND)
        found = await told.score(client, lambda score: score["drift_count"] == 1)
        assert found["last_drift"]["resource"] == "file:/etc/motd"
        assert f"-{HAND}+as pushed" in found["last_drift"]["before"]
        assert told.file.read_text() == "as pushed\n"
        # The page hears of it by itself.
        drift = view.locator(".drift")
        await expect(drift).to_contain_text("Drifted once")
        await expect(drift.locator(".less").last).to_have_text(f"-{HAND}")
        await expect(drift.locator(".more").last).to_have_text("+as pushed")
        newest = view.locator(".timeline > li").first
        await expect(newest).to_contain_text("drift, generation 1")
        await newest.get_by_text("Difference").click()
        await expect(newest.locator(".less").last).to_have_text(f"-{HAND}")
        assert await find_violations(view, axe) == []


async def test_an_operator_has_it_looked_at_now_and_is_told_what_that_came_to(told: Told) -> None:
    async with told.site.client("operator") as client, browsing() as view:
        await whole_fleet(client)
        before = await told.score(client, lambda score: bool(score["looked_at"]))
        reply = await client.post(f"{PATH}/reconcile", json={"score": "motd"})
        assert reply.status_code == 200
        (looked,) = reply.json()
        # It is told as what its generation came to, also where it was in order this time.
        assert (looked["score"], looked["state"]["status"]) == ("motd", "SUCCESS")
        assert looked["state"]["looked_at"] > before["looked_at"]
        assert [
            each["score"] for each in (await client.post(f"{PATH}/reconcile", json={})).json()
        ] == ["motd"]
        unknown = await client.post(f"{PATH}/reconcile", json={"score": "other"})
        assert unknown.status_code in {400, 404}
        assert "other" in unknown.json()["message"]

        await enter(view, told.site, "operator")
        await view.get_by_role("link", name="pi-1").click()
        await view.get_by_role("button", name="Check now: motd").click()
        await expect(view.locator(".score").get_by_role("status")).to_have_text("checked 1")
        await view.get_by_role("button", name="Check all now").click()
        await expect(view.locator("h3").get_by_role("status")).to_have_text("checked 1")
