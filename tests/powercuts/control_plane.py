"""An operator and a server on one machine, from the first key on. Run as a program, so that it is recorded.

``python -m tests.powercuts.control_plane HOME SAID``. What Harmony's own functions return it says, line by
line, to the file SAID, as soon as they do.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path

from nats.aio.client import Client

from harmony_control.bus.connection import admin
from harmony_control.enrol import add_agent, retire
from harmony_control.push.push import Change, Contents, push
from harmony_control.server.process import running
from harmony_control.server.roster import publish_devices
from harmony_control.store import operator_key
from harmony_control.store.home import Home
from harmony_control.store.seen import SeenCounters, SignedMessage
from harmony_core.wire.manifest import SerializedScore
from tests.ports import free_address

__all__ = ["PUSHES", "report", "wanting"]

PUSHES = 3
"""So often each device is pushed to in each run of the server."""

Say = Callable[..., None]


def wanting(text: str) -> Change:
    """Return the change to one Score that says *text*."""
    entry = SerializedScore(
        id="motd", kind="FileScore", version=1, spec={"path": "/etc/motd", "content": text}
    )
    return lambda _: Contents(scores={"motd": entry})


def report(counter: int) -> SignedMessage:
    """Return a report of a device, as it is remembered."""
    return SignedMessage(
        agent_id="pi-1",
        kind="report",
        key="key",
        counter=counter,
        revision=counter,
        written_s=counter,
    )


async def _push(home: Home, client: Client, say: Say, *agents: str) -> None:
    for number in range(PUSHES):
        for agent_id in agents:
            pushed = await push(home, client, agent_id, wanting(f"{agent_id} {number}\n"))
            say(pushed=[agent_id, pushed.generation, pushed.manifest_sha256])


async def _live(home: Home, say: Say) -> None:
    say(key=(await asyncio.to_thread(operator_key.create, home)).to_text())
    address = free_address()
    async with running(home, listen=address), admin(home) as client:
        say(authority=home.authority.read_text())
        for agent_id in ("pi-1", "pi-2"):
            await asyncio.to_thread(add_agent, home, agent_id)
            say(added=[agent_id, home.agents()[agent_id].nkey])
        await publish_devices(home, client)
        await _push(home, client, say, "pi-1", "pi-2")
        SeenCounters(home.seen).admit([report(1)])
    async with running(home), admin(home) as client:
        await _push(home, client, say, "pi-1")
        SeenCounters(home.seen).admit([report(2)])
        say(removing="pi-2")
        await retire(home, client, "pi-2")
        say(removed="pi-2")
        await asyncio.to_thread(add_agent, home, "pi-3")
        say(added=["pi-3", home.agents()["pi-3"].nkey])
        await publish_devices(home, client)
        await _push(home, client, say, "pi-1", "pi-3")


def _main(home: str, said: str) -> None:
    def say(**what: object) -> None:
        with Path(said).open("ab", buffering=0) as file:
            file.write(json.dumps(what).encode() + b"\n")

    asyncio.run(_live(Home(Path(home)), say))


if __name__ == "__main__":
    _main(*sys.argv[1:])
