"""``agent.*``: what it costs to have an agent: memory, and computing while nothing happens.

Without ``containers`` the device is a folder. With, a service that answers like podman's stands behind the
socket, and a Score has asked for a container: what counts is the agent that has podman-py loaded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from harmony_core.manifest import SerializedScore

from .bed import Bed, Program, file_scores
from .figures import Line, median
from .goals import line
from .processes import cpu_ms, memory_of
from .rounds import Rounds
from .ten_files import THOUSAND, registered

__all__ = ["CONTAINERS", "IDLE", "MEMORY", "containers", "idle", "memory"]

MEMORY = ("agent.rss", "agent.pss")
CONTAINERS = ("agent.rss.containers", "agent.pss.containers")
IDLE = ("agent.idle_cpu", "lasting.idle_cpu.1000_resources")
_SETTLED_S = 2.0
_FILES = file_scores("/etc/app", 100, "x" * 100)
_CONTAINER = SerializedScore(
    id="web",
    kind="ContainerScore",
    version=1,
    spec={"name": "harmony-benchmark", "image": "registry.invalid/nothing:1"},
)
_HEARTBEAT_S = 10.0


async def memory(bed: Bed, rounds: Rounds) -> AsyncIterator[Line]:
    """Of an agent that keeps a hundred files, and of every process that it keeps alive."""
    ours, floors = list[Program](), list[Program]()
    for number in range(rounds.of(3)):
        name = f"living-{number}"
        ours.append(await bed.agent(name))
        await bed.push(name, _FILES)
        floors.append(await _floor(bed, f"{name}-floor"))
    await asyncio.sleep(_SETTLED_S)
    for each in _compared(MEMORY, ours, floors):
        yield each


async def containers(bed: Bed, rounds: Rounds) -> AsyncIterator[Line]:
    """The same, where a container is among what is wanted."""
    ours, floors = list[Program](), list[Program]()
    async with _like_podman(bed.root / "podman.sock") as url:
        for number in range(rounds.of(3)):
            name = f"containers-{number}"
            # All of this machine, since a folder offers no containers; files are not asked for.
            ours.append(await bed.agent(name, root="/", podman_url=url))
            await bed.push(name, [_CONTAINER])
            floors.append(await _floor(bed, f"{name}-floor", podman=url))
        await asyncio.sleep(_SETTLED_S)
        for each in _compared(CONTAINERS, ours, floors):
            yield each


def _compared(names: tuple[str, str], ours: list[Program], floors: list[Program]) -> list[Line]:
    held = [memory_of(each.pids) for each in ours]
    least = [memory_of(each.pids) for each in floors]
    rss = median([m.rss for m in held], "MiB"), median([m.rss for m in least], "MiB")
    pss = median([m.pss for m in held], "MiB"), median([m.pss for m in least], "MiB")
    return [line(names[0], *rss), line(names[1], *pss)]


@asynccontextmanager
async def _like_podman(socket: Path) -> AsyncGenerator[str]:
    """Answers every question with an empty object: enough to have the client loaded and used."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            while await reader.readline() not in {b"\r\n", b""}:
                pass
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(answer, socket)
    try:
        yield f"unix://{socket}"
    finally:
        server.close()


async def idle(bed: Bed, rounds: Rounds) -> AsyncIterator[Line]:
    """All at once, over the same minutes, with a heartbeat every 10 s: a hundred files, and a thousand."""
    few = await _idling(bed, "few", _FILES)
    many = await _idling(bed, "many", THOUSAND)
    floor = await _floor(bed, "idle-floor")
    await asyncio.sleep(_SETTLED_S)
    took: list[list[float]] = [[], [], []]
    for _ in range(rounds.of(3)):
        before = [cpu_ms(each.pid) for each in (few, many, floor)]
        await asyncio.sleep(rounds.idle_s)
        for samples, each, was in zip(took, (few, many, floor), before, strict=True):
            samples.append((cpu_ms(each.pid) - was) * 60.0 / rounds.idle_s)
    note = "" if rounds.idle_s == 60.0 else f"of {rounds.idle_s:g} s only"
    figures = [median(samples, "ms/min") for samples in took]
    for name, figure in zip(IDLE, figures, strict=False):
        yield line(name, figure, figures[-1], note=note)


async def _idling(bed: Bed, name: str, scores: Sequence[SerializedScore]) -> Program:
    environ = registered(bed.root / "kinds")
    agent = await bed.agent(name, heartbeat_s=_HEARTBEAT_S, environ=environ)
    await bed.push(name, scores)
    assert bed.statuses(name) == {"SUCCESS"}
    return agent


async def _floor(bed: Bed, name: str, *, podman: str | None = None) -> Program:
    await bed.put(name, bed.sealed(name, [] if podman else _FILES)[1])
    return await bed.floor("f3", name, heartbeat_s=_HEARTBEAT_S, podman=podman)
