"""Many whole agents in one process, each over files in memory.

``python -m tests.scale.agents HOME STATE FIRST END`` runs the devices of those numbers. It says how many have
begun, and answers each line on its input with what is on its devices, as JSON. It ends with its input.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from harmony_agent import config as configuration
from harmony_agent.bus.bounded_client import BoundedClient
from harmony_agent.bus.connection import Bus
from harmony_agent.bus.link import Account
from harmony_control.store.home import Home
from harmony_core import plugins
from harmony_core.change import Change
from harmony_core.errors import DidNotStick
from harmony_core.resources import File
from harmony_pi_topology.testing.fake_files import FakeFiles
from tests.device import running_agent

__all__ = ["PATH", "Found", "fails", "name_of", "page"]

PATH = "/srv/page"
_SIZE_BYTES = 36_000
"""Signed and in base64, that is a document of 64 KiB."""
_HEARTBEAT_S = 600.0
"""As on thin lines: else the heartbeats of ten thousand quiet agents would keep two processors busy alone."""
_TOGETHER = 16
"""So many agents begin at one time: more would only wait for the processor."""


def name_of(number: int) -> str:
    """Return what the device of that number is called."""
    return f"pi-{number}"


def fails(device: str, percent: float) -> bool:
    """Return whether *device* is one of those so many of a hundred that fail."""
    return int(device.rpartition("-")[2]) % 100 < percent


def page(version: int, fails_on: float = 0) -> str:
    """Return what is written on every device; so many percent of them cannot take it."""
    head = f"{version} {fails_on:g} %\n"
    return head + "x" * (_SIZE_BYTES - len(head))


def version_of(content: bytes | None) -> str:
    """Return which `page` that is; empty for none."""
    return "" if content is None else content.split(b" ", 1)[0].decode()


@attrs.frozen(kw_only=True)
class Found:
    """What is on the devices of one process, or of all."""

    versions: dict[str, int]
    """How many devices have which version of the page."""
    received_bytes: int
    """What the server has sent them, but for headers."""
    cpu_s: float

    def __add__(self, other: Found) -> Found:
        return Found(
            versions=dict(Counter(self.versions) + Counter(other.versions)),
            received_bytes=self.received_bytes + other.received_bytes,
            cpu_s=self.cpu_s + other.cpu_s,
        )


class _Files(FakeFiles):
    """A device's files, where a page that fails on it is not to be had."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self._device = device

    async def converge(
        self, resources: Sequence[File], *, apply: bool
    ) -> Sequence[Change | Exception]:
        for each in resources:
            self._put_fault(each)
        return await super().converge(resources, apply=apply)

    def _put_fault(self, file: File) -> None:
        assert isinstance(file.content, bytes)
        fails_on = float(file.content.split(b" ", 2)[1])
        self.faults.pop(file.path, None)
        if fails(self._device, fails_on):
            self.faults[file.path] = DidNotStick(
                "the page", field="content", wanted="new", found="old", remedy="on purpose"
            )


@attrs.frozen(kw_only=True)
class _CountedAccount(Account):
    """Knows every connection that was made by it."""

    clients: list[BoundedClient] = attrs.field(factory=list[BoundedClient])

    def client(self) -> BoundedClient:
        made = super().client()
        self.clients.append(made)
        return made


@attrs.frozen
class _Agent:
    """One of them, of which only what a test looks at is known."""

    files: _Files
    account: _CountedAccount

    @property
    def received_bytes(self) -> int:
        return sum(each.stats["in_bytes"] for each in self.account.clients)


async def _run(home: Home, name: str, place: Path, begun: asyncio.Future[_Agent]) -> None:
    config = configuration.load(home.agent_toml(name)).model_copy(
        update={"heartbeat_s": _HEARTBEAT_S}
    )
    files = _Files(name)
    account = _CountedAccount(**attrs.asdict(Account.of(config)))
    bus = Bus(account, config.report_key)
    bus.begin()
    await bus.first_try(within_s=30)
    async with running_agent(
        home,
        name,
        place,
        registry=plugins.load(),
        offers={"FileSystemHost": files},
        missing={},
        heartbeat_s=config.heartbeat_s,
        bus=bus,
    ) as running:
        begun.set_result(_Agent(files, account))
        await running


def _look(agents: Sequence[_Agent]) -> Found:
    return Found(
        versions=dict(Counter(version_of(each.files.read(PATH)) for each in agents)),
        received_bytes=sum(each.received_bytes for each in agents),
        cpu_s=time.process_time(),
    )


async def _answer(agents: Sequence[_Agent]) -> None:
    """Answer each line, until the input ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.readline():
        print(json.dumps(attrs.asdict(_look(agents))), flush=True)


async def main() -> None:
    home, state, first, end = Home(Path(sys.argv[1])), Path(sys.argv[2]), *map(int, sys.argv[3:])
    plugins.load()
    gc.freeze()
    turns = asyncio.Semaphore(_TOGETHER)
    running: set[asyncio.Task[None]] = set()

    async def begin(name: str) -> _Agent:
        async with turns:
            begun: asyncio.Future[_Agent] = asyncio.get_running_loop().create_future()
            task = asyncio.create_task(_run(home, name, state / name, begun))
            running.add(task)
            either: set[asyncio.Future[Any]] = {task, begun}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
            return await begun

    agents = await asyncio.gather(*(begin(name_of(each)) for each in range(first, end)))
    print(len(agents), flush=True)
    answering = asyncio.create_task(_answer(agents))
    # None of them ends before the input does, unless by a defect.
    done, _ = await asyncio.wait({answering, *running}, return_when=asyncio.FIRST_COMPLETED)
    for each in done:
        each.result()
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
