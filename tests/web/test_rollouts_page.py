"""Rollouts on the page, in a real Chromium. Skipped, and told so, where there is none."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, async_playwright, expect

from tests.control.light_fleet import CLASS

from .test_page import AXE, CHROMIUM, enter, violations
from .test_rollouts import Rig, quick, rig_of

__all__ = ["quick"]
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here: apt install chromium"),
    pytest.mark.timeout(120),
]


@asynccontextmanager
async def looking(rig: Rig, role: str, **context: Any) -> AsyncGenerator[Page]:
    """Chromium before the rollouts, as somebody of that role."""
    errors: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        view = await (await browser.new_context(**context)).new_page()
        view.on("pageerror", lambda error: errors.append(str(error)))
        await enter(view, rig.site, role)
        yield view
        await browser.close()
    assert errors == []


async def test_from_the_list_to_a_pause_by_the_keyboard_alone_and_on_to_the_end_live(
    tmp_path: Path,
) -> None:
    async with rig_of(tmp_path, with_key=True) as rig, looking(rig, "approver") as view:
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


async def test_on_a_phone_a_viewer_is_offered_nothing_an_operator_a_command_and_axe_finds_nothing_wrong(
    tmp_path: Path,
) -> None:
    async with rig_of(tmp_path, with_key=False) as rig:
        for each in rig.light.devices:
            each.breaks = frozenset({1})
        await rig.light.look()
        phone = {"width": 390, "height": 800}
        async with looking(
            rig, "viewer", viewport=phone, color_scheme="dark", bypass_csp=True
        ) as view:
            await view.get_by_role("link", name="Rollouts").click()
            await expect(view.locator(".rollouts")).to_contain_text("unhealthy")
            await expect(view.get_by_text("This server opens no waves")).to_be_visible()
            assert not AXE.exists() or await violations(view) == []
            await view.get_by_role("link", name=CLASS).click()
            await expect(view.locator(".members")).to_contain_text("motd: JobFailed")
            await expect(view.locator(".orders")).to_have_count(0)
            assert not AXE.exists() or await violations(view) == []
            assert await view.evaluate("document.documentElement.scrollWidth <= innerWidth")
            await view.get_by_role("button", name="Sign out").click()
            await enter(view, rig.site, "operator")
            await view.evaluate(f"location.hash = '/rollouts/{CLASS}'")
            await view.get_by_role("button", name="Abort…").click()
            await view.get_by_role("button", name="Show the command").click()
            await expect(view.locator(".command")).to_have_text("harmony rollout abort kiosk")
            assert not AXE.exists() or await violations(view) == []
            assert await view.evaluate("document.documentElement.scrollWidth <= innerWidth")
