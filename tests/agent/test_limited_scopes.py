"""A key that signs for one class, or one device, by the root document: nothing of it reaches any other."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

from harmony_control.bus.roots import hint
from harmony_core.wire.actual_state import ActualState
from harmony_core.wire.class_manifest import PLACES, Rollout, Step
from harmony_core.wire.envelope import Signer, generate_key, seal
from harmony_core.wire.fleet_index import ClassRule, Freeze, Selected
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
from .rig import Note, Rig, Several, entry


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices spread their looks over two seconds; one alone need not."""
    monkeypatch.setattr("harmony_agent.class_watch._SPREAD_S", 0.0)


_OPEN: dict[str, Any] = {"state": "done"}


def rule(priority: int = 0) -> ClassRule:
    selected = Selected(since=1, selector="role=kiosk")
    return ClassRule(selectors=(selected,), priority=priority)


_ROOT = generate_key()


async def put_root(rig: Rig, version: int, *scopes: Scope, **fields: Any) -> None:
    """Write a root document: the operator signs all, others what *scopes* say."""
    root = Root(
        fleet="home",
        version=version,
        issued_at=datetime.now(UTC),
        root_keys=(_ROOT.public.to_text(),),
        root_threshold=1,
        scopes=(Scope(name="admin", keys=(rig.key.public.to_text(),)), *scopes),
        **fields,
    )
    envelope = seal(root.payload(), rig.key, _ROOT, payload_type=ROOT_TYPE)
    await rig.bus.bucket("trust").put(str(version), envelope)
    await hint(rig.bus.admin, ["pi-1"])


CLASSES = {"kiosk": rule(9), "base": rule()}


async def begin(rig: Rig, *scopes: Scope, **index: Any) -> None:
    """A fleet with a root document. The device pi-1 belongs to the classes kiosk and base, of which base has
    a first generation."""
    await put_root(rig, 1, *scopes)
    await rig.put(1, entry(Note(path="/etc/own"), "own"), labels={"role": "kiosk"})
    await rig.put_index(1, classes=CLASSES, **index)
    first = await rig.put_class("base", 1, entry(Note(path="/etc/base"), "base"))
    await rig.open_gate("base", 1, first, **_OPEN)
    rig.first = first


def limited(name: str, key: Signer, **limits: Any) -> Scope:
    fields: dict[str, Any] = {"signs": ("manifest",), **limits}
    return Scope(name=name, keys=(key.public.to_text(),), **fields)


def is_so(name: str, phase: str, reason: str) -> Callable[[ActualState], bool]:
    def holds(state: ActualState) -> bool:
        layer = state.layers.get(f"class:{name}")
        return layer is not None and (layer.phase, layer.reason) == (phase, reason)

    return holds


def refused(name: str, reason: str = "OutOfScope") -> Callable[[ActualState], bool]:
    return is_so(name, "Refused", reason)


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


@pytest.mark.parametrize(
    ("fields", "gate_by_thief", "reason", "is_restarted"),
    [
        ({"epoch": 1}, True, "UntrustedSignature", False),
        ({"epoch": 1}, False, "WrongEpoch", True),
        ({}, False, "UntrustedSignature", False),
        ({}, True, "UntrustedSignature", True),
    ],
)
async def test_what_waits_is_asked_again_whose_it_is_before_it_is_begun(
    rig: Rig, fields: dict[str, Any], gate_by_thief: bool, reason: str, is_restarted: bool
) -> None:
    """Its key was taken out while the device could not begin."""
    thief = generate_key()
    frozen = Freeze(reason="holidays")
    async with rig.agent():
        await begin(rig, Scope(name="thief", keys=(thief.public.to_text(),)))
        await rig.until(follows("base", 1))
        await rig.put_index(2, classes=CLASSES, freeze=frozen)
        back: dict[str, Any] = {"stable_generation": 1, "stable_sha256": rig.first, **_OPEN}
        evil = await rig.put_class(
            "base", 2, entry(Note(path="/etc/base", text="evil"), "base"), supersedes=1, key=thief
        )
        await rig.open_gate("base", 2, evil, key=thief if gate_by_thief else None, **back)
        await rig.until(is_so("base", "Waiting", "Frozen"))
        if not is_restarted:
            await put_root(rig, 2, **fields)
            await rig.put_index(3, classes=CLASSES, **fields)
            await rig.until(refused("base", reason))
    if is_restarted:
        await put_root(rig, 2, **fields)
        await rig.put_index(3, classes=CLASSES, **fields)
    async with rig.agent():
        await rig.until(refused("base", reason))
        await rig.worked()
        assert rig.files.read("/etc/base") == b"hello"

        # It goes on with what is signed by whoever may.
        good = await rig.put_class(
            "base", 3, entry(Note(path="/etc/base", text="good"), "base"), supersedes=0, **fields
        )
        await rig.open_gate("base", 3, good, **_OPEN, **fields)
        await rig.until(follows("base", 3))


async def test_a_key_for_gates_by_an_index_of_an_earlier_epoch_opens_nothing(rig: Rig) -> None:
    """Whoever has signed that index may be who the new epoch is to keep out."""
    named = generate_key()
    async with rig.agent():
        await begin(rig, gate_keys=(named.public.to_text(),))
        await rig.until(follows("base", 1))
        await put_root(rig, 2, epoch=1)
        await rig.until(lambda state: state.root_version == 2)
        new: dict[str, Any] = {"epoch": 1}
        second = await rig.put_class(
            "base", 2, entry(Note(path="/etc/base", text="two"), "base"), **new
        )
        await rig.open_gate("base", 2, second, key=named, **_OPEN, **new)
        await rig.until(refused("base", "UntrustedSignature"))
        await rig.put_index(2, classes=CLASSES, gate_keys=(named.public.to_text(),), **new)
        await rig.until(follows("base", 2))


async def test_what_is_in_force_stays_until_the_first_generation_of_an_epoch_is_begun(
    rig: Rig,
) -> None:
    """That supersedes nothing, and comes in waves as any other."""
    new: dict[str, Any] = {"epoch": 1}
    async with rig.agent():
        await begin(rig)
        await rig.until(follows("base", 1))
        await put_root(rig, 2, **new)
        await rig.until(lambda state: state.root_version == 2)
        await rig.put_index(2, classes=CLASSES, **new)
        second = await rig.put_class("base", 2, **new)
        await rig.open_gate("base", 2, second, places=0, **new)
        await rig.until(is_so("base", "Waiting", "NotOpen"))
        await rig.open_gate("base", 2, second, state="aborted", places=0, **new)
        state = await rig.until(is_so("base", "Waiting", "Aborted"))
        assert state.layers["class:base"].generation == 1
        await rig.worked()
        assert rig.files.read("/etc/base") == b"hello"

        third = await rig.put_class("base", 3, entry(Note(path="/etc/base"), "base"), **new)
        await rig.open_gate("base", 3, third, **new)
        await rig.until(follows("base", 3))
        await rig.open_gate("base", 3, third, state="aborted", **new)
        await rig.until(lambda state: "base" not in state.scores)


async def test_no_gate_counts_while_the_root_document_has_expired(rig: Rig) -> None:
    async with rig.agent():
        await begin(rig)
        await rig.until(follows("base", 1))
        over = datetime.now(UTC) - timedelta(minutes=1)
        await put_root(rig, 2, expires_at=over)
        await rig.until(
            lambda state: any(each.reason == "RootExpired" for each in state.conditions)
        )
        await rig.open_gate("base", 1, rig.first, state="aborted")
        await rig.until(refused("base", "RootExpired"))
        assert rig.files.read("/etc/base") == b"hello"
        await put_root(rig, 3)
        await rig.until(lambda state: "base" not in state.scores)


async def test_what_a_newer_root_document_allows_is_taken_in_though_nobody_says_so_again(
    rig: Rig,
) -> None:
    ci = generate_key()
    async with rig.agent():
        await begin(rig)
        one = await rig.put_class("kiosk", 1, entry(Note(text="one"), "page"), key=ci)
        await rig.open_gate("kiosk", 1, one, key=ci, **_OPEN)
        await rig.until(refused("kiosk", "UntrustedSignature"))
        await put_root(rig, 2, limited("ci", ci, classes=("kiosk",)))
        await rig.until(follows("kiosk", 1))


async def test_a_key_for_one_kind_takes_back_no_other_by_what_its_generation_supersedes(
    rig: Rig,
) -> None:
    notes = generate_key()
    async with rig.agent():
        await begin(rig, limited("notes", notes, classes=("kiosk",), kinds=("Note",)))
        one = await rig.put_class("kiosk", 1, entry(Several(paths=("/etc/a",)), "a"))
        await rig.open_gate("kiosk", 1, one, **_OPEN)
        await rig.until(follows("kiosk", 1))
        back: dict[str, Any] = {"stable_generation": 1, "stable_sha256": one}
        two = await rig.put_class(
            "kiosk", 2, entry(Several(paths=("/etc/a",), text="two"), "a"), supersedes=1
        )
        await rig.open_gate("kiosk", 2, two, **back, **_OPEN)
        await rig.until(follows("kiosk", 2))

        page = entry(Note(), "page")
        old = entry(Several(paths=("/etc/a",)), "a")
        three = await rig.put_class("kiosk", 3, old, page, supersedes=1, key=notes)
        await rig.open_gate("kiosk", 3, three, places=0, key=notes, **back)
        await rig.until(refused("kiosk"))
        four = await rig.put_class("kiosk", 4, page, supersedes=0, key=notes)
        await rig.open_gate("kiosk", 4, four, state="aborted", key=notes)
        await rig.until(lambda state: state.layers["class:kiosk"].wanted == 4)
        await rig.until(refused("kiosk"))
        assert rig.files.read("/etc/a") == b"two"

        # Who may sign all sends it back.
        five = await rig.put_class("kiosk", 5, old, supersedes=1)
        await rig.open_gate("kiosk", 5, five, places=0, **back)
        await rig.until(lambda state: state.layers["class:kiosk"].generation == 1)


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
