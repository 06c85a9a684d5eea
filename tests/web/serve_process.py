"""`harmony serve` as a process of its own, and who has signed in there."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import attrs
import httpx

from harmony_control.store.home import Home
from harmony_control.web.users import Users
from tests.control.ground import command, environment

from .ground import CHEAP, PASSWORD

__all__ = ["Served", "add_viewer", "serve", "sign_in"]

_VIEWER = "ada"


@attrs.frozen
class Served:
    """One that runs."""

    process: asyncio.subprocess.Process
    begun: Mapping[str, Any]
    """What it has said of itself."""

    @property
    def url(self) -> str:
        return str(self.begun["url"])


@asynccontextmanager
async def serve(home: Home, *options: str) -> AsyncGenerator[Served]:
    """A `harmony serve` of *home*, until the end of the block; it must end by itself then."""
    with tempfile.TemporaryFile() as errors:  # a pipe would be full one day, and have it wait
        process = await asyncio.create_subprocess_exec(
            *command("serve", *options, "--json"),
            env=environment(home),
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
        )
        assert process.stdout is not None
        try:
            yield Served(process, json.loads(await process.stdout.readline()))
            process.terminate()
            await process.wait()
            errors.seek(0)
            assert b"Traceback" not in errors.read()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def add_viewer(home: Home) -> None:
    """Have a user there who may look."""
    Users(home, CHEAP).add(_VIEWER, "viewer", PASSWORD)


@asynccontextmanager
async def sign_in(url: str, *, timeout_s: float = 20) -> AsyncGenerator[httpx.AsyncClient]:
    """A client that sends what our own page would, signed in as the user of `add_viewer`."""
    async with httpx.AsyncClient(
        base_url=url, headers={"Origin": url}, timeout=timeout_s
    ) as client:
        reply = await client.post("/api/session", json={"name": _VIEWER, "password": PASSWORD})
        assert reply.status_code == 201, reply.text
        yield client
