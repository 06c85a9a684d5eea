"""What the tests of the `harmony` command stand on: the command as a person types it, and a real bus."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs

from harmony_control.fleet import Fleet
from harmony_control.server.apply import RELOADED, log_since
from harmony_control.store.home import Home
from tests import preloaded
from tests.nats import Bus, serving

from .scripted_device import ScriptedDevice

__all__ = [
    "Ground",
    "Said",
    "command",
    "count_reloads",
    "environment",
    "ground",
    "harmony",
    "running_command",
]


@attrs.frozen
class Said:
    """What a command said, and how it ended."""

    status: int
    out: str
    err: str

    @property
    def documents(self) -> list[dict[str, Any]]:
        """Standard output, of a command with --json."""
        return [json.loads(line) for line in self.out.splitlines()]


def command(*arguments: str) -> list[str]:
    """The command line that runs ``harmony`` with *arguments*, as it is here."""
    return [sys.executable, "-m", "harmony_control.cli", *arguments]


def environment(home: Home | Path | None, **more: str) -> dict[str, str]:
    """This process' environment, with nothing in it that would alter what a command prints."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("HARMONY_") and name not in {"NO_COLOR", "COLUMNS", "FORCE_COLOR"}
    }
    root = home.root if isinstance(home, Home) else home
    return kept | ({"HARMONY_HOME": str(root)} if root else {}) | {"TERM": "xterm"} | more


def count_reloads(home: Home) -> int:
    """Return how often the server has read its configuration anew, as its log says."""
    return sum(map(bool, map(RELOADED.fullmatch, log_since(home.nats_log, 0).splitlines())))


@asynccontextmanager
async def running_command(
    home: Home, *arguments: str, is_heard: bool = True
) -> AsyncGenerator[asyncio.subprocess.Process]:
    """The command as a process of its own, which is killed at the end of the block if it still runs.

    Unless it *is_heard*, what it says is dropped, and its errors are the test's.
    """
    process = await asyncio.create_subprocess_exec(
        *command(*arguments),
        env=environment(home),
        stdout=asyncio.subprocess.PIPE if is_heard else asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE if is_heard else None,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def harmony(home: Home | Path | None, *arguments: str, stdin: str = "", **more: str) -> Said:
    """The command, as a user runs it; *more* is for its environment. It never shows a traceback."""
    ended = await preloaded.run(arguments, env=environment(home, **more), stdin=stdin)
    assert "Traceback" not in ended.err, ended.err
    return Said(ended.status, ended.out, ended.err)


@attrs.frozen
class Ground:
    """A real bus with two devices: ``pi-1``, which a test speaks for, and ``pi-2``, never heard of."""

    bus: Bus
    fleet: Fleet
    pi: ScriptedDevice

    @property
    def home(self) -> Home:
        return self.bus.home

    async def harmony(self, *arguments: str, stdin: str = "", **more: str) -> Said:
        return await harmony(self.home, *arguments, stdin=stdin, **more)


@asynccontextmanager
async def ground(root: Path) -> AsyncGenerator[Ground]:
    """As `Ground` says, below *root*."""
    async with serving(root, "pi-1", "pi-2") as bus, Fleet.connect(bus.home) as fleet:
        yield Ground(bus, fleet, ScriptedDevice(await bus.device("pi-1")))
