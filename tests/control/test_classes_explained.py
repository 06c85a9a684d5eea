"""What a device would come to by a folder, why a Score is on it or is not, and freezes: of real agents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from harmony_control.bus.connection import Bucket
from harmony_control.plan.explain import Layer
from harmony_control.rollout.documents import ClassDocuments
from harmony_core.errors import (
    UnknownDevice,
    UnknownScore,
    UntrustedSignature,
    UsageError,
    WriteFailed,
)
from harmony_core.wire.envelope import generate_key, seal
from harmony_core.wire.fleet_index import FLEET_TYPE, FleetIndex

from .ground import harmony
from .rollout_scene import MOTD, WAVES, Scene, serving_scene


@pytest.fixture
async def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Scene]:
    monkeypatch.setattr("harmony_control.rollout.controller.LOOK_AGAIN_S", 0.1)
    async with serving_scene(tmp_path, 3) as scene:
        yield scene


async def find_layer(scene: Scene, agent_id: str, score: str, name: str) -> Layer:
    found = await scene.fleet.explain(agent_id, score)
    return {each.name: each for each in found.layers}[name]


async def test_a_device_foresees_all_that_the_folder_would_make_of_it(scene: Scene) -> None:
    scene.describe(MOTD % "one")
    await scene.go(await scene.apply())
    assert [
        each.planned.status
        for each in await scene.fleet.plan_device(scene.read(), "pi-1", resolve=False)
    ] == ["NOOP"]

    scene.describe(MOTD % "two" + MOTD.replace("motd", "note") % "new")
    file = scene.folder / "fleet.yaml"
    file.write_text(
        file.read_text().replace(
            "pi-2: {labels: {role: kiosk}}", "pi-2: {labels: {role: kiosk}, without: [motd, note]}"
        )
    )
    home, folder = scene.bus.home, str(scene.folder)
    first = await harmony(home, "plan", folder, "--device", "pi-1", "--no-resolve")
    assert (first.status, "1 new, 1 changed, 0 removed" in first.out) == (5, True), first
    second = await harmony(home, "--json", "plan", folder, "--device", "pi-2", "--no-resolve")
    assert (second.status, [(each["score"], each["status"]) for each in second.documents]) == (
        5,
        [("motd", "GONE")],
    )
    assert set((await scene.content()).values()) == {b"one"}  # nothing was done

    scene.describe(
        "- {id: x, kind: FileScore, spec: {path: /etc/harmony/agent.toml, content: a}}\n"
    )
    refused = await harmony(home, "plan", folder, "--device", "pi-1", "--no-resolve")
    assert refused.status == 3, refused
    assert (await harmony(home, "plan", folder, "--device", "pi-9", "--no-resolve")).status == 2


async def test_a_class_that_the_folder_does_not_have_stays_in_what_a_device_foresees(
    scene: Scene,
) -> None:
    scene.describe(MOTD % "one")
    await scene.go(await scene.apply())
    file = scene.folder / "fleet.yaml"
    file.write_text(file.read_text().partition("classes:")[0])
    found = await scene.fleet.plan_device(scene.read(), "pi-1", resolve=False)
    assert [(each.planned.score, each.planned.status) for each in found] == [("motd", "NOOP")]


async def test_which_layer_a_score_comes_from_and_what_it_overrides(scene: Scene) -> None:
    base = "  base:\n    selector: role\n    priority: -5\n    scores: [base.yaml]\n"
    scene.describe(MOTD % "one", more=base)
    (scene.folder / "base.yaml").write_text(MOTD % "of all")
    await scene.apply()
    for name in ("kiosk", "base"):
        await scene.go(scene.fleet.rollout(name))
    found = await scene.fleet.explain("pi-1", "motd")
    assert [(each.name, each.verdict, each.by) for each in found.layers] == [
        ("agent", "NoSuchScore", ""),
        ("class:kiosk", "Followed", ""),
        ("class:base", "Overridden", "class:kiosk"),
    ]
    assert found.status is not None
    assert found.status.layer == "class:kiosk"
    wave = found.layers[1].wave
    assert wave is not None
    assert (wave.state, wave.step, wave.steps) == ("done", 0, 1)

    file = scene.folder / "fleet.yaml"
    file.write_text(
        file.read_text().replace(
            "pi-1: {labels: {role: kiosk}}", "pi-1: {labels: {role: kiosk}, without: [motd]}"
        )
    )
    await scene.apply()
    assert (await find_layer(scene, "pi-1", "motd", "class:kiosk")).verdict == "LeftOut"
    with pytest.raises(UnknownScore, match="did you mean 'motd'"):
        await scene.fleet.explain("pi-1", "mtod")
    with pytest.raises(UnknownDevice):
        await scene.fleet.explain("pi-9", "motd")


async def test_what_waits_for_its_wave_says_which_and_why(scene: Scene) -> None:
    scene.describe(MOTD % "one", rollout=WAVES)
    await scene.apply()
    waves: dict[str, int] = {}
    for name in scene.files:
        layer = await find_layer(scene, name, "motd", "class:kiosk")
        assert layer.wave is not None
        waves[name] = layer.wave.step
    assert sorted(waves.values()) == [0, 1, 2]
    last = next(name for name, step in waves.items() if step == 2)
    layer = await find_layer(scene, last, "motd", "class:kiosk")
    assert (layer.verdict, layer.generation, layer.wanted) == ("ToCome", 0, 1)
    said = await harmony(scene.bus.home, "explain", last, "motd")
    assert said.status == 0
    assert f"motd on {last}: the device has reported no such Score" in said.out
    assert "gate running, wave 1 of 3 and slot 0 open; the device is in wave 3" in said.out
    (told,) = (await harmony(scene.bus.home, "--json", "explain", last, "motd")).documents
    assert told["layers"][1]["wave"]["open_step"] == 0
    assert (await harmony(scene.bus.home, "explain", last, "nothing")).status == 2


async def test_a_frozen_fleet_begins_nothing_until_it_is_thawed(scene: Scene) -> None:
    home = scene.bus.home
    frozen = await harmony(home, "freeze", "--until", "2d", "--reason", "holidays")
    assert frozen.status == 0, frozen
    scene.describe(MOTD % "one")
    said = await harmony(home, "plan", str(scene.folder), "--no-resolve")
    assert "frozen until" in said.err
    assert "holidays" in said.err
    rollout = await scene.apply()
    async with asyncio.timeout(20):
        while True:
            layer = await find_layer(scene, "pi-1", "motd", "class:kiosk")
            if layer.status is not None and layer.status.reason == "Frozen":
                break
            await asyncio.sleep(0.05)
    assert set((await scene.content()).values()) == {None}
    freeze = await scene.fleet.read_freeze()
    assert freeze is not None
    assert freeze.reason == "holidays"

    assert (await harmony(home, "thaw")).out.startswith("thawed")
    assert (await harmony(home, "thaw")).out.startswith("there was no freeze")
    await scene.go(rollout)
    assert set((await scene.content()).values()) == {b"one"}
    assert list(await scene.fleet.classes()) == ["kiosk"]


async def test_in_a_freeze_who_has_begun_goes_on_and_nobody_else_begins(scene: Scene) -> None:
    scene.describe(MOTD % "one")
    await scene.go(await scene.apply())
    for files in scene.files.values():
        files.faults["/etc/motd"] = WriteFailed("the disk is tired", retry_after_s=0.2)
    scene.describe(MOTD % "two", rollout=WAVES)
    rollout = await scene.apply()
    async with asyncio.timeout(20):
        while not (begun := await _find_begun(scene, 2)):
            await asyncio.sleep(0.05)
    await scene.fleet.freeze(reason="holidays")
    await rollout.order("promote --full")
    others = scene.files.keys() - begun
    async with asyncio.timeout(20):
        while await _find_frozen(scene) != others:
            await asyncio.sleep(0.05)
    # Only now is the one that has begun able to go on; it does.
    for files in scene.files.values():
        del files.faults["/etc/motd"]
    wanted = {name: b"two" if name in begun else b"one" for name in scene.files}
    async with asyncio.timeout(20):
        while await scene.content() != wanted:
            await asyncio.sleep(0.05)
    assert (len(begun), await _find_begun(scene, 2)) == (1, begun)


async def test_in_a_freeze_an_abort_brings_back_who_has_begun(scene: Scene) -> None:
    scene.describe(MOTD % "one")
    await scene.go(await scene.apply())
    scene.describe(MOTD % "two", rollout=WAVES)
    rollout = await scene.apply()
    async with asyncio.timeout(20):
        while b"two" not in (await scene.content()).values():
            await asyncio.sleep(0.05)
    await scene.fleet.freeze()
    await rollout.order("abort")
    async with asyncio.timeout(20):
        while set((await scene.content()).values()) != {b"one"}:
            await asyncio.sleep(0.05)
    assert await scene.fleet.read_freeze() is not None


async def _find_begun(scene: Scene, generation: int) -> set[str]:
    """Return which devices say that they follow that generation of the class."""
    return {
        each.agent_id
        for each in await scene.fleet.agents()
        if each.state and each.state.layers["class:kiosk"].generation == generation
    }


async def _find_frozen(scene: Scene) -> set[str]:
    """Return which devices say that they wait for the end of a freeze."""
    return {
        each.agent_id
        for each in await scene.fleet.agents()
        if each.state and each.state.layers["class:kiosk"].reason == "Frozen"
    }


async def test_a_freeze_that_cannot_be_is_refused_and_nothing_is_written(scene: Scene) -> None:
    home = scene.bus.home
    for arguments, told in (
        (("--until", "soon"), "is no time"),
        (("--until", "2001-01-01"), "is over already"),
        (("--until", "0s"), "is over already"),
        (("--reason", "a\nb"), "reason"),
        (("--reason", "x" * 201), "reason"),
    ):
        said = await harmony(home, "freeze", *arguments)
        assert (said.status, told in said.err) == (2, True), said
    assert await Bucket(scene.bus.admin, "fleet").get("index") is None
    with pytest.raises(UsageError):
        await scene.fleet.freeze(reason="\x1b[2J")

    await scene.fleet.freeze(until=datetime.now(UTC) + timedelta(hours=1))
    bucket = Bucket(scene.bus.admin, "fleet")
    index = FleetIndex(fleet="home", generation=9, issued_at=datetime.now(UTC))
    await bucket.put("index", seal(index.payload(), generate_key(), payload_type=FLEET_TYPE))
    with pytest.raises(UntrustedSignature):
        await scene.fleet.thaw()


async def test_of_two_who_freeze_at_once_neither_is_lost(scene: Scene) -> None:
    await scene.fleet.allow_gate_key()
    await asyncio.gather(scene.fleet.freeze(reason="one"), scene.fleet.freeze(reason="two"))
    found = await scene.fleet.read_freeze()
    assert found is not None
    assert found.reason in {"one", "two"}
    documents = await ClassDocuments.open(scene.bus.home, scene.bus.admin)
    index = await documents.read_index()
    assert index is not None
    assert index.value.generation == 3  # each has written, the later one upon the earlier
    assert len(index.value.gate_keys) == 1
