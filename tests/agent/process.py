"""An agent in a process of its own, on a folder: for what cannot be done to the process of the tests."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import attrs

from .rig import Rig

__all__ = ["Agent", "process"]


@attrs.frozen
class Agent:
    """An agent that runs, and the folder that it takes for a device."""

    process: asyncio.subprocess.Process
    root: Path

    def said(self) -> str:
        """All that it has logged."""
        return (self.root.parent / "said").read_text()

    def descriptors(self) -> int:
        """The highest number of a file that it has open."""
        return max(map(int, os.listdir(f"/proc/{self.process.pid}/fd")))

    def address_space_bytes(self) -> int:
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[0]
        return int(pages) * resource.getpagesize()

    def limit(self, kind: int, most: int) -> None:
        _, hard = resource.prlimit(self.process.pid, kind)
        resource.prlimit(self.process.pid, kind, (most, hard))


@asynccontextmanager
async def process(rig: Rig, environment: Mapping[str, str] | None = None) -> AsyncGenerator[Agent]:
    """The agent of *rig*, as it is run on a device, on a folder with files and directories alone."""
    root = rig.root / "device"
    root.mkdir(exist_ok=True)
    toml = rig.root / "agent.toml"
    enrolled = rig.bus.home.agent_toml("pi-1").read_text()
    toml.write_text(
        f'heartbeat_s = 1.0\nstate_directory = "{rig.root}/state"\n'
        f'runtime_directory = "{rig.root}/run"\n{enrolled}\n[topology]\nroot = "{root}"\n'
    )
    toml.chmod(0o600)
    with (rig.root / "said").open("wb") as said:
        started = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "harmony_agent.cli", "run", "--config", str(toml)),
            stderr=said,
            env={**os.environ, **(environment or {})},
        )
    try:
        yield Agent(started, root)
        assert started.returncode is None
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()
