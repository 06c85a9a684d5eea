"""A fleet of agents that are processes of their own, each over a folder: they can be killed as a power cut
kills them, and have a time zone and a clock of their own."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import attrs

from harmony_control.fleet import Fleet
from harmony_control.server.buckets import ensure_buckets
from tests.faults.device import Clock, find_faketime
from tests.nats import Bus, serving

from .rollout_scene import AnyScene

__all__ = ["DeviceProcess", "ProcessScene", "serving_processes"]

_HEARTBEAT_S = 0.5


@attrs.define
class DeviceProcess:
    """One device: a folder, and the agent that takes it for a whole device."""

    id: str
    folder: Path
    clock: Clock
    environment: Mapping[str, str]
    process: asyncio.subprocess.Process | None = None

    def read(self, path: str) -> bytes | None:
        """Return what is in that file, also while no agent runs."""
        found = self.folder / "device" / path.lstrip("/")
        return found.read_bytes() if found.exists() else None

    def said(self) -> str:
        """Return all that its agents have logged."""
        return (self.folder / "said").read_text()

    async def start(self) -> None:
        """Run the agent, with what is left of the last one's folder and memory."""
        with (self.folder / "said").open("ab") as said:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "harmony_agent.cli", "run"),
                *("--config", str(self.folder / "agent.toml")),
                stderr=said,
                env=self.environment,
            )

    async def kill(self) -> None:
        """As a power cut does; nothing is told to anybody."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


@attrs.frozen
class ProcessScene(AnyScene):
    """A fleet of such devices."""

    processes: Mapping[str, DeviceProcess]

    async def set_clock(self, name: str, at: datetime) -> None:
        """Have it be *at* on that device, which has a clock of its own, and return once it is."""
        ahead_s = int((at - datetime.now(UTC)).total_seconds())
        self.processes[name].clock.set_ahead(ahead_s)

        async def shows_it() -> bool:
            (row,) = [each for each in await self.fleet.rows() if each.id == name]
            return row.clock_offset_s is not None and abs(row.clock_offset_s - ahead_s) < 30

        await self.until(shows_it)

    def written_at(self, path: str) -> dict[str, int]:
        """Return when that file was written last, by device."""
        paths = {
            name: each.folder / "device" / path.lstrip("/") for name, each in self.processes.items()
        }
        return {name: each.stat().st_mtime_ns for name, each in paths.items()}


def _write_toml(bus: Bus, name: str, folder: Path) -> None:
    (folder / "device/etc").mkdir(parents=True)
    toml = folder / "agent.toml"
    toml.write_text(
        f'heartbeat_s = {_HEARTBEAT_S}\nstate_directory = "{folder}/state"\n'
        f'runtime_directory = "{folder}/run"\n{bus.home.agent_toml(name).read_text()}\n'
        f'[topology]\nroot = "{folder}/device"\n'
    )
    toml.chmod(0o600)


def _environment(zone: str | None, clock: Clock, *, is_clock_own: bool) -> dict[str, str]:
    found = dict(os.environ)
    if zone is not None:
        found["TZ"] = zone
    if is_clock_own:
        faketime = find_faketime()
        assert faketime is not None
        found |= {
            "LD_PRELOAD": faketime,
            "FAKETIME_TIMESTAMP_FILE": str(clock.file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
            "FAKETIME_DISABLE_SHM": "1",
        }
    return found


@asynccontextmanager
async def serving_processes(
    root: Path,
    zones: Mapping[str, str | None],
    *,
    heartbeat_age_s: float | None = None,
    own_clocks: bool = False,
) -> AsyncGenerator[ProcessScene]:
    """So many agents below *root*, each in its time zone (None: that of this machine), each heard.

    *heartbeat_age_s*: after so long the server takes them for silent. *own_clocks*: each has one that can be
    set, where libfaketime is installed.
    """
    async with (
        serving(root, *zones) as bus,
        Fleet.connect(bus.home) as fleet,
        AsyncExitStack() as stack,
    ):
        if heartbeat_age_s is not None:
            await ensure_buckets(bus.admin, heartbeat_age_s=heartbeat_age_s)
        devices: dict[str, DeviceProcess] = {}
        for name, zone in zones.items():
            folder = root / name
            await asyncio.to_thread(_write_toml, bus, name, folder)
            clock = Clock(folder / "clock")
            clock.set_ahead(0)
            environment = _environment(zone, clock, is_clock_own=own_clocks)
            devices[name] = DeviceProcess(name, folder, clock, environment)
            await devices[name].start()
            stack.push_async_callback(devices[name].kill)
        scene = ProcessScene(bus, fleet, devices, root / "folder", stack, devices)

        async def are_heard() -> bool:
            return all(each.presence == "Heard" for each in await fleet.agents())

        await scene.until(are_heard)
        yield scene
