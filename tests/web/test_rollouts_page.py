"""Rollouts on the page, in a real Chromium."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from harmony_control.web.users import Role
from tests.browser import browsing, find_violations
from tests.control.light_fleet import CLASS
from tests.control.rollout_scene import MOTD, WAVES, serving_scene
from tests.control.test_rollouts import BAD

from .answering import answering, log_of
from .ground import Site, enter, running
from .test_rollouts import quick, rig_of

__all__ = ["quick"]
pytestmark = pytest.mark.timeout(120)


@asynccontextmanager
async def looking(site: Site, role: Role, **context: Any) -> AsyncGenerator[Page]:
    """Chromium before *site*, as somebody of that role."""
    async with browsing(**context) as view:
        await enter(view, site, role)
        yield view


async def test_from_the_list_to_a_pause_by_the_keyboard_alone_and_on_to_the_end_live(
    tmp_path: Path,
) -> None:
    async with rig_of(tmp_path, with_key=True) as rig, looking(rig.site, "approver") as view:
        keys = view.keyboard
        await view.get_by_role("link", name="Rollouts").press("Enter")
        await view.get_by_role("link", name=CLASS).press("Enter")
        pane = view.get_by_role("region", name=f"Rollout of {CLASS}")
        await expect(pane.locator(".members .until")).to_contain_text("left")
        await expect(pane.locator(".waves > li.now")).to_contain_text("up to 1")

        await view.get_by_role("button", name="Pause…").press("Enter")
        await expect(view.get_by_label("Why")).to_be_focused()
        await keys.type("the shop is open")
        await keys.press("Enter")
        await expect(pane.get_by_role("status")).to_contain_text("paused")
        await expect(pane.get_by_role("status")).to_contain_text(
            "paused by approver: the shop is open"
        )
        assert (await rig.gates())[-1] == ("paused", 0)
        await view.get_by_role("button", name="Resume…").press("Enter")
        await expect(view.get_by_label("Why")).to_be_focused()
        await keys.press("Enter")
        await expect(pane.get_by_role("status")).to_contain_text("running")

        # What is not signed here is a command to be run elsewhere.
        await view.get_by_role("button", name="Open all waves…").press("Enter")
        await expect(view.get_by_label("Why")).to_be_focused()
        await keys.press("Enter")
        await expect(pane.locator(".command")).to_have_text("harmony rollout promote kiosk --full")
        await view.get_by_role("button", name="Cancel").press("Enter")

        # Wave by wave, without anything being asked for again.
        for wave in (1, 2, 3):
            await rig.light.look()
            ready = pane.locator(".waves > li").nth(wave - 1).locator(".counts")
            await expect(ready).to_contain_text("1\u00a0ready")
        await expect(pane.get_by_role("status")).to_contain_text("done")
        await keys.press("Escape")
        await expect(pane).to_have_count(0)
        await expect(view.locator(".rollouts")).to_contain_text("3\u00a0ready")

        # On each device's page stands what it follows of the class, and that its Score is of that.
        await view.evaluate(f"location.hash = '/device/{rig.light.devices[0].id}'")
        classes = view.get_by_role("region", name="Classes")
        await expect(classes).to_contain_text("generation 1")
        await expect(classes).to_contain_text("Applied")
        await expect(view.locator(".score")).to_contain_text(f"of the class {CLASS}")
        await classes.get_by_role("link", name=CLASS).press("Enter")
        await expect(pane).to_be_visible()


async def test_on_a_phone_a_viewer_is_offered_nothing_an_operator_a_command_and_axe_finds_nothing_wrong(
    tmp_path: Path, axe: str
) -> None:
    async with rig_of(tmp_path, with_key=False) as rig:
        for each in rig.light.devices:
            each.breaks = frozenset({1})
        await rig.light.look()
        phone = {"width": 390, "height": 800}
        async with looking(
            rig.site, "viewer", viewport=phone, color_scheme="dark", bypass_csp=True
        ) as view:
            await view.get_by_role("link", name="Rollouts").click()
            await expect(view.locator(".rollouts")).to_contain_text("unhealthy")
            await expect(view.get_by_text("This server opens no waves")).to_be_visible()
            assert await find_violations(view, axe) == []
            await view.get_by_role("link", name=CLASS).click()
            await expect(view.locator(".members")).to_contain_text("motd: JobFailed")
            await expect(view.locator(".orders")).to_have_count(0)
            assert await find_violations(view, axe) == []
            assert await view.evaluate("document.documentElement.scrollWidth <= innerWidth")
            await view.get_by_role("button", name="Sign out").click()
            await enter(view, rig.site, "operator")
            await view.evaluate(f"location.hash = '/rollouts/{CLASS}'")
            await view.get_by_role("button", name="Abort…").click()
            await view.get_by_role("button", name="Show the command").click()
            await expect(view.locator(".command")).to_have_text("harmony rollout abort kiosk")
            assert await find_violations(view, axe) == []
            assert await view.evaluate("document.documentElement.scrollWidth <= innerWidth")


async def test_a_rollout_that_fails_is_seen_to_fail_and_why_on_a_page_that_is_not_loaded_again(
    tmp_path: Path,
) -> None:
    async with serving_scene(tmp_path, 3) as scene:
        await scene.fleet.allow_gate_key()
        scene.describe(MOTD % "one")
        await scene.go(await scene.apply())
        async with running(scene.fleet) as site, looking(site, "viewer") as view:
            await view.evaluate("window.isTheSame = true")
            await view.get_by_role("link", name="Rollouts").click()
            await view.get_by_role("link", name="kiosk").click()
            pane = view.get_by_role("region", name="Rollout of kiosk")
            await expect(pane.get_by_role("status")).to_contain_text("done")

            scene.describe(BAD, rollout=WAVES)
            await scene.apply()
            why = "1 of 1 devices of wave 1 are unhealthy: pi-"
            await expect(pane.get_by_role("status")).to_contain_text("aborted", timeout=20_000)
            for place in (pane.get_by_role("status"), view.locator(".rollouts > li .reason")):
                await expect(place).to_contain_text(why)
                await expect(place).to_contain_text("motd: PolicyRefused")
            # The device that was reached goes back by itself; the others were never touched.
            await expect(pane.locator(".members")).to_contain_text("rolled back")
            await expect(pane.locator(".counts").last).to_contain_text("not reached")
            assert await view.evaluate("window.isTheSame")


async def test_a_device_that_a_rollout_broke_turns_red_and_two_clicks_later_its_log_says_why(
    tmp_path: Path,
) -> None:
    size = {"width": 1280, "height": 800}
    async with (
        rig_of(tmp_path, with_key=True) as rig,
        looking(rig.site, "viewer", viewport=size) as view,
    ):
        first = rig.light.by_place(1)[0]
        await view.get_by_role("button", name="Grid").click()
        errors = view.get_by_role("button", name="Error 1", exact=True)
        await expect(errors).to_have_count(0)
        for each in rig.light.devices:
            each.breaks = frozenset({1})
        async with answering(first.scripted.device, log_of("")):
            await rig.light.look()
            await expect(errors).to_be_visible()
            cell = [each.id for each in rig.light.devices].index(first.id)
            await view.locator("canvas.grid").click(position={"x": 30 * cell + 15, "y": 15})
            await expect(view.locator(".pane .outcome")).to_contain_text("JobFailed on purpose")
            await view.get_by_role("link", name="Logs").click()
            await expect(view.locator(".logline")).to_contain_text("the disk is full")
        # Meanwhile it was aborted; the device hears of it when it looks again.
        await view.get_by_role("link", name="Rollouts").click()
        await expect(view.locator(".rollouts")).to_contain_text("aborted")
        await expect(view.locator(".rollouts")).to_contain_text(f"{first.id} (motd: JobFailed")
        await rig.light.look()
        await expect(view.locator(".rollouts")).to_contain_text("rolled\u00a0back")
        await view.get_by_role("link", name="Devices").click()
        await expect(errors).to_have_count(0)
