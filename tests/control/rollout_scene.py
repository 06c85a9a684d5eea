"""A fleet of real agents over made-up files on a real bus, and the folder that describes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol

import attrs

from harmony_control.fleet import Fleet
from harmony_control.plan.folder import Folder, read_folder
from harmony_control.plan.plan import Plan
from harmony_control.rollout.controller import Rollout
from harmony_control.rollout.state import Look
from harmony_core.plugins import Registry, load
from harmony_core.testing import FakeFiles
from harmony_core.wire.actual_state import LayerStatus
from harmony_scores import FileScore
from tests.device import running_agent
from tests.nats import Bus, serving

__all__ = ["MOTD", "WAVES", "AnyScene", "Files", "Scene", "serving_scene"]

MOTD = "- {id: motd, kind: FileScore, spec: {path: /etc/motd, content: %s}}\n"
WAVES = "    rollout:\n      steps: [1, 60%]\n"


class Files(Protocol):
    """What is on a device."""

    def read(self, path: str) -> bytes | None: ...


@attrs.frozen
class AnyScene:
    """A fleet of real agents over whatever, and the folder that describes it."""

    bus: Bus
    fleet: Fleet
    devices: Mapping[str, Files]
    folder: Path
    stack: AsyncExitStack

    def describe(
        self,
        motd: str,
        *,
        rollout: str = "",
        labels: str | Mapping[str, str] = "{role: kiosk}",
        more: str = "",
    ) -> None:
        """Write the folder; *labels* are those of each device, or by its id."""
        self.folder.mkdir(exist_ok=True)
        of = dict.fromkeys(self.devices, labels) if isinstance(labels, str) else labels
        devices = "".join(f"  {each}: {{labels: {of[each]}}}\n" for each in self.devices)
        self.folder.joinpath("fleet.yaml").write_text(
            f"devices:\n{devices}classes:\n"
            f"  kiosk:\n    selector: role=kiosk\n    scores: [kiosk.yaml]\n{rollout}{more}"
        )
        self.folder.joinpath("kiosk.yaml").write_text(motd)

    def read(self) -> Folder:
        return read_folder(self.folder, load())

    async def plan(self) -> Plan:
        return await self.fleet.plan(await asyncio.to_thread(self.read), resolve=False)

    async def apply(self, *, prune: bool = False) -> Rollout:
        async for _ in self.fleet.apply(await self.plan(), prune=prune):
            pass
        return self.fleet.rollout("kiosk")

    async def go(self, rollout: Rollout, *, within_s: float = 60) -> list[Look]:
        """Step after step, to its end."""
        async with asyncio.timeout(within_s):
            return [each async for each in rollout.run()]

    async def layer(self, name: str) -> LayerStatus:
        """Return what the class is on that device, as it said last, once it has said so."""
        async with asyncio.timeout(60):
            while (state := await self.fleet.device(name).state()) is None or not state.layers:
                await asyncio.sleep(0.05)
        return state.layers["class:kiosk"]

    async def until(self, holds: Callable[[], Awaitable[bool]], *, within_s: float = 60) -> None:
        """Wait until it *holds*."""
        async with asyncio.timeout(within_s):
            while not await holds():
                await asyncio.sleep(0.05)

    async def content(self) -> dict[str, bytes | None]:
        return {name: files.read("/etc/motd") for name, files in self.devices.items()}


@attrs.frozen
class Scene(AnyScene):
    """A fleet of real agents over made-up files."""

    files: Mapping[str, FakeFiles]
    agents: Mapping[str, asyncio.Task[None]]


@asynccontextmanager
async def serving_scene(
    root: Path, count: int, *, heartbeat_s: float = 1.0
) -> AsyncGenerator[Scene]:
    """So many agents below *root*, each heard."""
    names = [f"pi-{each + 1}" for each in range(count)]
    async with (
        serving(root, *names) as bus,
        Fleet.connect(bus.home) as fleet,
        AsyncExitStack() as stack,
    ):
        files = {name: FakeFiles() for name in names}
        agents = {
            name: await stack.enter_async_context(
                running_agent(
                    bus.home,
                    name,
                    root / name,
                    registry=Registry([FileScore]),
                    offers={"FileSystemHost": files[name]},
                    missing={"SystemdHost": "no systemd here"},
                    heartbeat_s=heartbeat_s,
                )
            )
            for name in names
        }
        async with asyncio.timeout(30):
            while not all(each.presence == "Heard" for each in await fleet.agents()):
                await asyncio.sleep(0.05)
        yield Scene(bus, fleet, files, root / "folder", stack, files, agents)
