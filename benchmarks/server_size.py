"""``server.10000.*``: what it costs nats-server that each device has a mailbox. No goal judges it.

The configuration of a fleet of 10,000, and as the floor the same where everybody hears on subjects of its id.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from harmony_control.server.apply import log_since, log_size_bytes
from harmony_control.server.config import Listen, ServerConfig, render
from harmony_control.server.process import server_binary
from harmony_control.store.home import Enrolled
from harmony_control.store.issuers import FLEETS
from harmony_control.store.nkey import Nkey
from harmony_core.wire.envelope import generate_key
from harmony_core.wire.names import MAIL, new_mailbox
from tests.ports import free_address

from .bed import Bed
from .figures import Line, median
from .goals import line
from .rounds import Rounds

__all__ = ["SERVER_SIZE", "server_size"]

SERVER_SIZE = ("server.10000.memory", "server.10000.reload")
_DEVICES = 10_000
_SAID_WITHIN_S = 60.0
_LOOK_AGAIN_S = 0.005
_REPORT_KEY = generate_key().public.to_text()


async def server_size(bed: Bed, rounds: Rounds) -> AsyncIterator[Line]:
    """Start both, and have them read their files again."""
    agents = await asyncio.to_thread(_fleet)
    kib: tuple[list[float], list[float]] = ([], [])
    reload_ms: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds.of(5)):
        for number, mailboxes in enumerate((True, False)):
            directory = bed.root / f"server-{number}"
            directory.mkdir(exist_ok=True)
            conf = _configuration(bed, directory, agents, mailboxes=mailboxes)
            async with _serving(directory, conf) as process:
                kib[number].append(_resident_kib(process.pid))
                reload_ms[number].append(await _reload_ms(directory, process))
    yield line("server.10000.memory", *(median(_mib(each), "MiB") for each in kib))
    yield line("server.10000.reload", *(median(each, "ms") for each in reload_ms))


def _fleet() -> dict[str, Enrolled]:
    return {
        f"pi-{n}": Enrolled(Nkey.new().public, new_mailbox(), _REPORT_KEY) for n in range(_DEVICES)
    }


def _configuration(
    bed: Bed, directory: Path, agents: dict[str, Enrolled], *, mailboxes: bool
) -> str:
    home = bed.bus.home
    text = render(
        ServerConfig(
            fleet="home",
            listen=Listen.parse(free_address()),
            directory=directory,
            admin=Nkey.new().public,
            operators={},
            readers={},
            agents=agents,
            invitations=(),
            certificate=home.server_certificate,
            key=home.server_key,
        )
    )
    if mailboxes:
        return text
    document: dict[str, Any] = json.loads(text)
    names = {each.nkey: name for name, each in agents.items()}
    for account in FLEETS:
        fleet = document["accounts"][account]
        fleet["imports"] = [each for each in fleet["imports"] if "to" not in each]
        fleet["imports"].append({"stream": {"account": "CTRL", "subject": f"{MAIL}.*.*"}})
        for user in fleet["users"]:
            hears = [f"{MAIL}.{names[user['nkey']]}.*"]
            user["permissions"]["subscribe"]["allow"][1:] = hears
    return json.dumps(document)


@asynccontextmanager
async def _serving(directory: Path, conf: str) -> AsyncGenerator[asyncio.subprocess.Process]:
    path, log = directory / "nats.conf", directory / "nats.log"
    await asyncio.to_thread(path.write_text, conf)
    offset = log_size_bytes(log)
    process = await asyncio.create_subprocess_exec(str(server_binary()), "-c", str(path))
    try:
        await _said(log, offset, "Server is ready")
        yield process
    finally:
        process.terminate()
        await process.wait()


async def _reload_ms(directory: Path, process: asyncio.subprocess.Process) -> float:
    log = directory / "nats.log"
    offset = log_size_bytes(log)
    began = time.perf_counter()
    process.send_signal(signal.SIGHUP)
    await _said(log, offset, "Reloaded server configuration")
    return (time.perf_counter() - began) * 1_000


async def _said(log: Path, offset: int, what: str) -> None:
    async with asyncio.timeout(_SAID_WITHIN_S):
        while True:
            if what in log_since(log, offset):
                return
            await asyncio.sleep(_LOOK_AGAIN_S)


def _resident_kib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(float(each.split()[1]) for each in lines if each.startswith("VmRSS:"))


def _mib(kib: list[float]) -> list[float]:
    return [each / 1_024 for each in kib]
