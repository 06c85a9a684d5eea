"""What a device makes of its classes, on a real bus: what it follows, waits for, and goes back from."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from harmony_agent.bus.connection import Bus
from harmony_agent.store.database import Database
from harmony_agent.store.in_force import InForce
from harmony_agent.store.status import StatusStore
from harmony_control.bus.classes import hint_devices
from harmony_core.errors import BusUnreachable, HarmonyError
from harmony_core.wire.actual_state import ActualState, LayerStatus
from harmony_core.wire.class_manifest import PLACES, Rollout, Step, Window
from harmony_core.wire.envelope import generate_key
from harmony_core.wire.fleet_index import ClassRule, Freeze, Selected
from harmony_core.wire.gate import GateState
from harmony_core.wire.manifest import GENERATION_MAX

from .rig import Note, Rig, Several, code, entry, status

KIOSK = {"role": "kiosk"}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices spread their looks over two seconds; one alone need not."""
    monkeypatch.setattr("harmony_agent.class_watch._SPREAD_S", 0.0)


def rule(selector: str = "role=kiosk", *, since: int = 1, priority: int = 0) -> ClassRule:
    return ClassRule(selectors=(Selected(since=since, selector=selector),), priority=priority)


def layer(state: ActualState, name: str = "kiosk") -> LayerStatus:
    return state.layers[f"class:{name}"]


def is_so(phase: str, generation: int | None = None, reason: str | None = None, **more: Any) -> Any:
    """Return what tells whether the layer is in that *phase*."""

    def holds(state: ActualState) -> bool:
        with suppress(KeyError):
            found = layer(state, **more)
            return (
                found.phase == phase
                and generation in {None, found.generation}
                and reason in {None, found.reason}
            )
        return False

    return holds


async def _begin(rig: Rig, *own: Any, **labels: str) -> None:
    """A kiosk, whose class has a page in its first generation."""
    await rig.put(1, *own, labels=labels or KIOSK)
    await rig.put_index(1, classes={"kiosk": rule()})
    sha256 = await rig.put_class("kiosk", 1, entry(Note(text="one"), "page"))
    await rig.open_gate("kiosk", 1, sha256, state="done")
    rig.first = sha256


async def _until_content(rig: Rig, wanted: bytes) -> None:
    """What a layer follows is told before its Scores are interpreted."""
    async with asyncio.timeout(20):
        while await _content(rig) != wanted:
            await asyncio.sleep(0.02)


async def _content(rig: Rig, path: str = "/etc/note") -> bytes | None:
    return rig.files.read(path)


async def test_a_device_follows_its_class_beside_its_own_manifest(rig: Rig) -> None:
    async with rig.agent():
        await _begin(rig, entry(Note(path="/etc/own"), "own"))
        state = await rig.until(is_so("Applied", 1))
    assert status(state.scores) == {"own": "SUCCESS", "page": "SUCCESS"}
    assert {name: page.layer for name, page in state.scores.items()} == {
        "own": "agent",
        "page": "class:kiosk",
    }
    assert (state.generation, state.observed_generation) == (1, 1)
    assert (layer(state).observed_generation, layer(state).gate) == (1, (1, 1))
    assert any(each.type == "Ready" and each.status == "True" for each in state.conditions)


async def test_what_is_admitted_is_not_applied_before_it_is_in_force(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report may go out in between: whoever opens waves would count a soak from it."""
    told: list[Mapping[str, LayerStatus]] = []
    accept = StatusStore.accept

    def tell_first(statuses: StatusStore, in_force: InForce) -> None:
        told.append(statuses.compose().layers)
        accept(statuses, in_force)

    monkeypatch.setattr(StatusStore, "accept", tell_first)
    async with rig.agent():
        await _begin(rig, entry(Note(path="/etc/own"), "own"))
        await rig.until(is_so("Applied", 1))
        more: dict[str, Any] = {"stable_generation": 1, "stable_sha256": rig.first}
        second = await rig.put_class("kiosk", 2, entry(Note(text="two"), "page"), supersedes=1)
        await rig.open_gate("kiosk", 2, second, state="done", **more)
        await rig.until(is_so("Applied", 2))
    before = [
        (each.phase, each.generation, each.observed_generation)
        for layers in told
        for each in layers.values()
        if each.phase != "Waiting"
    ]
    assert before == [("Admitted", 1, 0), ("Admitted", 2, 1)]


async def test_since_when_all_is_in_order_is_told_of_each_generation(rig: Rig) -> None:
    """A soak is counted from it, by whoever opens waves."""
    async with rig.agent():
        await _begin(rig)
        first = layer(await rig.until(is_so("Applied", 1))).since
        more: dict[str, Any] = {"stable_generation": 1, "stable_sha256": rig.first}
        second = await rig.put_class("kiosk", 2, entry(Note(text="two"), "page"), supersedes=1)
        await rig.open_gate("kiosk", 2, second, state="done", **more)
        applied = layer(await rig.until(is_so("Applied", 2))).since
        assert applied > first
        # It stays so, whatever else is told.
        await rig.put(2, entry(Note(path="/etc/own"), "own"), labels=KIOSK)
        state = await rig.until(lambda found: found.observed_generation == 2)
        assert layer(state).since == applied


async def test_a_device_that_is_not_selected_follows_nothing(rig: Rig) -> None:
    async with rig.agent():
        await _begin(rig, role="door")
        await rig.put(2, entry(Note(path="/etc/own"), "own"), labels={"role": "door"})
        state = await rig.until(
            lambda found: found.observed_generation == 2 and "own" in found.scores
        )
    assert not state.layers
    assert state.scores.keys() == {"own"}


async def test_what_is_followed_is_followed_when_nobody_says_anything_any_more(rig: Rig) -> None:
    async with rig.agent():
        await _begin(rig)
        await rig.until(is_so("Applied", 1))
    for bucket, key in [("fleet", "index"), ("rollout", "kiosk"), ("desired-class", "kiosk.1")]:
        await rig.bus.bucket(bucket).erase(key)
    await rig.bus.bucket("actual-state").put("pi-1", b"")
    await rig.files.remove(["file:/etc/note"], apply=True)
    async with rig.agent():
        state = await rig.until(is_so("Applied", 1))
        assert state.scores["page"].observed_generation == 1
        assert await _content(rig) == b"one"


async def test_a_new_generation_waits_until_the_gate_is_open_for_the_device(rig: Rig) -> None:
    async with rig.agent():
        await _begin(rig)
        await rig.until(is_so("Applied", 1))
        second = await rig.put_class("kiosk", 2, entry(Note(text="two"), "page"), supersedes=1)
        more: dict[str, Any] = {"stable_generation": 1, "stable_sha256": rig.first}
        await rig.open_gate("kiosk", 2, second, places=0, **more)
        state = await rig.until(is_so("Waiting", 1, "NotOpen"))
        assert layer(state).wanted == 2
        assert state.scores["page"].observed_generation == 1

        await rig.open_gate("kiosk", 2, second, **more)
        state = await rig.until(is_so("Applied", 2))
        assert state.scores["page"].observed_generation == 2
        assert state.generation == 1


@pytest.mark.parametrize("state", ["running", "done"])
async def test_who_has_a_slot_that_is_no_number_waits_until_that_is_corrected(
    rig: Rig, state: GateState
) -> None:
    async with rig.agent():
        await _begin(rig)
        await rig.until(is_so("Applied", 1))
        await rig.put(2, labels={**KIOSK, "slot": "b"})
        second = await rig.put_class("kiosk", 2, entry(Note(text="two"), "page"), supersedes=1)
        more: dict[str, Any] = {"stable_generation": 1, "stable_sha256": rig.first, "state": state}
        await rig.open_gate("kiosk", 2, second, **more)
        waiting = await rig.until(is_so("Waiting", 1, "SlotInvalid"))
        assert "not 'b'" in layer(waiting).message
        assert await _content(rig) == b"one"

        await rig.put(3, labels={**KIOSK, "slot": "0"})
        await rig.until(is_so("Applied", 2))
        assert await _content(rig) == b"two"


async def test_an_abort_brings_back_what_was_reached_and_a_late_gate_does_not(rig: Rig) -> None:
    async with rig.agent():
        await _begin(rig)
        await rig.until(is_so("Applied", 1))
        second = await rig.put_class(
            "kiosk",
            2,
            entry(Note(text="two"), "page"),
            entry(Note(path="/etc/more"), "more"),
            supersedes=1,
        )
        more: dict[str, Any] = {"stable_generation": 1, "stable_sha256": rig.first}
        await rig.open_gate("kiosk", 2, second, **more)
        await rig.until(is_so("Applied", 2))
        await rig.open_gate("kiosk", 2, second, state="aborted", reason="6 % failed", **more)
        state = await rig.until(
            lambda found: is_so("RolledBack", 1)(found) and "more" not in found.scores
        )
        assert layer(state).message == "6 % failed"
        assert await _content(rig) == b"one"
        assert await rig.files.observe("/etc/more") is None

        # A gate of before, as after a server that has lost what it had.
        rig.gates = 0
        await rig.open_gate("kiosk", 2, second, **more)
        state = await rig.until(is_so("Refused", 1, "StaleGeneration"))
        assert await _content(rig) == b"one"


async def test_paused_nobody_begins_and_nobody_goes_back(rig: Rig) -> None:
    async with rig.agent():
        await _begin(rig)
        await rig.until(is_so("Applied", 1))
        second = await rig.put_class("kiosk", 2, entry(Note(text="two"), "page"), supersedes=1)
        more: dict[str, Any] = {"stable_generation": 1, "stable_sha256": rig.first}
        await rig.open_gate("kiosk", 2, second, state="paused", **more)
        await rig.until(is_so("Waiting", 1, "NotOpen"))
        await rig.open_gate("kiosk", 2, second, **more)
        await rig.until(is_so("Applied", 2))
        await rig.open_gate("kiosk", 2, second, state="paused", **more)
        state = await rig.until(lambda found: layer(found).gate == (1, 4))
        assert (layer(state).phase, layer(state).generation) == ("Applied", 2)


async def test_who_belongs_to_a_class_changes_with_the_generation_that_says_so(rig: Rig) -> None:
    async with rig.agent():
        await _begin(rig)
        await rig.until(is_so("Applied", 1))
        narrower = Selected(since=2, selector="role=kiosk,site=attic")
        await rig.put_index(
            2, classes={"kiosk": ClassRule(selectors=(narrower, *rule().selectors))}
        )
        second = await rig.put_class("kiosk", 2, entry(Note(text="two"), "page"), supersedes=1)
        more: dict[str, Any] = {"stable_generation": 1, "stable_sha256": rig.first}
        await rig.open_gate("kiosk", 2, second, places=0, **more)
        state = await rig.until(is_so("Waiting", 1))
        assert "page" in state.scores

        await rig.open_gate("kiosk", 2, second, **more)
        state = await rig.until(lambda found: "page" not in found.scores)
        assert layer(state).generation == 0
        assert await rig.files.observe("/etc/note") is None


async def test_other_labels_are_another_class(rig: Rig) -> None:
    async with rig.agent():
        await _begin(rig)
        await rig.until(is_so("Applied", 1))
        await rig.put(2, labels={"role": "door"})
        state = await rig.until(lambda found: found.generation == 2 and not found.scores)
        assert not state.layers


async def test_layers_are_followed_by_their_rank(rig: Rig) -> None:
    async with rig.agent():
        await rig.put(1, entry(Note(path="/etc/a", text="own"), "a"), labels=KIOSK, without=("d",))
        await rig.put_index(1, classes={"low": rule(), "high": rule(priority=5), "other": rule()})
        for name, scores in {
            "low": [entry(Note(path=f"/etc/{each}", text="low"), each) for each in "abcd"],
            "high": [entry(Note(path="/etc/b", text="high"), "b")],
            "other": [entry(Note(path="/etc/c", text="other"), "c")],
        }.items():
            await rig.open_gate(name, 1, await rig.put_class(name, 1, *scores), state="done")
        state = await rig.until(
            lambda found: (
                is_so("Applied", 1, name="high")(found)
                and "c" in found.scores
                and "class:other" in found.layers
                and layer(found, "other").generation == 1
            )
        )
        state = await rig.until(lambda found: code_of(found, "c") == "ClassConflict")
        assert await _content(rig, "/etc/a") == b"own"
        assert await _content(rig, "/etc/b") == b"high"
        assert "d" not in state.scores


def code_of(state: ActualState, score: str) -> str:
    page = state.scores.get(score)
    return code(page) if page is not None and page.outcome.status == "FAILURE" else ""


async def test_a_time_zone_that_was_set_since_the_agent_began_counts_at_its_next_look(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now().astimezone()
    begin, until = (now + timedelta(hours=each) for each in (-1, 1))
    here = Rollout(windows=(Window(begin=f"{begin:%H:%M}", until=f"{until:%H:%M}"),))
    try:
        async with rig.agent():
            await _begin(rig)
            await rig.until(is_so("Applied", 1))
            # As where /etc/localtime is another: a process looks at neither again by itself.
            offset = now.utcoffset() or timedelta(0)
            hours = round(offset.total_seconds() / 3_600)
            other = hours + 6 if hours < 0 else hours - 6
            monkeypatch.setenv("TZ", f"Etc/GMT{-other:+d}")
            page = entry(Note(text="two"), "page")
            second = await rig.put_class("kiosk", 2, page, supersedes=1, rollout=here)
            more: dict[str, Any] = {"stable_generation": 1, "stable_sha256": rig.first}
            await rig.open_gate("kiosk", 2, second, state="done", **more)
            await rig.until(is_so("Waiting", 1, "OutsideWindow"))
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("rollout", "issued_before", "reason"),
    [
        (
            Rollout(
                steps=(Step(upto="0", places=0, soak_s=3600), Step(upto="100%", places=PLACES))
            ),
            timedelta(0),
            "TooEarly",
        ),
        (
            Rollout(windows=(Window(begin="00:00", until="00:01", days=("mon",)),)),
            timedelta(days=1),
            "OutsideWindow",
        ),
        (
            Rollout(windows=(Window(begin="00:00", until="00:00"),)),
            timedelta(days=-1),
            "ClockNotTrusted",
        ),
    ],
)
async def test_no_gate_is_faster_than_an_operator_has_signed(
    rig: Rig, rollout: Rollout, issued_before: timedelta, reason: str
) -> None:
    if reason == "OutsideWindow" and datetime.now().astimezone().strftime("%a%H%M") in {
        "Mon0000",
        "Sun2359",
    }:
        pytest.skip("the window that is to be shut is open just now")
    gates = generate_key()
    async with rig.agent():
        await rig.put(1, labels=KIOSK)
        await rig.put_index(1, classes={"kiosk": rule()}, gate_keys=(gates.public.to_text(),))
        issued_at = datetime.now(UTC) - issued_before
        sha256 = await rig.put_class(
            "kiosk", 1, entry(Note(), "page"), rollout=rollout, issued_at=issued_at
        )
        await rig.open_gate("kiosk", 1, sha256, state="done", key=gates)
        state = await rig.until(is_so("Waiting", 0, reason))
        assert "page" not in state.scores


async def test_a_frozen_fleet_begins_when_it_is_thawed(rig: Rig) -> None:
    async with rig.agent():
        await rig.put(1, labels=KIOSK)
        await rig.put_index(1, classes={"kiosk": rule()}, freeze=Freeze(reason="holidays"))
        sha256 = await rig.put_class("kiosk", 1, entry(Note(), "page"))
        await rig.open_gate("kiosk", 1, sha256, state="done")
        state = await rig.until(is_so("Waiting", 0, "Frozen"))
        assert "holidays" in layer(state).message
        await rig.put_index(2, classes={"kiosk": rule()})
        await rig.until(is_so("Applied", 1))


async def test_what_no_operator_has_signed_is_followed_by_nobody(rig: Rig) -> None:
    stranger, gates = generate_key(), generate_key()
    more: dict[str, Any] = {"stable_generation": 1, "state": "done"}
    async with rig.agent():
        await _begin(rig)
        await rig.put_index(2, classes={"kiosk": rule()}, gate_keys=(gates.public.to_text(),))
        await rig.until(is_so("Applied", 1))
        more["stable_sha256"] = rig.first

        evil = await rig.put_class(
            "kiosk", 2, entry(Note(text="evil"), "page"), supersedes=1, key=gates
        )
        await rig.open_gate("kiosk", 2, evil, key=stranger, **more)
        await rig.until(is_so("Refused", 1, "UntrustedSignature"))
        await rig.until(lambda found: degraded(found) == "ClassRefused")
        # A key for gates can choose between what operators have signed, and nothing else.
        await rig.open_gate("kiosk", 2, evil, key=gates, **more)
        await rig.until(is_so("Refused", 1, "UntrustedSignature"))

        good = await rig.put_class("kiosk", 3, entry(Note(text="three"), "page"), supersedes=1)
        await rig.put_class("kiosk", 3, entry(Note(text="other"), "page"), supersedes=1)
        await rig.open_gate("kiosk", 3, good, key=gates, **more)
        await rig.until(is_so("Refused", 1, "InvalidManifest"))

        # What it would go back to is what the operator has named.
        good = await rig.put_class("kiosk", 4, entry(Note(text="four"), "page"), supersedes=3)
        await rig.open_gate("kiosk", 4, good, key=gates, **more)
        await rig.until(is_so("Refused", 1, "InvalidManifest"))
        assert await _content(rig) == b"one"

        await rig.put_index(3, key=stranger)
        await rig.until(lambda found: degraded(found) == "IndexRejected")
        good = await rig.put_class("kiosk", 5, entry(Note(text="five"), "page"), supersedes=1)
        await rig.open_gate("kiosk", 5, good, key=gates, **more)
        await rig.until(is_so("Applied", 5))


@pytest.mark.parametrize("slot", ["0", "1", "a"])
async def test_no_gate_has_a_generation_followed_as_stable_that_may_not_be_begun(
    rig: Rig, slot: str
) -> None:
    gates = generate_key()
    keys = (gates.public.to_text(),)
    slow = Rollout(
        steps=(Step(upto="0", places=0, soak_s=86_400), Step(upto="100%", places=PLACES))
    )
    async with rig.agent():
        await _begin(rig)
        await rig.until(is_so("Applied", 1))
        await rig.put(2, labels={**KIOSK, "slot": slot})
        await rig.put_index(2, classes={"kiosk": rule()}, gate_keys=keys, freeze=Freeze())
        first: dict[str, Any] = {"stable_generation": 1, "stable_sha256": rig.first}
        second = await rig.put_class(
            "kiosk", 2, entry(Note(text="two"), "page"), supersedes=1, rollout=slow
        )
        await rig.open_gate("kiosk", 2, second, places=0, key=gates, **first)
        await rig.until(is_so("Waiting", 1, "NotOpen"))

        # Of a generation that there is not, and of one that supersedes another.
        stable: dict[str, Any] = {"stable_generation": 2, "stable_sha256": second}
        await rig.open_gate("kiosk", 3, "0" * 64, places=0, key=gates, **stable)
        state = await rig.until(is_so("Refused", 1, "InvalidManifest"))
        assert "generation 3 of the class kiosk is not on the server" in layer(state).message
        fourth = await rig.put_class("kiosk", 4, entry(Note(text="four"), "page"), supersedes=1)
        await rig.open_gate("kiosk", 4, fourth, places=0, key=gates, **stable)
        state = await rig.until(lambda found: "supersedes 1" in layer(found).message)
        # Nor is everything taken away.
        await rig.open_gate("kiosk", 4, fourth, state="aborted", key=gates)
        await rig.until(lambda found: "back to generation 0" in layer(found).message)
        assert await _content(rig) == b"one"

        # Of one that supersedes it: as any generation is begun.
        fifth = await rig.put_class("kiosk", 5, entry(Note(text="five"), "page"), supersedes=2)
        await rig.open_gate("kiosk", 5, fifth, places=0, key=gates, **stable)
        state = await rig.until(lambda found: "frozen" in layer(found).message)
        assert is_so("Waiting", 1, "NotOpen")(state)
        await rig.put_index(3, classes={"kiosk": rule()}, gate_keys=keys)
        waits = "opens at" if slot != "a" else "label slot"
        await rig.until(lambda found: waits in layer(found).message)
        await rig.worked()
        assert await _content(rig) == b"one"
        # An operator may be faster than the waves' soaks, and starts nobody whose slot is not known.
        await rig.open_gate("kiosk", 5, fifth, places=0, **stable)
        if slot == "a":
            await rig.until(lambda found: layer(found).gate == (1, rig.gates))
            assert await _content(rig) == b"one"
            await rig.put(3, labels=KIOSK)
        state = await rig.until(lambda found: layer(found).generation == 2)
        await rig.until(lambda found: found.scores["page"].observed_generation == 2)
        assert await _content(rig) == b"two"


async def test_a_stable_generation_waits_for_its_own_window(rig: Rig) -> None:
    now = datetime.now().astimezone()
    begin, until = (f"{now + timedelta(hours=each):%H:%M}" for each in (2, 3))
    shut = Rollout(windows=(Window(begin=begin, until=until),))
    async with rig.agent():
        await _begin(rig)
        await rig.until(is_so("Applied", 1))
        first: dict[str, Any] = {"stable_generation": 1, "stable_sha256": rig.first}
        second = await rig.put_class(
            "kiosk", 2, entry(Note(text="two"), "page"), supersedes=1, rollout=shut
        )
        await rig.open_gate("kiosk", 2, second, state="done", **first)
        await rig.until(is_so("Waiting", 1, "OutsideWindow"))
        stable: dict[str, Any] = {"stable_generation": 2, "stable_sha256": second}
        third = await rig.put_class("kiosk", 3, entry(Note(text="three"), "page"), supersedes=2)
        await rig.open_gate("kiosk", 3, third, places=0, **stable)
        state = await rig.until(is_so("Waiting", 1, "NotOpen"))
        assert "generation 2, which comes before it: its window is closed" in layer(state).message
        await rig.open_gate("kiosk", 3, third, state="aborted", reason="no", **stable)
        state = await rig.until(is_so("Waiting", 1, "Aborted"))
        assert "its window is closed" in layer(state).message
        assert await _content(rig) == b"one"


async def test_who_was_away_catches_up_and_goes_back_over_several_generations(rig: Rig) -> None:
    async with rig.agent():
        await _begin(rig)
        await rig.until(is_so("Applied", 1))
    await rig.put_class("kiosk", 2, entry(Note(text="two"), "page"), supersedes=1)
    third = await rig.put_class("kiosk", 3, entry(Note(text="three"), "page"), supersedes=2)
    three: dict[str, Any] = {"stable_generation": 3, "stable_sha256": third}
    fourth = await rig.put_class("kiosk", 4, entry(Note(text="four"), "page"), supersedes=3)
    await rig.open_gate("kiosk", 4, fourth, places=0, **three)
    async with rig.agent():
        await rig.until(is_so("Waiting", 3, "NotOpen"))
        await rig.open_gate("kiosk", 4, fourth, **three)
        await rig.until(is_so("Applied", 4))
    # While it is away, that is aborted, and the next is begun elsewhere.
    fifth = await rig.put_class("kiosk", 5, entry(Note(text="five"), "page"), supersedes=3)
    await rig.open_gate("kiosk", 5, fifth, places=0, **three)
    async with rig.agent():
        await rig.until(is_so("Waiting", 3, "NotOpen"))
        await _until_content(rig, b"three")
        await rig.open_gate("kiosk", 5, fifth, **three)
        await rig.until(is_so("Applied", 5))
    await rig.open_gate("kiosk", 5, fifth, state="aborted", **three)
    await rig.bus.bucket("desired-class").erase("kiosk.5")  # it knows what that supersedes
    async with rig.agent():
        await rig.until(is_so("RolledBack", 3))
        await _until_content(rig, b"three")
        # Who has gone back does not begin again but as anybody does.
        await rig.put_class("kiosk", 5, entry(Note(text="five"), "page"), supersedes=3)
        await rig.put_index(2, classes={"kiosk": rule()}, freeze=Freeze())
        await rig.open_gate("kiosk", 5, fifth, state="done", **three)
        await rig.until(lambda found: layer(found).gate == (1, rig.gates))
        assert await _content(rig) == b"three"


async def test_who_is_new_to_a_class_begins_with_its_stable_generation(rig: Rig) -> None:
    async with rig.agent():
        await rig.put(1, labels=KIOSK)
        first = await rig.put_class("kiosk", 1, entry(Note(text="one"), "page"))
        second = await rig.put_class("kiosk", 2, entry(Note(text="two"), "page"), supersedes=1)
        stable: dict[str, Any] = {"stable_generation": 1, "stable_sha256": first}
        await rig.open_gate("kiosk", 2, second, places=0, **stable)
        await rig.put_index(1, classes={"kiosk": rule()}, freeze=Freeze())
        await rig.until(is_so("Waiting", 0, "NotOpen"))
        await rig.put_index(2, classes={"kiosk": rule()})
        await rig.until(is_so("Waiting", 1, "NotOpen"))
        await rig.until(lambda found: "page" in found.scores)
        assert await _content(rig) == b"one"


async def test_no_key_uses_up_the_epochs_before_there_is_a_root_document(rig: Rig) -> None:
    gates = generate_key()
    last: dict[str, Any] = {"epoch": GENERATION_MAX}
    more: dict[str, Any] = {"stable_generation": 1, "state": "done"}
    async with rig.agent():
        await _begin(rig)
        await rig.until(is_so("Applied", 1))
        more["stable_sha256"] = rig.first
        await rig.put_index(2, classes={}, **last)
        state = await rig.until(lambda found: degraded(found) == "IndexRejected")
        assert any(
            "it is 0 here; only a root document" in each.message for each in state.conditions
        )
        await rig.put_index(2, classes={"kiosk": rule()}, gate_keys=(gates.public.to_text(),))

        second = await rig.put_class(
            "kiosk", 2, entry(Note(text="last"), "page"), supersedes=1, **last
        )
        await rig.open_gate("kiosk", 2, second, key=gates, **last, **more)
        await rig.until(is_so("Refused", 1, "WrongEpoch"))
        await rig.open_gate("kiosk", 2, second, key=gates, **more)
        await rig.until(is_so("Refused", 1, "WrongEpoch"))
        third = await rig.put_class("kiosk", 3, entry(Note(text="three"), "page"), supersedes=1)
        await rig.open_gate("kiosk", 3, third, key=gates, **more)
        await rig.until(is_so("Applied", 3))


def degraded(state: ActualState) -> str:
    return next(each.reason for each in state.conditions if each.type == "Degraded")


async def test_a_generation_that_is_not_there_is_told_and_found_later(rig: Rig) -> None:
    async with rig.agent():
        await _begin(rig)
        await rig.until(is_so("Applied", 1))
        more: dict[str, Any] = {"stable_generation": 1, "stable_sha256": rig.first}
        second = await rig.put_class("kiosk", 2, entry(Note(text="two"), "page"), supersedes=1)
        await rig.bus.bucket("desired-class").erase("kiosk.2")
        await rig.open_gate("kiosk", 2, second, **more)
        state = await rig.until(is_so("Refused", 1, "InvalidManifest"))
        assert "is not on the server" in layer(state).message
        await rig.put_class("kiosk", 2, entry(Note(text="two"), "page"), supersedes=1)
        with suppress(HarmonyError):
            await rig.open_gate("kiosk", 2, second, **more)


async def test_what_can_be_fetched_is_followed_though_something_else_cannot(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = Bus.fetch_class_manifest
    broken = True

    async def fetch_one(bus: Bus, name: str, generation: int) -> bytes | None:
        if name == "lamp" and broken:
            raise BusUnreachable("no answer")
        return await fetch(bus, name, generation)

    monkeypatch.setattr(Bus, "fetch_class_manifest", fetch_one)
    monkeypatch.setattr("harmony_agent.store.classes._FETCH_AGAIN", timedelta(seconds=0.2))
    async with rig.agent():
        await rig.put(1, labels=KIOSK)
        await rig.put_index(1, classes={"kiosk": rule(), "lamp": rule()})
        for name in ("kiosk", "lamp"):
            note = entry(Note(path=f"/etc/{name}", text=name), name)
            await rig.open_gate(name, 1, await rig.put_class(name, 1, note), state="done")
        await rig.until(is_so("Applied", 1))
        assert await _content(rig, "/etc/kiosk") == b"kiosk"
        broken = False
        await rig.until(is_so("Applied", 1, name="lamp"))


async def test_a_device_that_knows_its_own_manifest_no_more_takes_nothing_away(rig: Rig) -> None:
    async with rig.agent():
        await _begin(rig, entry(Note(path="/etc/own"), "own"))
        await rig.until(is_so("Applied", 1))
    # As where the operator's key was replaced: what was accepted is believed no more.
    async with await Database.open(
        rig.root / "state" / "agent.db", scratch=rig.root / "run"
    ) as database:
        await database.write(("UPDATE desired SET envelope = ?", (b"{}",)))
    await rig.bus.bucket("desired-state").erase("pi-1")
    await rig.bus.bucket("actual-state").put("pi-1", b"")
    async with rig.agent():
        state = await rig.until(is_so("Applied", 1))
        await rig.worked()
        assert await _content(rig, "/etc/own") == b"hello"
        assert await _content(rig) == b"one"
        assert state.scores["page"].layer == "class:kiosk"
        # And goes on with what is signed next.
        await rig.put(2, labels=KIOSK)
        await rig.until(lambda found: "own" not in found.scores and found.generation == 2)
        assert await _content(rig, "/etc/own") is None


async def test_a_look_that_finds_nothing_new_writes_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []
    written: list[object] = []
    fetch, along = Bus.fetch_gate, Database.along

    async def fetch_gate(bus: Bus, name: str) -> bytes | None:
        looks.append(name)
        return await fetch(bus, name)

    def write_along(database: Database, *statements: Any, **more: Any) -> None:
        written.extend(statements or ["nothing"])
        along(database, *statements, **more)

    async with rig.agent():
        await _begin(rig)
        await rig.until(is_so("Applied", 1))
        await rig.worked()
        monkeypatch.setattr(Bus, "fetch_gate", fetch_gate)
        monkeypatch.setattr(Database, "along", write_along)
        await hint_devices(rig.bus.admin, ["pi-1"], "kiosk")
        async with asyncio.timeout(10):
            while not looks:
                await asyncio.sleep(0.02)
        await rig.worked()
        assert written == []


async def test_too_many_scores_leave_out_the_class_and_not_the_device(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harmony_core.wire.layers.SCORES_MOST", 2)
    async with rig.agent():
        await _begin(rig, entry(Note(path="/etc/own"), "own"))
        sha256 = await rig.put_class(
            "kiosk", 2, *(entry(Note(path=f"/etc/{each}"), each) for each in "abc"), supersedes=1
        )
        more: dict[str, Any] = {"stable_generation": 1, "stable_sha256": rig.first}
        await rig.open_gate("kiosk", 2, sha256, **more)
        state = await rig.until(is_so("Refused", 2, "TooManyScores"))
        assert status(await rig.seen(1))["own"] in {"SUCCESS", "NOOP"}
        assert "a" not in state.scores


async def test_what_a_class_takes_away_at_once_is_held_like_anybody_elses(
    rig: Rig,
) -> None:
    many = tuple(f"/etc/many-{each}" for each in range(40))
    async with rig.agent():
        await rig.put(1, labels=KIOSK)
        await rig.put_index(1, classes={"kiosk": rule()})
        first = await rig.put_class("kiosk", 1, entry(Several(paths=many), "many"))
        await rig.open_gate("kiosk", 1, first, state="done")
        await rig.until(is_so("Applied", 1))
        second = await rig.put_class("kiosk", 2, supersedes=1)
        more: dict[str, Any] = {"stable_generation": 1, "stable_sha256": first}
        await rig.open_gate("kiosk", 2, second, **more)
        state = await rig.until(lambda found: found.removals_held == 40)
        assert degraded(state) == "RemovalsHeld"
        third = await rig.put_class("kiosk", 3, supersedes=2, removals_allowed=40)
        await rig.open_gate("kiosk", 3, third, stable_generation=2, stable_sha256=second)
        await rig.until(lambda found: "many" not in found.scores)
