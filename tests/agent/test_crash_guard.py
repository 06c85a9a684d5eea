"""A Score whose code kills the agent: a real process, really killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harmony_agent.apply.crash_guard import CrashGuard
from harmony_core.errors import Poisoned

KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from harmony_agent.apply.crash_guard import CrashGuard

async def interpret():
    await asyncio.sleep(0)
    if sys.argv[2] == "inside":
        os.kill(os.getpid(), signal.SIGKILL)
    await asyncio.sleep(0.01)

async def main():
    poison = CrashGuard(Path(sys.argv[1]))
    task = asyncio.ensure_future(poison.guard("bad", "hash", interpret()))
    if sys.argv[2] == "outside":
        await asyncio.sleep(0.005)
        os.kill(os.getpid(), signal.SIGKILL)
    await task

asyncio.run(main())
"""


def run(directory: Path, how: str) -> int:
    return subprocess.run(
        [sys.executable, "-c", KILLED, str(directory), how], check=False, timeout=30
    ).returncode


def test_three_kills_inside_its_code_poison_a_score_until_its_spec_changes(tmp_path: Path) -> None:
    for _ in range(3):
        assert run(tmp_path, "inside") == -signal.SIGKILL
    crash_guard = CrashGuard(tmp_path)
    assert crash_guard.suspects == {"bad"}
    with pytest.raises(Poisoned, match="3 times"):
        crash_guard.check("bad", "hash")
    crash_guard.check("bad", "another spec")
    crash_guard.check("another", "hash")


def test_a_kill_while_it_waits_is_not_its_fault(tmp_path: Path) -> None:
    for _ in range(4):
        assert run(tmp_path, "outside") == -signal.SIGKILL
    CrashGuard(tmp_path).check("bad", "hash")


def test_an_interpretation_that_ends_clears_the_count(tmp_path: Path) -> None:
    run(tmp_path, "inside")
    run(tmp_path, "inside")
    assert run(tmp_path, "neither") == 0
    run(tmp_path, "inside")
    CrashGuard(tmp_path).check("bad", "hash")


async def test_results_errors_and_cancellation_pass_through(tmp_path: Path) -> None:
    async def value() -> int:
        await asyncio.sleep(0)
        return 7

    async def error() -> int:
        await asyncio.sleep(0)
        raise LookupError

    async def endless(caught: list[bool]) -> int:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            caught.append(True)
            raise
        return 0

    crash_guard = CrashGuard(tmp_path)
    assert await crash_guard.guard("a", "h", value()) == 7
    with pytest.raises(LookupError):
        await crash_guard.guard("a", "h", error())
    caught: list[bool] = []

    async def guard() -> int:
        return await crash_guard.guard("a", "h", endless(caught))

    task = asyncio.create_task(guard())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert caught == [True]
    assert not Path(tmp_path / "running").read_bytes().strip(b"\0")
    assert os.listdir(tmp_path)
