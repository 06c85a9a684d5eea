"""Agents that are killed while their wave is open, on a real bus: they are missed, and go back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

from harmony_control.rollout.controller import Rollout
from harmony_control.rollout.state import Look

from .device_processes import ProcessScene, serving_processes
from .rollout_scene import MOTD

_AGE_S = 3.0
_SILENT = "has fallen silent since its wave was opened"
_SOAKING = (
    "    rollout:\n      steps: [{upto: '3', soak: 1h}, 100%]\n"
    "      success: 30%\n      max_unhealthy: 20%\n"
)
"""Three of five begin, and soak for longer than any test lasts. One that is lost is no reason to stop."""


@pytest.fixture
async def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[ProcessScene]:
    """Five devices that all have ``one``."""
    monkeypatch.setattr("harmony_control.rollout.controller.LOOK_AGAIN_S", 0.1)
    # Nobody is silent before the server was reached for as long as heartbeats count.
    monkeypatch.setattr("harmony_control.rollout.controller.HEARTBEAT_AGE_S", _AGE_S)
    zones = dict.fromkeys(f"pi-{each + 1}" for each in range(5))
    async with serving_processes(tmp_path, zones, heartbeat_age_s=_AGE_S) as scene:
        scene.describe(MOTD % "one")
        await scene.go(await scene.apply())
        assert set((await scene.content()).values()) == {b"one"}
        yield scene


async def _find_wave(rollout: Rollout) -> list[str]:
    return sorted(each.member.id for each in (await rollout.read()).progress.of_wave())


async def _until_has(scene: ProcessScene, name: str, motd: bytes) -> None:
    async def has() -> bool:
        return scene.processes[name].read("/etc/motd") == motd

    await scene.until(has)


async def _step_until(rollout: Rollout, holds: Callable[[Look], bool]) -> Look:
    """Do all steps, by what the server has, until a look is as wished."""
    async with asyncio.timeout(60):
        while not holds(found := await rollout.step()):
            await asyncio.sleep(0.1)
    return found


def _find_unhealthy(found: Look) -> dict[str, str]:
    return {
        each.member.id: each.reason for each in found.progress.judged if each.state == "Unhealthy"
    }


@pytest.mark.timeout(180)
async def test_who_is_killed_in_its_wave_is_missed_and_goes_back_when_it_is_revived(
    scene: ProcessScene,
) -> None:
    before = scene.written_at("/etc/motd")
    scene.describe(MOTD % "two", rollout=_SOAKING)
    rollout = await scene.apply()
    first, second, third = await _find_wave(rollout)
    # The moment that it has begun: whether it could still say so is up to chance, and must not matter.
    await _until_has(scene, first, b"two")
    await scene.processes[first].kill()
    found = await _step_until(rollout, lambda found: bool(_find_unhealthy(found)))
    assert _find_unhealthy(found) == {first: _SILENT}
    assert (found.next, found.progress.gate.state) == (None, "running")

    await _until_has(scene, second, b"two")
    await scene.processes[second].kill()
    found = await _step_until(rollout, lambda found: found.next is not None)
    assert found.next is not None
    assert found.next.state == "aborted"
    assert found.next.reason.startswith("2 of 5 devices are unhealthy: ")
    assert {first: _SILENT, second: _SILENT} == _find_unhealthy(found)

    # Who is there goes back at once, and who is off when it is back.
    await _until_has(scene, third, b"one")
    assert {scene.processes[each].read("/etc/motd") for each in (first, second)} == {b"two"}
    for each in (first, second):
        await scene.processes[each].start()
        await _until_has(scene, each, b"one")

    async def are_back() -> bool:
        counts = (await rollout.read()).progress.counts
        return (counts["RolledBack"], counts["NotReached"]) == (3, 2)

    await scene.until(are_back)
    after = scene.written_at("/etc/motd")
    assert {name for name in before if before[name] != after[name]} == {first, second, third}


@pytest.mark.timeout(180)
async def test_who_is_killed_and_revived_within_its_wave_holds_nobody_up(
    scene: ProcessScene,
) -> None:
    scene.describe(MOTD % "two", rollout=_SOAKING.replace("1h", "8s"))
    rollout = await scene.apply()
    first, *_ = await _find_wave(rollout)
    await _until_has(scene, first, b"two")
    await scene.processes[first].kill()
    await _step_until(rollout, lambda found: first in _find_unhealthy(found))
    await scene.processes[first].start()
    found = await _step_until(rollout, lambda found: found.progress.counts["Ready"] == 5)
    assert not _find_unhealthy(found)
    assert set((await scene.content()).values()) == {b"two"}
