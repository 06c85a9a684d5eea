"""``harmony status --watch``: what is shown is what is so, also of a device that has gone."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from harmony_core.outcome import Noop, Success

from .ground import Ground, command, environment
from .scripted_device import page


@asynccontextmanager
async def watched(plane: Ground, *arguments: str) -> AsyncGenerator[asyncio.StreamReader]:
    """The lines that it prints until the block ends."""
    process = await asyncio.create_subprocess_exec(
        *command("status", "--watch", *arguments),
        env=environment(plane.home),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        process.send_signal(signal.SIGINT)
        await process.communicate()
    assert process.returncode == 130


async def document(lines: asyncio.StreamReader) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await lines.readline())
    return found


async def test_what_a_device_said_before_it_went_does_not_make_it_heard(plane: Ground) -> None:
    await plane.pi.report(plane.pi.state(3, {"motd": page(Success(), 3)}))
    async with watched(plane, "pi-1", "--json") as lines:
        first = await document(lines)
        assert (first["presence"], first["generation"]) == ("Offline", 3)
        await plane.pi.report(plane.pi.state(4, {"motd": page(Noop(), 4)}))
        second = await document(lines)
    assert (second["presence"], second["generation"]) == ("Heard", 4)


async def test_for_people_too(plane: Ground) -> None:
    await plane.pi.report(plane.pi.state(3))
    async with watched(plane) as lines:
        assert b"pi-1  offline, last seen " in await lines.readline()
