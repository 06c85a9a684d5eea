"""``page.*``: how long the page of `harmony serve` takes for what has changed, with ten thousand devices.

Server, bus and page are real. So is what devices say: each signs its report with its own key, over one
connection. Chromium is cut off while they report, and then back: so the page is sent what it missed as one
batch, whose size is known, as is a computer that wakes.

A batch is judged by a bare canvas that parses and paints the same, in turn with it; its drawing alone, by
what nobody notices.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx
from playwright.async_api import BrowserContext, Page, async_playwright

from harmony_control.store.home import Enrolled
from harmony_control.store.nkey import Nkey
from harmony_core.outcome import Noop
from harmony_core.wire.envelope import generate_key
from harmony_core.wire.names import new_mailbox
from tests.control.scripted_device import ScriptedDevice, failure
from tests.ports import free_address
from tests.web.serve_process import add_viewer, serve, sign_in

from .bed import Bed
from .figures import Figure, Line, Unmeasurable, median
from .goals import line
from .many_devices import beat, make_devices, report
from .rounds import Rounds

__all__ = ["PAGE", "page_lines"]

PAGE = (
    *("page.first_paint", "page.fleet_drawn"),
    *("page.100_changes", "page.100_changes.draw"),
    *("page.10000_changes", "page.10000_changes.draw"),
)
_DEVICES = 10_000
_DRAW_MS = {100: 5.0, _DEVICES: 60.0}
_FIRST_MS = 1_000.0
_HEARTBEAT_S = 30.0
_WITHIN_S = 120.0
_LOOK_AGAIN_S = 0.02
_HERE = Path(__file__).parent
_SIZE: Any = {"width": 1280, "height": 800}


@attrs.define
class _Fleet:
    """Ten thousand devices, and who asks `harmony serve` how they are."""

    devices: Sequence[ScriptedDevice]
    client: httpx.AsyncClient
    _beat_s: float = 0.0
    """When their hearts beat last."""

    async def report(self, count: int, *, fails: bool) -> None:
        """Have the first *count* say that their Score *fails* or not; until `harmony serve` has it."""
        if time.monotonic() - self._beat_s > _HEARTBEAT_S:
            # Here and not beside: it would take from what is measured.
            self._beat_s = time.monotonic()
            await beat(self.devices)
        outcome = failure("JobFailed", "on purpose") if fails else Noop()
        await report(self.devices[:count], outcome, generation=0, ready=not fails)
        await self.until_served(count if fails else 0)

    async def until_served(self, failing: int) -> None:
        """Wait until `harmony serve` tells of all devices, of which so many fail."""
        async with asyncio.timeout(_WITHIN_S):
            while True:
                found = (await self.client.get("/api/fleet")).json()
                code = found["states"]["workloads"]["Healthy"]
                if found["workloads"].count(code) == _DEVICES - failing:
                    return
                await asyncio.sleep(0.1)


async def page_lines(bed: Bed, rounds: Rounds) -> AsyncIterator[Line]:
    """Open the page again and again; then have few and all devices change."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise Unmeasurable("there is no Chromium here: apt install chromium")
    async with _serving(bed) as fleet, async_playwright() as playwright:
        # A browser each: a page behind another has no frames.
        ours, other = [
            await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            for _ in range(2)
        ]
        context = await ours.new_context(viewport=_SIZE)
        await context.add_init_script(path=_HERE / "page.js")
        view = await _sign_in(context, fleet)
        painted, drawn = await _load(view, rounds.of(20))
        yield line(PAGE[0], median(painted, "ms"), Figure(_FIRST_MS, 0, "ms"))
        yield line(PAGE[1], median(drawn, "ms"), Figure(_FIRST_MS, 0, "ms"))
        beside = await other.new_page(viewport=_SIZE)
        await _lay_out(view, beside, [each.id for each in fleet.devices])
        for count, usual in ((100, 10), (_DEVICES, 3)):
            frames, floor = await _change(view, beside, fleet, count, rounds.of(usual))
            took, drew = [median([each[name] for each in frames], "ms") for name in ("ms", "draw")]
            yield line(f"page.{count}_changes", took, median(floor, "ms"))
            yield line(f"page.{count}_changes.draw", drew, Figure(_DRAW_MS[count], 0, "ms"))
        for each in (ours, other):
            await each.close()


@asynccontextmanager
async def _serving(bed: Bed) -> AsyncGenerator[_Fleet]:
    """`harmony serve` before ten thousand devices, each of which was heard and is in order."""
    devices = await asyncio.to_thread(_enrol, bed)
    await asyncio.to_thread(add_viewer, bed.bus.home)
    async with (
        serve(bed.bus.home, "--listen", free_address()) as served,
        sign_in(served.url, timeout_s=60) as client,
    ):
        fleet = _Fleet(devices, client)
        await fleet.report(_DEVICES, fails=False)
        yield fleet


def _enrol(bed: Bed) -> list[ScriptedDevice]:
    """Ten thousand that share the control plane's connection, and have a key each."""
    keys = {f"pi-{number:05}": generate_key() for number in range(_DEVICES)}
    enrolled = {
        name: Enrolled(Nkey.new().public, new_mailbox(), key.public.to_text())
        for name, key in keys.items()
    }
    bed.bus.home.save_agents(enrolled)
    return make_devices(
        bed.bus.admin, ((name, enrolled[name].mailbox, key) for name, key in keys.items())
    )


async def _sign_in(context: BrowserContext, fleet: _Fleet) -> Page:
    """Return the page as who has signed in elsewhere sees it."""
    url = str(fleet.client.base_url)
    await context.add_cookies(
        [{"name": name, "value": value, "url": url} for name, value in fleet.client.cookies.items()]
    )
    view = await context.new_page()
    await view.goto(url)
    await _until_drawn(view, _DEVICES)
    return view


async def _load(view: Page, count: int) -> tuple[list[float], list[float]]:
    """Load the page so often; return when something was painted, and when the whole fleet was."""
    painted: list[float] = []
    drawn: list[float] = []
    for _ in range(count):
        await view.reload()
        await _until_drawn(view, _DEVICES)
        first, whole = await view.evaluate(
            "[performance.getEntriesByName('first-contentful-paint')[0].startTime,"
            " performance.getEntriesByName('harmony-draw')[0]].map(m => m.startTime === undefined"
            " ? m : m.startTime + m.duration)"
        )
        painted.append(first)
        drawn.append(whole)
    return painted, drawn


async def _lay_out(view: Page, beside: Page, ids: Sequence[str]) -> None:
    """Give the floor a canvas of the same size, with cells of the same size."""
    width, height = await view.evaluate(
        "(() => { const c = document.querySelector('canvas.grid'); return [c.width, c.height]; })()"
    )
    cell = 1
    while (width // (cell + 1)) * (height // (cell + 1)) >= len(ids):
        cell += 1
    script = (_HERE / "floors" / "page.js").read_text()
    await beside.evaluate(script, [width, height, cell, ids])


async def _change(
    view: Page, beside: Page, fleet: _Fleet, count: int, times: int
) -> tuple[list[dict[str, float]], list[float]]:
    """Have *count* devices fail, and be well again, so often; return the frames, and what the floor took."""
    frames: list[dict[str, float]] = []
    floor: list[float] = []
    for number in range(times * 2):
        await view.context.set_offline(True)
        await view.evaluate("bench.stream.close(); bench.stream.onerror(); bench.frames = []")
        await fleet.report(count, fails=number % 2 == 0)
        await view.context.set_offline(False)
        frames.append(await _until_drawn(view, count, is_batch=True))
        data = await view.evaluate("bench.data")
        floor.append(await beside.evaluate("data => floor(data)", data))
    return frames, floor


async def _until_drawn(view: Page, cells: int, *, is_batch: bool = False) -> dict[str, float]:
    """Return the frame in which so many cells were drawn; with *is_batch*, because of changes."""
    async with asyncio.timeout(_WITHIN_S):
        while True:
            frames: list[dict[str, float]] = await view.evaluate("bench.frames")
            for each in frames:
                if each["cells"] == cells and each["isBatch"] >= is_batch:
                    return each
            await asyncio.sleep(_LOOK_AGAIN_S)
