"""A key that signs for one class, or one device, by the root document: nothing of it reaches any other."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import attrs

from harmony_core.wire.actual_state import ActualState
from harmony_core.wire.class_manifest import PLACES, Rollout, Step
from harmony_core.wire.envelope import Signer, generate_key, seal
from harmony_core.wire.fleet_index import ClassRule, Selected
from harmony_core.wire.requests import (
    Ask,
    Events,
    Reboot,
    Reconcile,
    Release,
    Volumes,
    VolumeWrite,
    seal_request,
)
from harmony_core.wire.root import ROOT_TYPE, Root, Scope

from .asking import Asker, asker
from .rig import Note, Rig, entry

_OPEN: dict[str, Any] = {"state": "done"}


def rule(priority: int = 0) -> ClassRule:
    selected = Selected(since=1, selector="role=kiosk")
    return ClassRule(selectors=(selected,), priority=priority)


async def begin(rig: Rig, *scopes: Scope, **index: Any) -> None:
    """A fleet with a root document: the operator signs all, others what *scopes* say. The device pi-1 belongs
    to the classes kiosk and base."""
    root_key = generate_key()
    root = Root(
        fleet="home",
        version=1,
        issued_at=datetime.now(UTC),
        root_keys=(root_key.public.to_text(),),
        root_threshold=1,
        scopes=(Scope(name="admin", keys=(rig.key.public.to_text(),)), *scopes),
    )
    envelope = seal(root.payload(), rig.key, root_key, payload_type=ROOT_TYPE)
    await rig.bus.bucket("trust").put("1", envelope)
    await rig.put(1, entry(Note(path="/etc/own"), "own"), labels={"role": "kiosk"})
    await rig.put_index(1, classes={"kiosk": rule(9), "base": rule()}, **index)
    first = await rig.put_class("base", 1, entry(Note(path="/etc/base"), "base"))
    await rig.open_gate("base", 1, first, **_OPEN)
    rig.first = first


def limited(name: str, key: Signer, **limits: Any) -> Scope:
    fields: dict[str, Any] = {"signs": ("manifest",), **limits}
    return Scope(name=name, keys=(key.public.to_text(),), **fields)


def refused(name: str) -> Callable[[ActualState], bool]:
    def holds(state: ActualState) -> bool:
        layer = state.layers.get(f"class:{name}")
        return layer is not None and (layer.phase, layer.reason) == ("Refused", "OutOfScope")

    return holds


def follows(name: str, generation: int) -> Callable[[ActualState], bool]:
    def holds(state: ActualState) -> bool:
        layer = state.layers.get(f"class:{name}")
        return layer is not None and (layer.phase, layer.generation) == ("Applied", generation)

    return holds


def degraded(reason: str) -> Callable[[ActualState], bool]:
    return lambda state: any(
        each.type == "Degraded" and each.reason == reason for each in state.conditions
    )


async def test_a_key_for_one_class_brings_that_class_and_neither_another_nor_a_device_nor_the_index(
    rig: Rig,
) -> None:
    ci = generate_key()
    async with rig.agent():
        await begin(rig, limited("ci", ci, classes=("kiosk",)))
        await rig.until(follows("base", 1))
        one = await rig.put_class("kiosk", 1, entry(Note(text="one"), "page"), key=ci)
        await rig.open_gate("kiosk", 1, one, key=ci, **_OPEN)
        await rig.until(follows("kiosk", 1))

        back: dict[str, Any] = {"stable_generation": 1, "stable_sha256": rig.first, **_OPEN}
        evil = await rig.put_class(
            "base", 2, entry(Note(path="/etc/base", text="evil"), "base"), supersedes=1, key=ci
        )
        await rig.open_gate("base", 2, evil, **back)  # by the operator, who has not looked
        await rig.until(refused("base"))
        good = await rig.put_class(
            "base", 3, entry(Note(path="/etc/base", text="three"), "base"), supersedes=1
        )
        await rig.open_gate(
            "base", 3, good, key=ci, **back
        )  # nor does it open what others have signed
        await rig.until(refused("base"))
        await rig.open_gate("base", 3, good, **back)
        await rig.until(follows("base", 3))
        # Nor may it send that class back to what it superseded.
        aborted: dict[str, Any] = {**back, "state": "aborted"}
        await rig.open_gate("base", 3, good, key=ci, **aborted)
        await rig.until(refused("base"))

        every = ClassRule(selectors=(Selected(since=0, selector=""),), priority=999)
        await rig.put_index(2, key=ci, classes={"kiosk": every})
        await rig.until(degraded("IndexRejected"))
        await rig.put_bytes(attrs.evolve(rig, key=ci).sealed(2, labels={"role": "other"}))
        state = await rig.until(degraded("ManifestRejected"))
        assert (state.generation, state.layers["class:kiosk"].generation) == (1, 1)
        assert rig.files.read("/etc/base") == b"three"
        assert rig.files.read("/etc/own") == b"hello"


async def test_beside_a_key_for_gates_it_does_not_count_as_an_operator_who_goes_faster(
    rig: Rig,
) -> None:
    """Who has both could open a wave of another class before its time."""
    ci, gates = generate_key(), generate_key()
    slow = Rollout(
        steps=(Step(upto="0", places=0, soak_s=86_400), Step(upto="100%", places=PLACES))
    )
    async with rig.agent():
        named = (gates.public.to_text(),)
        await begin(rig, limited("ci", ci, classes=("kiosk",)), gate_keys=named)
        await rig.until(follows("base", 1))
        more: dict[str, Any] = {"stable_generation": 1, "stable_sha256": rig.first, "step": 1}
        both: dict[str, Any] = {"key": gates, "also": (ci,), **more}
        second = await rig.put_class(
            "base", 2, entry(Note(path="/etc/base", text="two"), "base"), supersedes=1, rollout=slow
        )
        await rig.open_gate("base", 2, second, **both)
        state = await rig.until(
            lambda state: (
                state.layers["class:base"].reason in {"TooEarly", "", "OutOfScope"}
                and state.layers["class:base"].wanted == 2
            )
        )
        assert state.layers["class:base"].reason == "TooEarly"
        await rig.open_gate("base", 2, second, **more)
        await rig.until(follows("base", 2))


async def test_a_key_for_other_devices_brings_nothing_to_this_one_and_is_not_answered(
    rig: Rig,
) -> None:
    here, there = generate_key(), generate_key()
    signs = ("manifest", "request")
    async with rig.agent():
        await begin(
            rig,
            limited("here", here, agents=("pi-?",), signs=signs),
            limited("there", there, agents=("attic-*",), classes=("base",), signs=signs),
        )
        await rig.until(follows("base", 1))
        # A manifest that changes nothing would still use up the generations.
        own = entry(Note(path="/etc/own"), "own")
        same = attrs.evolve(rig, key=there).sealed(2**53 - 1, own, labels={"role": "kiosk"})
        await rig.put_bytes(same)
        await rig.until(degraded("ManifestRejected"))
        answered = attrs.evolve(await asker(rig), key=here)
        for ask in _ASKS:
            await _is_not_answered(answered, ask, by=there)
        mine = attrs.evolve(rig, key=here)
        await rig.put_bytes(
            mine.sealed(
                2, entry(Note(path="/etc/own", text="new"), "own"), labels={"role": "kiosk"}
            )
        )
        await rig.seen(2)
        assert rig.files.read("/etc/own") == b"new"
        evil = await rig.put_class("kiosk", 1, entry(Note(text="evil"), "page"), key=here)
        await rig.open_gate("kiosk", 1, evil, **_OPEN)
        await rig.until(refused("kiosk"))
        assert rig.files.read("/etc/note") is None


_ASKS: tuple[Ask, ...] = (
    Reconcile(enforce=True),
    Release(score="own"),
    Reboot(boot_id="boot"),
    Volumes(),
    VolumeWrite(volume="data", transfer="0" * 32, offset=0, box="AA=="),
)


async def _is_not_answered(asking: Asker, ask: Ask, *, by: Signer) -> None:
    """What is asked next, by who may, is answered first."""
    request = asking.request(ask)
    async with asking.waiting(request.nonce) as silence:
        await asking.send(seal_request(request, by))
        assert (await asking.ask(Events(lines=1))).items is not None
        assert silence.subscription.pending_msgs == 0
