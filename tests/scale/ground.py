"""A fleet of thousands: a real server, agents in a few processes, and the `harmony` command."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs

from benchmarks.processes import cpu_ms, memory_of
from harmony_control.enrol import add_agents
from harmony_control.server.process import running
from harmony_control.store.home import Home
from tests.control.ground import Said, harmony
from tests.nats import fleet_home
from tests.ports import free_address

from .agents import PATH, Found, name_of, page
from .onlooker import Onlooker, looking_on

__all__ = ["Load", "Scale", "scale"]

_A_PROCESS = 2_500
"""So many agents to one process: their files and connections are open at the same time."""


@attrs.define
class _Agents:
    """One process of them."""

    first: int
    end: int
    process: asyncio.subprocess.Process

    async def look(self) -> Found:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        return Found(**json.loads(await self._read()))

    async def wait_begun(self) -> None:
        assert int(await self._read()) == self.end - self.first

    async def _read(self) -> bytes:
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        assert line, "the process of the agents has ended"
        return line

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


@attrs.frozen
class Load:
    """What a device costs."""

    server_cpu_ms: float
    server_kib: float
    serve_kib: float

    def __str__(self) -> str:
        server = f"message server {self.server_cpu_ms:.0f} ms of CPU, {self.server_kib:.0f} KiB"
        return f"{server}, harmony serve {self.serve_kib:.1f} KiB a device"


@attrs.frozen
class Scale:
    """All of it."""

    home: Home
    folder: Path
    state: Path
    server_pid: int
    onlooker: Onlooker
    count: int
    all: list[_Agents] = attrs.field(factory=list[_Agents])

    async def begin(self, parts: Sequence[tuple[int, int]]) -> None:
        """Run the agents of those numbers, each part in a process of its own."""
        begun = [await self._spawn(first, end) for first, end in parts]
        self.all.extend(begun)
        await asyncio.gather(*(each.wait_begun() for each in begun))

    async def _spawn(self, first: int, end: int) -> _Agents:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.scale.agents"),
            *(str(self.home.root), str(self.state), str(first), str(end)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        return _Agents(first, end, process)

    def split(self) -> list[tuple[int, int]]:
        """Return which devices go into which process."""
        size = min(_A_PROCESS, -(-self.count // (os.cpu_count() or 1)))
        return [(each, min(each + size, self.count)) for each in range(0, self.count, size)]

    async def kill_some(self) -> None:
        """Kill one of the processes, with all its agents, and begin it anew with what those had stored."""
        gone = self.all.pop(0)
        await gone.kill()
        await self.begin([(gone.first, gone.end)])

    async def look(self) -> Found:
        """Return what is on all devices that run."""
        found = await asyncio.gather(*(each.look() for each in self.all))
        return sum(found, Found(versions={}, received_bytes=0, cpu_s=0.0))

    async def until(self, holds: Callable[[Found], bool], *, within_s: float = 300) -> Found:
        """Return what is on the devices once it is as wished."""
        found = await self.look()
        try:
            async with asyncio.timeout(within_s):
                while not holds(found):
                    await asyncio.sleep(0.5)
                    found = await self.look()
        except TimeoutError:
            raise AssertionError(f"never so within {within_s:g} s; last seen: {found}") from None
        return found

    async def until_heard(self) -> None:
        """Return once `harmony agents` shows all of them as online."""
        async with asyncio.timeout(600):
            while True:
                said = await self.harmony("agents", "--json")
                assert said.status == 0, said
                if sum(each["device"] == "Online" for each in said.documents) == self.count:
                    return
                await asyncio.sleep(1)

    @property
    def load(self) -> Load:
        """What the servers have used so far, for each device."""
        return Load(
            server_cpu_ms=cpu_ms(self.server_pid) / self.count,
            server_kib=memory_of([self.server_pid]).rss * 1024 / self.count,
            serve_kib=memory_of([self.onlooker.serve_pid]).rss * 1024 / self.count,
        )

    async def harmony(self, *arguments: str) -> Said:
        return await harmony(self.home, *arguments)

    async def apply(
        self, version: int, *, fails_on: float = 0, success: str = "90%", canary_soak: str = "1s"
    ) -> Said:
        """`harmony apply` of a new version of the page, wave by wave to the end; the first wave is 1 %."""
        page_score = {
            "id": "page",
            "kind": "FileScore",
            "spec": {"path": PATH, "content": page(version, fails_on)},
        }
        fleet = {
            "devices": {},
            "classes": {
                "kiosk": {
                    "selector": "",
                    "scores": ["kiosk.yaml"],
                    "rollout": {
                        "steps": [{"upto": "1%", "soak": canary_soak}, "10%", "100%"],
                        "success": success,
                        "max_unhealthy": "2%",
                        "deadline": "10m",
                    },
                }
            },
        }
        self.folder.mkdir(exist_ok=True)
        # JSON is YAML, too.
        (self.folder / "fleet.yaml").write_text(json.dumps(fleet))
        (self.folder / "kiosk.yaml").write_text(json.dumps([page_score]))
        return await self.harmony("apply", str(self.folder), "--yes")


@asynccontextmanager
async def scale(root: Path, count: int) -> AsyncGenerator[Scale]:
    """So many devices, let in at once; none runs yet."""
    home = fleet_home(root)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(running(home, listen=free_address()))
        await asyncio.to_thread(add_agents, home, map(name_of, range(count)))
        assert server.pid is not None
        onlooker = await stack.enter_async_context(looking_on(home))
        fleet = Scale(home, root / "fleet", root / "state", server.pid, onlooker, count)
        try:
            yield fleet
        finally:
            for each in fleet.all:
                await each.kill()
