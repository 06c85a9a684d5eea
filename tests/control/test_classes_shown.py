"""What `harmony status AGENT` and `describe AGENT` tell of a device's classes; by real agents."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from harmony_control.bus.classes import hint_devices

from .ground import harmony
from .rollout_scene import MOTD, Scene, serving_scene
from .test_rollouts import BAD


@pytest.fixture
async def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Scene]:
    """Two devices that have ``one`` of their class."""
    monkeypatch.setattr("harmony_control.rollout.controller.LOOK_AGAIN_S", 0.1)
    async with serving_scene(tmp_path, 2) as scene:
        scene.describe(MOTD % "one")
        await scene.go(await scene.apply())
        yield scene


async def _until_is(scene: Scene, name: str, phase: str, wanted: int) -> None:
    async def is_so() -> bool:
        layer = await scene.layer(name)
        return (layer.phase, layer.wanted) == (phase, wanted)

    await hint_devices(scene.bus.admin, [name], "kiosk")
    await scene.until(is_so)


async def _tell(scene: Scene, verb: str, name: str) -> str:
    said = await harmony(scene.bus.home, verb, name)
    (line,) = re.findall(r"^  class kiosk  (.*)$", said.out, re.MULTILINE)
    return re.sub(r"for \S+ ?\S*?(?=$|:)", "for …", str(line))


async def _tell_json(scene: Scene, name: str) -> dict[str, Any]:
    """Return the class as both commands tell programs of it."""
    (status,) = (await harmony(scene.bus.home, "--json", "status", name)).documents
    (described,) = (await harmony(scene.bus.home, "--json", "describe", name)).documents
    assert status["layers"] == described["state"]["layers"]
    layer: dict[str, Any] = status["layers"]["class:kiosk"]
    return layer


@pytest.mark.timeout(120)
async def test_a_device_that_waits_for_its_wave_says_which_generation_it_follows_and_why(
    scene: Scene,
) -> None:
    for verb in ("status", "describe"):
        assert await _tell(scene, verb, "pi-1") == "generation 1  Applied, for …"
    scene.describe(
        MOTD % "two", rollout="    rollout:\n      steps: [{upto: '1', soak: 1h}, 100%]\n"
    )
    rollout = await scene.apply()
    (first,) = (each.member.id for each in (await rollout.read()).progress.of_wave())
    (second,) = scene.files.keys() - {first}
    await _until_is(scene, first, "Applied", 2)
    await _until_is(scene, second, "Waiting", 2)
    for verb in ("status", "describe"):
        assert await _tell(scene, verb, first) == "generation 2  Applied, for …"
        assert await _tell(scene, verb, second) == (
            "generation 1 of 2  Waiting, for …: NotOpen: the gate is running, at wave 1"
        )
    told = await _tell_json(scene, second)
    assert (told["generation"], told["wanted"], told["phase"], told["reason"]) == (
        *(1, 2),
        *("Waiting", "NotOpen"),
    )


@pytest.mark.timeout(120)
async def test_a_device_that_was_brought_back_says_so(scene: Scene) -> None:
    scene.describe(BAD, rollout="    rollout:\n      steps: ['1', 100%]\n")
    looks = await scene.go(await scene.apply())
    (first,) = (each.member.id for each in looks[0].progress.of_wave())
    await _until_is(scene, first, "RolledBack", 2)
    for verb in ("status", "describe"):
        said = await _tell(scene, verb, first)
        assert said.startswith("generation 1 of 2  RolledBack, for …: Aborted: ")
        assert "PolicyRefused" in said
    assert (await _tell_json(scene, first))["phase"] == "RolledBack"


async def test_a_device_of_no_class_says_nothing_of_one(tmp_path: Path) -> None:
    async with serving_scene(tmp_path, 1) as scene:
        assert "class " not in (await harmony(scene.bus.home, "status", "pi-1")).out
