"""Somebody who looks at the fleet all the time, by `harmony agents` and by the dashboard's own server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import httpx

from harmony_control.store.home import Home
from tests.control.ground import harmony
from tests.ports import free_address
from tests.web.serve_process import add_viewer, serve, sign_in

__all__ = ["Onlooker", "looking_on"]

_LOOK_AGAIN_S = 2.0
_LIST_AGAIN_S = 30.0


@attrs.define
class Onlooker:
    """What was the slowest of each since it was asked last."""

    serve_pid: int
    list_s: float = 0.0
    page_s: float = 0.0
    looks: int = 0

    def tell(self) -> str:
        said = f"harmony agents {self.list_s:.1f} s, a page of the table {self.page_s:.2f} s"
        self.list_s = self.page_s = 0.0
        return said

    async def look_at_pages(self, client: httpx.AsyncClient) -> None:
        while True:
            began_s = time.monotonic()
            reply = await client.get("/api/devices", params={"limit": 100, "sort": "-last_seen"})
            assert reply.status_code == 200, reply.text
            self.page_s = max(self.page_s, time.monotonic() - began_s)
            self.looks += 1
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def list_agents(self, home: Home) -> None:
        while True:
            began_s = time.monotonic()
            said = await harmony(home, "agents")
            assert said.status in {0, 1}, said
            self.list_s = max(self.list_s, time.monotonic() - began_s)
            await asyncio.sleep(_LIST_AGAIN_S)


@asynccontextmanager
async def looking_on(home: Home) -> AsyncGenerator[Onlooker]:
    """`harmony serve`, and somebody who is signed in there; whatever fails for them ends the block."""
    add_viewer(home)
    async with (
        serve(home, "--listen", free_address()) as served,
        sign_in(served.url, timeout_s=120) as client,
    ):
        onlooker = Onlooker(served.process.pid)
        async with asyncio.TaskGroup() as tasks:
            looks = [
                tasks.create_task(onlooker.look_at_pages(client)),
                tasks.create_task(onlooker.list_agents(home)),
            ]
            yield onlooker
            for each in looks:
                each.cancel()
