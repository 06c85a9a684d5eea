"""A browser for the tests, and axe, which finds what shuts people out of a page.

Chromium is the machine's own. axe is fetched by npm, by the lock of the page's sources, as are the tools that
build the page. Where one of them is missing the test is skipped, but fails in CI.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import pytest
from playwright.async_api import Page, async_playwright

from deploy.page import PAGE, install

__all__ = ["browsing", "find_chromium", "find_violations", "read_axe"]


def find_chromium() -> str:
    """Return where Chromium is."""
    return shutil.which("chromium") or _miss("there is no Chromium here: apt install chromium")


def read_axe() -> str:
    """Return axe as a script for a page; it is fetched where it is not there yet. Blocks."""
    if not install():
        _miss("axe cannot be fetched by npm here")
    return (PAGE / "node_modules" / "axe-core" / "axe.min.js").read_text()


def _miss(why: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


@asynccontextmanager
async def browsing(**context: Any) -> AsyncGenerator[Page]:
    """A page of Chromium, nothing of which may fail, and in which no text of a device may run as a script.

    What is in *context* is Playwright's, such as ``viewport``.
    """
    errors: list[str] = []
    chromium = find_chromium()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = await (await browser.new_context(**context)).new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", lambda dialog: errors.append(f"a script ran: {dialog.message}"))
        yield page
        await browser.close()
    assert errors == []


async def find_violations(page: Page, axe: str) -> list[str]:
    """Return what *axe* finds wrong with *page* as it is now. It has to bypass the page's policy."""
    await page.evaluate(axe)
    found: list[str] = await page.evaluate(
        "axe.run().then(({violations}) =>"
        " violations.map(v => v.id + ': ' + v.nodes.map(n => n.target + ' ' + n.failureSummary)))"
    )
    return found
