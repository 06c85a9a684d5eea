"""``python -m benchmarks.split``: what it would cost to make two processes of the agent. No goal judges it.

    server -> front (no root: nats-py, verification) -> Unix socket -> root part (verifies again, interprets)

Both are real processes that load what they would need, and the front is connected as a device; the root part
has a database and decodes every Score, and loads no nats-py. It runs none of the agent's tasks, so a true
split holds more than is told here. Beside them, on the same server: the agent as it is, with
the same files, and the minimal one (F3).
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import pkgutil
import socket
import statistics
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harmony_core.wire.envelope import VerifyKey, pin_keys
from harmony_core.wire.manifest import Accepted, accept

from .processes import memory_of

__all__ = ["main"]

_NOBODY = 65_534
_LENGTH_BYTES = 4
_TIMES = 300
_WARM = 20
_SETTLED_S = 2.0
_ROOT_PACKAGES = ("apply", "plan", "store", "drift")
"""Of the agent: what would be beside the topology."""
_TOPOLOGY = (
    "harmony_pi_topology.discovery",
    "harmony_pi_topology.files.reconciler",
    "harmony_pi_topology.directories.posix",
    "harmony_pi_topology.common.mounted",
    "harmony_scores",
)


def _send(wire: socket.socket, data: bytes) -> None:
    wire.sendall(len(data).to_bytes(_LENGTH_BYTES, "big") + data)


def _receive(wire: socket.socket) -> bytes:
    return _receive_exactly(wire, int.from_bytes(_receive_exactly(wire, _LENGTH_BYTES), "big"))


def _receive_exactly(wire: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = wire.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _accept(envelope: bytes, told: dict[str, Any]) -> Accepted:
    return accept(
        envelope,
        trusted=pin_keys([VerifyKey(bytes.fromhex(told["key"]))]),
        fleet="home",
        agent_id=told["agent"],
        current=None,
        now=datetime.now(UTC),
    )


async def _be_front(told: dict[str, Any], wire: socket.socket) -> None:
    """Be connected, give root up, and send what is wanted to the root part, again and again."""
    from .floors.f2 import connected  # noqa: PLC0415 - for this part alone

    client, envelope = await connected(told)
    _accept(envelope, told)
    os.setgroups([])
    os.setgid(_NOBODY)
    os.setuid(_NOBODY)
    alone: list[float] = []
    passed: list[float] = []
    for number in range(_WARM + _TIMES):
        began = time.perf_counter()
        _accept(envelope, told)
        own = time.perf_counter()
        _send(wire, envelope)
        assert _receive(wire) == b"accepted"
        ended = time.perf_counter()
        if number >= _WARM:
            alone.append((own - began) * 1e3)
            passed.append((ended - began) * 1e3)
    assert os.geteuid() == _NOBODY
    assert client.is_connected
    medians = [statistics.median(each) for each in (alone, passed)]
    print(json.dumps([*medians, len(envelope)]), flush=True)
    await asyncio.Event().wait()


def _be_root(told: dict[str, Any], wire: socket.socket) -> None:
    """Accept what the front sends, by its signature and not because the front has sent it."""
    import sqlite3  # noqa: PLC0415 - for this part alone

    import harmony_agent  # noqa: PLC0415
    from harmony_core.plugins import load  # noqa: PLC0415

    for package in _ROOT_PACKAGES:
        path = [f"{each}/{package}" for each in harmony_agent.__path__]
        for module in pkgutil.iter_modules(path, f"harmony_agent.{package}."):
            importlib.import_module(module.name)
    for name in _TOPOLOGY:
        importlib.import_module(name)
    database = sqlite3.connect(told["database"])
    database.executescript("PRAGMA journal_mode = WAL; CREATE TABLE kept (desired BLOB)")
    registry = load()
    assert "nats" not in sys.modules
    scores: list[object] = []
    print("ready", flush=True)
    try:
        while True:
            accepted = _accept(_receive(wire), told)
            if not scores:
                scores = [registry.decode(each) for each in accepted.manifest.scores]
            _send(wire, b"accepted")
    except EOFError:
        database.close()


def _be(part: str, told: dict[str, Any], descriptor: int) -> None:
    wire = socket.socket(fileno=descriptor)
    if part == "front":
        asyncio.run(_be_front(told, wire))
    else:
        _be_root(told, wire)


async def _start(part: str, told: Path, wire: socket.socket) -> asyncio.subprocess.Process:
    from .bed import unit_environment  # noqa: PLC0415 - not for the parts

    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.split", part, str(told), str(wire.fileno())),
        pass_fds=[wire.fileno()],
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **unit_environment()},
    )


async def _line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(60):
        return (await process.stdout.readline()).decode()


async def _measure() -> None:
    from .bed import file_scores, making  # noqa: PLC0415 - not for the parts

    files = file_scores("/etc/app", 100, "x" * 100)
    async with making() as bed:
        agent = await bed.agent("one")
        await bed.push("one", files)
        await bed.put("least", bed.sealed("least", files)[1])
        floor = await bed.floor("f3", "least", heartbeat_s=30.0, podman=None)
        await bed.put("two", bed.sealed("two", files)[1])
        told = await bed.told("two")
        ours, theirs = socket.socketpair()
        parts = [await _start("root", told, theirs)]
        try:
            assert await _line(parts[0]) == "ready\n"
            parts.append(await _start("front", told, ours))
            theirs.close()
            ours.close()
            alone_ms, passed_ms, size_bytes = json.loads(await _line(parts[1]))
            await asyncio.sleep(_SETTLED_S)
            one, least = memory_of(agent.pids).pss, memory_of(floor.pids).pss
            root, front = (memory_of([each.pid]).pss for each in parts)
        finally:
            for each in parts:
                each.kill()
                await each.wait()
    both = root + front
    print(f"PSS of the agent as it is    {one:5.1f} MiB  {one / least:4.2f} of F3, {least:.1f}")
    print(
        f"PSS of front and root part   {both:5.1f} MiB  {both / least:4.2f} of F3, {both / one:4.2f} of one"
    )
    print(f"    the front {front:.1f}, the root part {root:.1f}")
    print(f"{size_bytes:,} bytes verified        {alone_ms:5.2f} ms")
    print(f"    there and by the socket  {passed_ms:5.2f} ms   {passed_ms / alone_ms:4.2f} of one")


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0; 2 without root, which the front is to give up."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.split", description=__doc__)
    options.add_argument("part", nargs="?", choices=["front", "root"], help=argparse.SUPPRESS)
    options.add_argument("told", nargs="?", type=Path, help=argparse.SUPPRESS)
    options.add_argument("descriptor", nargs="?", type=int, help=argparse.SUPPRESS)
    found = options.parse_args(arguments)
    if found.part is not None:
        _be(found.part, json.loads(found.told.read_text()), found.descriptor)
        return 0
    if os.geteuid() != 0:
        print("this needs root, which the front gives up", file=sys.stderr)
        return 2
    asyncio.run(_measure())
    return 0


if __name__ == "__main__":
    sys.exit(main())
