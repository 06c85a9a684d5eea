"""Slots, canaries and `on_stop: stay`, by real agents on a real bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from harmony_control.bus.classes import hint_devices
from harmony_control.rollout.controller import Rollout
from harmony_control.rollout.state import Look
from harmony_core.errors import DidNotStick
from harmony_core.outcome import Success
from harmony_core.wire.gate import Gate
from harmony_scores import FileScore
from tests.control.ground import harmony

from .rollout_scene import MOTD, Scene, serving_scene

_PAIR = {"pi-1": "{role: kiosk, slot: '0'}", "pi-2": "{role: kiosk, slot: '1'}"}


@pytest.fixture
async def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Scene]:
    """Two devices that must not change at the same time, and have ``one``."""
    monkeypatch.setattr("harmony_control.rollout.controller.LOOK_AGAIN_S", 0.1)
    async with serving_scene(tmp_path, 2) as scene:
        scene.describe(MOTD % "one", labels=_PAIR)
        await scene.go(await scene.apply())
        assert set((await scene.content()).values()) == {b"one"}
        yield scene


def _break_motd(scene: Scene, *names: str) -> None:
    """Have the file not be to be had on these devices, until `_mend_motd`."""
    for each in names:
        scene.files[each].faults["/etc/motd"] = DidNotStick(
            "/etc/motd", field="content", wanted="two", found="one", remedy="on purpose"
        )


def _mend_motd(scene: Scene, *names: str) -> None:
    for each in names:
        scene.files[each].faults.clear()


async def _step_until(rollout: Rollout, holds: Callable[[Look], bool]) -> Look:
    async with asyncio.timeout(30):
        while not holds(found := await rollout.step()):
            await asyncio.sleep(0.1)
    return found


async def _until_waits(scene: Scene, name: str, reason: str) -> str:
    """Return what the device says of why it waits, once it says so."""

    async def waits() -> bool:
        layer = await scene.layer(name)
        return (layer.phase, layer.reason, layer.wanted) == ("Waiting", reason, 2)

    # Who is not let in yet is not told of each gate, and looks now and then.
    await hint_devices(scene.bus.admin, [name], "kiosk")
    await scene.until(waits)
    return (await scene.layer(name)).message


async def _find_begun(scene: Scene) -> set[str]:
    """Return who has begun with generation 2, once all others say that the gate is not open for them."""
    begun: set[str] = set()
    await hint_devices(scene.bus.admin, _RINGS, "kiosk")
    for each in _RINGS:

        async def has_decided(name: str = each) -> bool:
            layer = await scene.layer(name)
            if layer.generation == 2:
                begun.add(name)
            waits = (layer.phase, layer.reason, layer.wanted) == ("Waiting", "NotOpen", 2)
            return waits or name in begun

        await scene.until(has_decided)
    return begun


async def _find_gate(rollout: Rollout, slot: int) -> Gate:
    return next(
        each for each in await rollout.history() if each.generation == 2 and each.slot == slot
    )


@pytest.mark.parametrize("steps", ["[{upto: '2', soak: 2s}]", "[{upto: 100%, soak: 2s}]"])
async def test_the_second_of_a_pair_waits_until_the_first_is_ready_and_has_soaked(
    pair: Scene, steps: str
) -> None:
    pair.describe(MOTD % "two", labels=_PAIR, rollout=f"    rollout:\n      steps: {steps}\n")
    rollout = await pair.apply()
    assert await _until_waits(pair, "pi-2", "SlotNotOpen") == "its slot is 1, and 0 is open"

    found = await _step_until(rollout, lambda found: found.progress.counts["Ready"] == 1)
    (ready_since,) = (each.ready_since for each in found.progress.judged if each.ready_since)
    assert await pair.content() == {"pi-1": b"two", "pi-2": b"one"}
    assert (found.next, found.soaks_until) == (None, ready_since + timedelta(seconds=2))

    await pair.go(rollout)
    assert await pair.content() == {"pi-1": b"two", "pi-2": b"two"}
    second = await _find_gate(rollout, 1)
    assert second.issued_at >= ready_since + timedelta(seconds=2)


async def test_the_second_of_a_pair_is_not_touched_where_the_first_fails(pair: Scene) -> None:
    _break_motd(pair, "pi-1")
    pair.describe(MOTD % "two", labels=_PAIR)
    rollout = await pair.apply()
    await _until_waits(pair, "pi-2", "SlotNotOpen")
    end = (await pair.go(rollout))[-1]
    assert end.next is not None
    assert end.next.state == "aborted"
    assert "1 of 1 devices of wave 1 are unhealthy: pi-1 (motd: DidNotStick" in end.next.reason
    assert all(each.slot == 0 for each in await rollout.history() if each.generation == 2)

    _mend_motd(pair, "pi-1")

    async def is_back() -> bool:
        counts = (await rollout.read()).progress.counts
        return (counts["RolledBack"], counts["NotReached"]) == (1, 1)

    await pair.until(is_back)
    assert await pair.content() == {"pi-1": b"one", "pi-2": b"one"}
    second = await pair.layer("pi-2")
    assert second.generation == 1


async def test_a_slot_that_is_no_number_is_refused_wherever_it_is_said(pair: Scene) -> None:
    for text in ("b", "1 ", ""):
        said = await harmony(pair.bus.home, "label", "pi-2", f"slot={text}")
        assert (said.status, f"not {text!r}" in said.err) == (2, True), said
    assert await pair.fleet.device("pi-2").labels() == {"role": "kiosk", "slot": "1"}
    pair.describe(MOTD % "two", labels={**_PAIR, "pi-2": "{role: kiosk, slot: b}"})
    for command in ("plan", "apply"):
        said = await harmony(pair.bus.home, command, str(pair.folder), "--no-resolve")
        assert (said.status, "pi-2.labels: slot: a slot is a whole number" in said.err) == (
            2,
            True,
        ), said


async def test_who_has_had_a_slot_that_is_no_number_keeps_nobody_else_from_a_generation(
    pair: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:  # as who has not refused it yet
        patch.setattr("harmony_control.push.push.SLOT_LABEL", "none")
        await pair.fleet.device("pi-2").label({"slot": "b"})
    # A push of its own is nobody else's business.
    pushed = await pair.fleet.device("pi-2").push(FileScore(path="/etc/own", content="x"), id="own")
    assert isinstance(pushed, Success)

    told = "pi-2 starts with no generation: label slot: a slot is a whole number"
    file = pair.folder / "kiosk.yaml"
    await asyncio.to_thread(file.write_text, MOTD % "two")
    # A folder that says nothing of that device.
    text = (pair.folder / "fleet.yaml").read_text()
    (pair.folder / "fleet.yaml").write_text(
        "".join(line for line in text.splitlines(keepends=True) if "pi-2" not in line)
    )
    (change,) = (await pair.plan()).classes
    assert change.waiting["pi-2"].startswith(told)
    planned = await harmony(pair.bus.home, "plan", str(pair.folder), "--no-resolve")
    assert f"  ! {told}" in planned.out
    said = await harmony(pair.bus.home, "push-score", "--class", "kiosk", str(file), "--no-resolve")
    assert said.status == 4, said
    assert f"warning: {told}" in said.err
    assert "harmony label pi-2 slot=1" in said.err
    explained = await harmony(pair.bus.home, "explain", "pi-2", "motd")
    assert "a slot that is no number" in explained.out
    assert await pair.content() == {"pi-1": b"two", "pi-2": b"one"}
    gate = (await pair.fleet.rollout("kiosk").read()).progress.gate
    assert (gate.generation, gate.state) == (2, "done")

    # Corrected, it starts at once: the rollout is over.
    await pair.fleet.device("pi-2").label({"slot": "1"})

    async def follows() -> bool:
        return await pair.content() == {"pi-1": b"two", "pi-2": b"two"}

    await pair.until(follows)


async def test_a_plan_names_who_has_one_slot(pair: Scene) -> None:
    same = {**_PAIR, "pi-2": "{role: kiosk, slot: '0'}"}
    pair.describe(MOTD % "one", labels=same)
    plan = await pair.plan()
    assert (plan.classes, plan.same_slot) == ([], {"kiosk": {0: ["pi-1", "pi-2"]}})
    planned = await harmony(pair.bus.home, "plan", str(pair.folder), "--no-resolve")
    assert "class kiosk: 2 devices of slot 0 may begin at once: pi-1, pi-2\n" in planned.out
    command = ("--json", "plan", str(pair.folder), "--no-resolve")
    (told,) = (await harmony(pair.bus.home, *command)).documents
    assert told["same_slot"] == {"kiosk": {"0": ["pi-1", "pi-2"]}}
    # Who has no label has the first slot.
    pair.describe(
        MOTD % "two", labels={**_PAIR, "pi-2": "{role: kiosk, slot: '0'}", "pi-1": "{role: kiosk}"}
    )
    assert (await pair.plan()).same_slot == {"kiosk": {0: ["pi-1", "pi-2"]}}
    # Nobody is named for a pair that is one, nor in a class without slots.
    pair.describe(MOTD % "two", labels=_PAIR)
    assert (await pair.plan()).same_slot == {}
    pair.describe(MOTD % "two")
    assert (await pair.plan()).same_slot == {}


_RINGS = {f"pi-{each}": "{role: kiosk}" for each in range(1, 6)} | {
    "pi-4": "{role: kiosk, ring: canary}"
}
_CANARY = "    rollout:\n      canary: ring=canary\n      steps: [{upto: '0', soak: 1s}, 100%]\n"


@pytest.fixture
async def rings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Scene]:
    """Five devices that have ``one``, of which the fourth is a canary."""
    monkeypatch.setattr("harmony_control.rollout.controller.LOOK_AGAIN_S", 0.1)
    async with serving_scene(tmp_path, 5) as scene:
        scene.describe(MOTD % "one", labels=_RINGS)
        await scene.go(await scene.apply())
        yield scene


async def test_a_canary_goes_first_and_the_others_follow_when_it_has_soaked(rings: Scene) -> None:
    rings.describe(MOTD % "two", labels=_RINGS, rollout=_CANARY)
    rollout = await rings.apply()
    found = await _step_until(rollout, lambda found: found.progress.counts["Ready"] == 1)
    assert found.next is None
    content = await rings.content()
    assert {name for name, motd in content.items() if motd == b"two"} == {"pi-4"}
    await rings.go(rollout)
    assert set((await rings.content()).values()) == {b"two"}


async def test_a_canary_that_fails_goes_back_and_nobody_else_was_touched(rings: Scene) -> None:
    _break_motd(rings, "pi-4")
    rings.describe(MOTD % "two", labels=_RINGS, rollout=_CANARY)
    rollout = await rings.apply()
    end = (await rings.go(rollout))[-1]
    assert end.next is not None
    assert end.next.state == "aborted"
    _mend_motd(rings, "pi-4")

    async def is_back() -> bool:
        counts = (await rollout.read()).progress.counts
        return (counts["RolledBack"], counts["NotReached"]) == (1, 4)

    await rings.until(is_back)
    assert set((await rings.content()).values()) == {b"one"}


async def test_where_a_stop_is_to_stay_it_is_paused_and_a_person_goes_on_or_back(
    rings: Scene,
) -> None:
    rings.describe(
        MOTD % "two",
        labels=_RINGS,
        rollout="    rollout:\n      canary: ring=canary\n      steps: ['2', 100%]\n"
        "      on_stop: stay\n",
    )
    _break_motd(rings, *(each for each in _RINGS if each != "pi-4"))
    rollout = await rings.apply()
    found = await _step_until(rollout, lambda found: found.next is not None)
    assert found.next is not None
    assert found.next.state == "paused"
    assert "unhealthy: " in found.next.reason
    assert "motd: DidNotStick" in found.next.reason
    unhealthy = {each.member.id for each in found.progress.judged if each.state == "Unhealthy"}

    # Looked at again and again, nothing comes of it: nobody goes back, and nobody else begins.
    for _ in range(5):
        found = await rollout.step()
        assert (found.next, found.progress.gate.state) == (None, "paused")
    # The other one of the first wave may have begun after that look, and before the gate was shut.
    begun = await _find_begun(rings)
    assert unhealthy <= begun
    assert len(begun) <= 2
    others = _RINGS.keys() - begun
    assert {each: (await rings.layer(each)).generation for each in _RINGS} == {
        **dict.fromkeys(begun, 2),
        **dict.fromkeys(others, 1),
    }

    # Mended, it goes on where a person says so.
    _mend_motd(rings, *_RINGS)
    for each in begun:
        async with rings.fleet.device(each).reconcile() as told:
            assert [looked async for looked in told]
    await _step_until(rollout, lambda found: not found.progress.counts["Unhealthy"])
    await rollout.order("resume")
    await rings.go(rollout)
    assert set((await rings.content()).values()) == {b"two"}


async def test_where_a_stop_is_to_stay_a_person_may_take_it_back(pair: Scene) -> None:
    _break_motd(pair, "pi-1")
    pair.describe(MOTD % "two", labels=_PAIR, rollout="    rollout:\n      on_stop: stay\n")
    rollout = await pair.apply()
    found = await _step_until(rollout, lambda found: found.next is not None)
    assert found.next is not None
    assert found.next.state == "paused"
    _mend_motd(pair, "pi-1")
    await rollout.order("abort", "not that")

    async def is_back() -> bool:
        return (await rollout.read()).progress.counts["RolledBack"] == 1

    await pair.until(is_back)
    assert await pair.content() == {"pi-1": b"one", "pi-2": b"one"}
