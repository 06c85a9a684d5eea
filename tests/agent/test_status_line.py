"""What `systemctl status harmony-agent` says is what this run of the agent has seen."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harmony_core import HasFiles, Inventory, Outcome, Score

from .rig import Note, Rig, entry

_MAY = threading.Event()


class Waits(Score[HasFiles]):
    """Is looked at only once it may be."""

    async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome:
        while not _MAY.is_set():
            await asyncio.sleep(0.01)
        return await Note(path="/etc/waited").interpret(inventory, topology)


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """What systemd listens on for its services."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as listener:
        listener.bind(str(path))
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        yield listener


async def _hear_until(systemd: socket.socket, wanted: str) -> list[str]:
    """Return what the agent says of itself up to where it says *wanted*."""
    lines: list[str] = []
    async with asyncio.timeout(10):
        while not lines or wanted not in lines[-1]:
            told = await asyncio.get_running_loop().sock_recv(systemd, 65536)
            said = [each for each in told.decode().splitlines() if each.startswith("STATUS=")]
            lines += [each.removeprefix("STATUS=") for each in said]
    return lines


async def test_after_a_restart_nothing_counts_as_converged_before_it_was_looked_at(
    rig: Rig, systemd: socket.socket
) -> None:
    _MAY.set()
    async with rig.agent(kinds=[Waits]):
        await rig.put(1, entry(Note(), "note"), entry(Waits(), "waits"))
        await _hear_until(systemd, "generation 1, 2 of 2 Scores converged, 0 failed, connected")
    while True:
        try:
            systemd.recv(65536)
        except BlockingIOError:
            break
    rig.files.forget_everything()
    _MAY.clear()
    async with rig.agent(kinds=[Waits]):
        seen = "generation 1, 1 of 2 Scores converged, 0 failed, 1 not looked at yet"
        lines = await _hear_until(systemd, seen)
        assert not [line for line in lines if "2 of 2" in line]
        assert await rig.files.observe("/etc/note") is not None
        _MAY.set()
        await _hear_until(systemd, "2 of 2 Scores converged, 0 failed, connected")


async def test_what_was_just_pushed_counts_before_it_was_looked_at(
    rig: Rig, systemd: socket.socket
) -> None:
    _MAY.clear()
    async with rig.agent(kinds=[Waits]):
        await rig.put(1, entry(Note(), "note"), entry(Waits(), "waits"))
        await _hear_until(systemd, "1 of 2 Scores converged, 0 failed, 1 not looked at yet")
        _MAY.set()
        await _hear_until(systemd, "2 of 2 Scores converged, 0 failed")
