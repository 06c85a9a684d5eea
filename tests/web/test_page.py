"""The page in a real Chromium, as people use it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
from playwright.async_api import Page, expect

from harmony_control.fleet import DeviceRow, Fleet
from tests.browser import browsing, find_violations
from tests.control.scripted_device import ScriptedDevice, failure, page
from tests.nats import Bus, serving
from tests.soak import runs

from .answering import answering, log_of
from .ground import Rows, Site, enter, running

pytestmark = pytest.mark.timeout(120)
HOSTILE = "<img src=x onerror=alert(1)>"


def fleet_of(count: int) -> list[DeviceRow]:
    chance = random.Random(1)
    made = [
        DeviceRow(
            id=f"pi-{each:05}",
            device="Online",
            update="UpToDate",
            workloads=chance.choices(("Healthy", "Degraded"), (98, 2))[0],
            reason="",
            labels={"site": chance.choice(("attic", "barn"))},
            agent_version="1.2.3",
        )
        for each in range(count)
    ]
    if made:
        made[1] = attrs.evolve(made[1], workloads="Error", reason=f"web: {HOSTILE}")
    return made


@attrs.frozen
class Seen:
    """A page that somebody looks at, and what it is told."""

    page: Page
    rows: Rows
    site: Site
    device: ScriptedDevice


@asynccontextmanager
async def looking(
    root: Path, count: int, *, sign_in: bool = True, **context: Any
) -> AsyncGenerator[Seen]:
    """Chromium before a fleet of *count* devices, of which pi-00001 is on a real bus and answers."""
    async with serving(root, "pi-00001") as bus, Fleet.connect(bus.home) as fleet:
        device = await _report(bus)
        rows = Rows(fleet_of(count))
        async with (
            running(fleet, rows) as site,
            answering(device.device, log_of(HOSTILE)),
            browsing(**context) as view,
        ):
            if sign_in:
                await enter(view, site)
            yield Seen(view, rows, site, device)


async def _report(bus: Bus) -> ScriptedDevice:
    device = ScriptedDevice(await bus.device("pi-00001"))
    scores = {"web": page(failure("ImageNotFound", HOSTILE), 0)}
    await device.report(device.state(0, scores, ready=False))
    await device.beat()
    return device


async def drawn(view: Page) -> dict[str, float]:
    """How many cells the last drawing was of, and the milliseconds that it took."""
    found: dict[str, float] = await view.evaluate(
        "(() => { const [m] = performance.getEntriesByName('harmony-draw');"
        " return m ? {cells: m.detail, ms: m.duration} : {cells: -1, ms: 0}; })()"
    )
    return found


async def until_drawn(view: Page, cells: int) -> dict[str, float]:
    async with asyncio.timeout(20):
        while (found := await drawn(view))["cells"] != cells:
            await asyncio.sleep(0.02)
    return found


async def test_an_empty_fleet_says_what_to_do(tmp_path: Path) -> None:
    async with looking(tmp_path, 0) as seen:
        await expect(seen.page.get_by_text("No device yet")).to_be_visible()
        await expect(seen.page.locator(".stale")).to_have_count(0)


async def test_ten_thousand_are_drawn_and_only_what_changed_is_drawn_anew(
    tmp_path: Path,
) -> None:
    async with looking(tmp_path, 10_000, viewport={"width": 1280, "height": 800}) as seen:
        await until_drawn(seen.page, 10_000)
        await expect(seen.page.get_by_role("button", name="Error 1", exact=True)).to_be_visible()
        few = [
            attrs.evolve(each, workloads="Error", reason="x") for each in fleet_of(10_000)[100:200]
        ]
        seen.rows.put(*few)
        await until_drawn(seen.page, 100)
        await expect(seen.page.get_by_role("button", name="Error 101")).to_be_visible()
        await seen.page.get_by_role("searchbox").fill("error site=attic")
        shown = sum(each.labels["site"] == "attic" for each in few)
        shown += fleet_of(2)[1].labels["site"] == "attic"
        await until_drawn(seen.page, shown)


async def test_the_table_goes_on_sorts_by_a_heading_and_shows_those_of_a_count(
    tmp_path: Path,
) -> None:
    async with looking(tmp_path, 120) as seen:
        view = seen.page
        await view.get_by_role("button", name="Table").click()
        pages = view.get_by_role("navigation", name="Pages")
        first = view.locator(".devices tbody tr .id").first
        await expect(pages).to_contain_text("1\u201350 of 120")
        await expect(first).to_have_text("pi-00000")
        await pages.get_by_role("button", name="Next").click()
        await expect(first).to_have_text("pi-00050")
        await pages.get_by_role("button", name="Next").click()
        await expect(pages).to_contain_text("101\u2013120 of 120")
        await expect(pages.get_by_role("button", name="Next")).to_be_disabled()
        await pages.get_by_role("button", name="Previous").click()
        await expect(first).to_have_text("pi-00050")
        await view.get_by_role("searchbox").fill("pi-0")
        await expect(first).to_have_text("pi-00000")
        await pages.get_by_role("button", name="Next").click()

        # A page of what was sorted otherwise is of no use: it begins again.
        heading = view.get_by_role("columnheader", name="Device")
        await heading.get_by_role("button").click()
        await expect(heading).to_have_attribute("aria-sort", "descending")
        await expect(first).to_have_text("pi-00119")
        await view.get_by_role("columnheader", name="Workloads").get_by_role("button").click()
        await expect(heading).to_have_attribute("aria-sort", "none")
        await expect(first).to_have_text("pi-00001")  # the only one with an error
        await view.get_by_role("columnheader", name="Reason").get_by_role("button").click()
        await expect(view.locator(".devices tbody tr").first.locator(".reason")).to_have_text("")

        few = fleet_of(120)[60:63]
        seen.rows.put(*(attrs.evolve(each, workloads="Degraded") for each in few))
        await view.get_by_role("button", name="Degraded 3", exact=True).click()
        await expect(pages).to_contain_text("1\u20133 of 3")
        await expect(view.locator(".devices tbody tr")).to_have_count(3)
        # Who becomes so while it is looked at, is among them.
        seen.rows.put(attrs.evolve(fleet_of(120)[7], workloads="Degraded", reason="told now"))
        await expect(view.locator(".devices tbody tr")).to_have_count(4)
        await expect(view.locator(".devices")).to_contain_text("told now")
        await view.get_by_role("button", name="Error 1", exact=True).click()
        await expect(view.locator(".devices tbody tr")).to_have_count(5)
        await view.get_by_role("button", name="Show all").click()
        await expect(pages).to_contain_text("1\u201350 of 120")


async def test_from_a_red_cell_to_a_log_line_in_two_clicks(tmp_path: Path) -> None:
    async with looking(tmp_path, 100, viewport={"width": 1280, "height": 800}) as seen:
        await seen.page.get_by_role("button", name="Grid").click()
        await until_drawn(seen.page, 100)
        await seen.page.locator("canvas.grid").click(position={"x": 45, "y": 15})
        await expect(seen.page.locator(".pane h2")).to_have_text("pi-00001")
        await seen.page.get_by_role("link", name="Logs").click()
        line = seen.page.locator(".logline")
        await expect(line).to_contain_text(f"the disk is full {HOSTILE}")


async def test_the_keyboard_alone_is_enough(tmp_path: Path) -> None:
    async with looking(tmp_path, 100) as seen:
        await until_drawn(seen.page, 100)
        keys = seen.page.keyboard
        await keys.press("/")
        await keys.type("error")
        await until_drawn(seen.page, 1)
        while not await seen.page.evaluate("document.activeElement.matches('canvas.grid')"):
            await keys.press("Tab")
        await expect(seen.page.locator("[aria-live=polite].unseen")).to_contain_text(
            "pi-00001: Online, UpToDate, Error"
        )
        await keys.press("Enter")
        await expect(seen.page.locator(".pane .outcome")).to_contain_text(HOSTILE)
        await keys.press("Escape")
        await expect(seen.page.locator(".pane")).to_have_count(0)


async def test_a_viewer_is_offered_nothing_that_is_not_theirs(tmp_path: Path) -> None:
    async with looking(tmp_path, 3, sign_in=False) as seen:
        await enter(seen.page, seen.site, "viewer")
        await seen.page.get_by_role("link", name="pi-00001").click()
        await expect(seen.page.get_by_role("link", name="Logs")).to_be_visible()
        await expect(seen.page.get_by_role("button", name="Check")).to_have_count(0)
        await seen.page.get_by_role("button", name="Sign out").click()
        await expect(seen.page.get_by_label("Password")).to_be_visible()
        await seen.page.get_by_label("Name").fill("viewer")
        await seen.page.get_by_label("Password").fill("wrong password")
        await seen.page.get_by_role("button", name="Sign in").click()
        await expect(seen.page.get_by_role("alert")).to_have_text("wrong name or password")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
async def test_axe_finds_nothing_wrong(tmp_path: Path, axe: str, scheme: str, width: int) -> None:
    size = {"width": width, "height": 800}
    async with looking(
        tmp_path, 70, sign_in=False, viewport=size, color_scheme=scheme, bypass_csp=True
    ) as seen:
        await seen.page.goto(seen.site.url)
        await expect(seen.page.get_by_label("Password")).to_be_visible()
        assert await find_violations(seen.page, axe) == []
        await enter(seen.page, seen.site)
        await until_drawn(seen.page, 70)
        assert await find_violations(seen.page, axe) == []
        await seen.page.get_by_role("button", name="Table").click()
        assert await find_violations(seen.page, axe) == []
        await seen.page.evaluate("location.hash = '/device/pi-00001'")
        await expect(seen.page.locator("article.score")).to_be_visible()
        assert await find_violations(seen.page, axe) == []
        assert await seen.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.soak  # to take over a second time is the same once more
async def test_nine_tabs_are_all_live_with_one_stream_and_the_next_takes_over(
    tmp_path: Path,
) -> None:
    async with looking(tmp_path, 70) as seen:
        tabs = [seen.page]
        for _ in range(8):
            tabs.append(await seen.page.context.new_page())
            await tabs[-1].goto(seen.site.url)
            await expect(tabs[-1].locator(".bar")).to_be_visible()
        for name in ("pi-00005", "pi-00006")[: runs(2)]:
            (row,) = [each for each in fleet_of(70) if each.id == name]
            seen.rows.put(attrs.evolve(row, workloads="Error", reason=f"told to all: {name}"))
            for tab in tabs:
                await tab.get_by_role("searchbox").fill(f"told to all: {name}")
                await expect(tab.get_by_role("application")).to_have_attribute(
                    "aria-label",
                    "1 devices. Arrow keys move, Enter opens. The table shows the same.",
                )
            assert seen.site.web.watchers.count == 1
            await tabs.pop(0).close()
            async with asyncio.timeout(20):
                while seen.site.web.watchers.count != 1:
                    await asyncio.sleep(0.05)


async def test_a_page_whose_server_is_away_says_that_it_may_be_old(tmp_path: Path) -> None:
    async with looking(tmp_path, 3) as seen:
        await expect(seen.page.get_by_role("link", name="pi-00001")).to_be_visible()
        seen.rows.is_connected = False
        await expect(seen.page.locator(".stale")).to_contain_text("Not live: the message server")
        seen.rows.is_connected = True
        await expect(seen.page.locator(".stale")).to_have_count(0)
