"""What a rollout does next: every verb in every state, who counts as what, and fleets at random."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harmony_control.fleet import Seen
from harmony_control.rollout.judge import Member, Progress, Stored, judge
from harmony_control.rollout.members import Members
from harmony_control.rollout.memory import Memory
from harmony_control.rollout.publish import steps_of
from harmony_control.rollout.state import Verb, look, order
from harmony_core.errors import UsageError
from harmony_core.wire.actual_state import ActualState, LayerStatus
from harmony_core.wire.admission import find_place
from harmony_core.wire.class_manifest import PLACES, ClassManifest, Rollout, Step
from harmony_core.wire.fleet_index import ClassRule, Selected
from harmony_core.wire.gate import Gate, GateState, parse_gate

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
STEPS = (
    Step(upto="1", places=100, soak_s=60),
    Step(upto="50%", places=1000, soak_s=60),
    Step(upto="100%", places=PLACES),
)


def manifest(**changes: Any) -> ClassManifest:
    settings: dict[str, Any] = {"steps": STEPS, "deadline_s": 600, **changes}
    return ClassManifest(
        fleet="home",
        target="class:kiosk",
        generation=7,
        supersedes=6,
        issued_at=NOW,
        rollout=Rollout(**settings),
    )


def gate(state: GateState = "running", **changes: Any) -> Gate:
    fields: dict[str, Any] = {
        "fleet": "home",
        "name": "kiosk",
        "generation": 7,
        "sha256": "ab" * 32,
        "stable_generation": 6,
        "stable_sha256": "cd" * 32,
        "state": state,
        "places": 100,
        "term": 1,
        "seq": 1,
        "issued_at": NOW,
        **changes,
    }
    return Gate(**fields)


def member(name: str = "pi-1", step: int = 0, **changes: Any) -> Member:
    fields: dict[str, Any] = {
        "id": name,
        "step": step,
        "is_heard": True,
        "heard_at": NOW,
        **changes,
    }
    return Member(**fields)


def ready(name: str = "pi-1", step: int = 0, *, at: datetime = NOW, **changes: Any) -> Member:
    fields = {"begun_at": at, "ready_since": at, **changes}
    return member(name, step, generation=7, **fields)


SOAKED = NOW + timedelta(seconds=60)


def progress(
    members: Sequence[Member], at: Gate | None = None, now: datetime = NOW, **changes: Any
) -> Progress:
    at = at or gate()
    return judge(at, stored(at), manifest(**changes), members, now)


def stored(*gates: Gate) -> list[Stored]:
    """As a server does whose clock is that of who wrote them."""
    return [Stored(each, each.issued_at) for each in gates]


@pytest.mark.parametrize(
    ("state", "found", "is_unaware"),
    [
        ("running", member(), True),
        ("running", member(gate=(1, 1)), False),
        ("running", member(waits_for="SlotNotOpen"), True),
        ("running", member(waits_for="OutsideWindow", gate=(1, 1)), False),
        ("running", member(waits_for="OutsideWindow"), True),
        ("running", member(step=1), False),
        ("running", member(begun_at=NOW), False),
        ("running", ready(), False),
        ("running", member(is_heard=False, heard_at=None), False),
        ("aborted", member(begun_at=NOW), True),
        ("aborted", ready(), True),
        ("aborted", ready(gate=(1, 1)), False),
        ("aborted", member(is_back=True, gate=(1, 1)), False),
    ],
)
def test_who_has_not_heard_of_the_gate_is_told_again(
    state: GateState, found: Member, *, is_unaware: bool
) -> None:
    told = progress([found], gate(state)).find_unaware()
    assert told == ["pi-1"] * is_unaware


def test_what_a_device_waited_for_before_it_heard_of_this_generation_counts_for_nothing() -> None:
    layer = LayerStatus(
        generation=6,
        observed_generation=6,
        wanted=6,
        gate=(1, 9),
        phase="Waiting",
        reason="OutsideWindow",
        message="",
        since="2026-03-01T12:00:00.000Z",
    )
    rule = ClassRule(selectors=(Selected(since=1, selector=""),), priority=0)
    for wanted, waits_for in ((6, ""), (7, "OutsideWindow")):
        said = ActualState(
            agent_id="pi-1",
            agent_version="",
            boot_id="",
            generation=0,
            observed_generation=0,
            layers={"class:kiosk": attrs.evolve(layer, wanted=wanted)},
        )
        seen = Seen(agent_id="pi-1", presence="Heard", at=NOW, state=said)
        (found,) = Members().find("home", [seen], rule, manifest())
        assert (found.waits_for, found.gate == (1, 9)) == (waits_for, wanted == 7)


ORDERS: list[tuple[GateState, Verb, tuple[str, int] | None]] = [
    ("running", "pause", ("paused", 0)),
    ("running", "resume", None),
    ("running", "abort", ("aborted", 0)),
    ("running", "promote", ("running", 1)),
    ("running", "promote --full", ("done", 2)),
    ("paused", "pause", None),
    ("paused", "resume", ("running", 0)),
    ("paused", "abort", ("aborted", 0)),
    ("paused", "promote", ("running", 1)),
    ("paused", "promote --full", ("done", 2)),
    ("aborted", "pause", None),
    ("aborted", "resume", None),
    ("aborted", "abort", None),
    ("aborted", "promote", None),
    ("aborted", "promote --full", None),
    ("done", "pause", None),
    ("done", "resume", None),
    ("done", "abort", ("aborted", 0)),
    ("done", "promote", None),
    ("done", "promote --full", None),
]


@pytest.mark.parametrize(("state", "verb", "expected"), ORDERS)
def test_every_verb_in_every_state(
    state: GateState, verb: Verb, expected: tuple[str, int] | None
) -> None:
    before = progress([member()], gate(state))
    if expected is None:
        with pytest.raises(UsageError, match=f"cannot {verb} the rollout of kiosk"):
            order(before, verb, "", NOW)
        return
    after = order(before, verb, "because", NOW + timedelta(seconds=1))
    assert (after.state, after.step) == expected
    assert after.order > before.gate.order
    assert "because" in after.reason
    assert (after.sha256, after.stable_sha256) == (before.gate.sha256, before.gate.stable_sha256)
    assert after.places == STEPS[after.step].places


def test_the_table_of_verbs_is_whole() -> None:
    rows = {(state, verb) for state, verb, _ in ORDERS}
    assert rows == {(s, v) for s in get_args(GateState) for v in get_args(Verb)}


AGO = NOW - timedelta(hours=1)
LONG_AGO = NOW - timedelta(seconds=91)


@pytest.mark.parametrize(
    ("found", "after_s", "state"),
    [
        (member(step=1), 0, "NotReached"),
        (member(slot=1), 0, "NotReached"),
        (member(), 0, "Progressing"),
        (member(gate=(1, 1)), 601, "Unhealthy"),
        (member(heard_seen_at=NOW), 601, "Unhealthy"),
        # It has not said that it has the gate, and may have come back just now.
        (member(), 601, "Progressing"),
        (member(heard_seen_at=NOW + timedelta(seconds=500)), 601, "Progressing"),
        (ready(), 601, "Ready"),
        (member(failure="web: JobFailed"), 0, "Unhealthy"),
        # Its own Scores are in order, and its wave is not: it has not begun.
        (member(generation=6, gate=(1, 1)), 601, "Unhealthy"),
        # Silent since its wave was opened: it may be bricked.
        (ready(is_heard=False), 100, "Unhealthy"),
        (member(is_heard=False), 100, "Unhealthy"),
        # Away before: nobody learns anything of it.
        (member(is_heard=False, heard_at=AGO), 100, "Away"),
        (member(is_heard=False, heard_at=None), 9999, "Away"),
        # Its last word counts still, for it said that the next would be long in coming. Who is there says so
        # as soon as it sees the gate.
        (member(heard_at=LONG_AGO), 90, "Progressing"),
        (member(heard_at=LONG_AGO), 91, "Away"),
        (member(heard_at=LONG_AGO), 9999, "Away"),
        (member(heard_at=LONG_AGO, gate=(1, 1), heard_seen_at=NOW), 100, "Progressing"),
        (member(heard_at=LONG_AGO, gate=(1, 1), heard_seen_at=NOW), 601, "Unhealthy"),
        (ready(heard_at=LONG_AGO), 100, "Ready"),
        (member(heard_at=NOW + timedelta(seconds=400), heard_seen_at=AGO), 401, "Progressing"),
        # Its last word has ended since, and was from before.
        (member(is_heard=False, heard_at=LONG_AGO), 1000, "Away"),
        # Whoever looks has not reached the server for long: it may be there.
        (ready(is_heard=False, may_be_there=True), 100, "Progressing"),
        (member(is_heard=False, may_be_there=True, heard_at=AGO), 100, "Progressing"),
        (member(is_heard=False, may_be_there=True, heard_at=None), 100, "Away"),
        # It waits for its window, however long; then it has its time.
        (member(waits_for="OutsideWindow"), 9999, "Waiting"),
        (member(waits_for="SlotInvalid"), 9999, "Waiting"),
        (member(begun_at=NOW + timedelta(seconds=9000)), 9500, "Progressing"),
        (member(begun_at=NOW + timedelta(seconds=9000)), 9601, "Unhealthy"),
    ],
)
def test_each_member_is_judged_by_what_was_seen_of_it(
    found: Member, after_s: int, state: str
) -> None:
    now = NOW + timedelta(seconds=after_s)
    (judged,) = progress([found], now=now).judged
    assert judged.state == state
    assert bool(judged.reason) or state in {"NotReached", "Ready", "Progressing"}


def test_who_is_late_says_what_has_failed_there() -> None:
    late = member(gate=(1, 1), trouble="web: NotReadyInTime: port 8080 is refused")
    (judged,) = progress([late], now=NOW + timedelta(seconds=601)).judged
    assert judged.reason.endswith("; web: NotReadyInTime: port 8080 is refused")
    (judged,) = progress([late], now=NOW + timedelta(seconds=599)).judged
    assert judged.state == "Progressing"


def test_a_wave_goes_on_when_enough_of_it_have_soaked() -> None:
    early = SOAKED - timedelta(seconds=1)
    fresh = look(progress([ready(), member("pi-2", 1)], now=early), early)
    assert fresh.next is None
    assert "soak until" in fresh.why
    after = look(progress([ready(), member("pi-2", 1)], now=SOAKED), SOAKED).next
    assert after is not None
    assert (after.state, after.step, after.places) == ("running", 1, 1000)


def test_who_comes_back_late_does_not_have_the_others_soak_again() -> None:
    soaked = [ready(f"pi-{each}") for each in range(19)]
    late = ready("late", at=SOAKED - timedelta(seconds=5))
    after = look(progress([*soaked, late, member("other", 1)], now=SOAKED), SOAKED).next
    assert after is not None
    assert after.step == 1
    # 18 of 20 are not 95 %.
    held = look(progress([*soaked[1:], late, attrs.evolve(late, id="later")], now=SOAKED), SOAKED)
    assert held.next is None
    assert "soak until 2026-03-01 12:01:55" in held.why


def test_a_wave_ends_without_who_never_starts() -> None:
    """Else one label would keep a class from everybody, whoever may set it."""
    slotless = member("x", waits_for="SlotInvalid", gate=(1, 1))
    after = look(progress([ready(), slotless, member("pi-2", 1)], now=SOAKED), SOAKED).next
    assert after is not None
    assert (after.state, after.step) == ("running", 1)
    late = SOAKED + timedelta(days=1)
    for reason in ("OutsideWindow", "Frozen"):
        waits = attrs.evolve(slotless, waits_for=reason)
        assert look(progress([ready(), waits, member("pi-2", 1)], now=late), late).next is None
    # It makes no wave better than it is.
    broken = member("bad", failure="web: JobFailed")
    many = [attrs.evolve(slotless, id=f"x-{each}") for each in range(99)]
    stopped = look(progress([broken, *many]), NOW).next
    assert stopped is not None
    assert stopped.state == "aborted"


def test_a_wave_of_nobody_else_opens_no_other_wave_but_its_next_slot_and_the_end() -> None:
    slotless = member("x", waits_for="SlotInvalid", gate=(1, 1))
    held = look(progress([slotless, member("pi-2", 1)], now=SOAKED), SOAKED)
    assert held.next is None
    assert "x, as all that were heard, has a label slot that is no number" in held.why
    assert held.why.endswith("harmony rollout promote kiosk")
    after = look(progress([slotless, member("b", slot=1)], now=SOAKED), SOAKED).next
    assert after is not None
    assert (after.step, after.slot) == (0, 1)
    last = attrs.evolve(slotless, step=2)
    end = look(progress([last], gate(step=2, places=PLACES), now=SOAKED), SOAKED).next
    assert end is not None
    assert end.state == "done"


@pytest.mark.parametrize("percent", range(1, 101))
def test_exactly_as_many_as_are_to_be_ready_are_enough(percent: int) -> None:
    waits = [member(f"waits-{each}", waits_for="OutsideWindow") for each in range(100 - percent)]
    done = [ready(f"pi-{each}") for each in range(percent)]
    enough = progress([*done, *waits], now=SOAKED, success_percent=percent)
    assert look(enough, SOAKED).next is not None
    more = member("more", waits_for="OutsideWindow")
    short = progress([*done[1:], *waits, more], now=SOAKED, success_percent=percent)
    assert look(short, SOAKED).next is None


def test_silence_is_told_by_the_clock_that_says_when_a_device_was_heard() -> None:
    """Who writes gates may have a clock that is an hour ahead: no device is away by that."""
    at = gate(issued_at=NOW + timedelta(hours=1))
    lost = member(is_heard=False, heard_at=NOW + timedelta(seconds=30))
    off = member("off", is_heard=False, heard_at=AGO)
    now = at.issued_at + timedelta(seconds=300)
    found = judge(at, [Stored(at, NOW)], manifest(), [lost, off], now).judged
    assert [each.state for each in found] == ["Unhealthy", "Away"]


@pytest.mark.parametrize("oldest", ["running", "paused"])
def test_who_fell_silent_is_no_less_so_when_its_gate_is_kept_no_more(oldest: GateState) -> None:
    """A server keeps 64 gates: less than a wave of many slots may have."""
    week = NOW + timedelta(days=7)
    last = gate(oldest, seq=90, step=1, slot=5, places=1000, issued_at=week)
    lost = member(is_heard=False, heard_at=NOW + timedelta(minutes=5))
    off = member("off", is_heard=False, heard_at=AGO)
    later = member("later", 1, slot=6)
    found = judge(last, stored(last), manifest(), [lost, off, later], week).judged
    assert [each.state for each in found] == ["Unhealthy", "Away", "NotReached"]


def test_slots_of_a_wave_come_one_after_the_other() -> None:
    members = [ready("a"), member("b", slot=3), member("c", slot=7), member("d", 1)]
    after = look(progress(members, now=SOAKED), SOAKED).next
    assert after is not None
    assert (after.step, after.slot) == (0, 3)


@pytest.mark.parametrize(
    ("first", "at_95", "at_100"),
    [
        (ready("a-0"), (1, "running"), (1, "running")),
        (member("a-0", failure="web: JobFailed"), (1, "running"), (0, "aborted")),
        (member("a-0", waits_for="OutsideWindow"), (1, "running"), (0, "running")),
        (member("a-0", gate=(1, 1)), (1, "running"), (0, "running")),
        (member("a-0", is_heard=False, heard_at=None), (1, "running"), (1, "running")),
    ],
)
def test_the_next_slot_asks_for_as_many_as_the_next_wave(
    first: Member, at_95: tuple[int, str], at_100: tuple[int, str]
) -> None:
    halves = [ready(f"a-{each}") for each in range(1, 20)]
    others = [member(f"b-{each}", slot=1) for each in range(20)]
    for percent, expected in ((95.0, at_95), (100.0, at_100)):
        found = progress([first, *halves, *others], now=SOAKED, success_percent=percent)
        after = look(found, SOAKED).next or found.gate
        assert (after.slot, after.state) == expected


def test_an_empty_wave_is_over_at_once_and_the_last_one_is_the_end() -> None:
    after = look(progress([member("pi-2", 2)], gate(step=1, places=1000)), NOW).next
    assert after is not None
    assert after.step == 2
    end = look(progress([ready()], gate(step=2, places=PLACES)), NOW).next
    assert end is not None
    assert (end.state, end.places) == ("done", PLACES)


def test_too_few_that_were_heard_hold_a_wave() -> None:
    away = [member(f"pi-{each}", is_heard=False, heard_at=AGO) for each in range(3)]
    found = look(progress([ready(), *away]), NOW)
    assert found.next is None
    assert "1 of 4 devices were heard" in found.why


@pytest.mark.parametrize(
    ("bad", "good", "others", "on_stop", "state"),
    [
        (1, 0, 99, "rollback", "aborted"),  # a single canary
        (1, 19, 80, "rollback", None),  # 5 % of its wave, 1 of all
        (2, 18, 80, "rollback", "aborted"),  # less than 95 % of its wave can be well
        (3, 97, 0, "rollback", "aborted"),  # more than 2 % of all
        (2, 98, 0, "rollback", None),
        (1, 0, 99, "stay", "paused"),
    ],
)
def test_what_goes_wrong_stops_it_once(
    bad: int, good: int, others: int, on_stop: str, state: str | None
) -> None:
    members = [
        *(member(f"bad-{each}", failure="web: JobFailed") for each in range(bad)),
        *(ready(f"good-{each}") for each in range(good)),
        *(member(f"other-{each}", 1) for each in range(others)),
    ]
    before = progress(members, on_stop=on_stop)
    found = look(before, NOW)
    if state is None:
        assert found.next is None or found.next.state == "running"
        return
    assert found.next is not None
    assert found.next.state == state
    assert "bad-0 (web: JobFailed)" in found.next.reason
    assert (
        look(judge(found.next, stored(before.gate, found.next), manifest(), members, NOW), NOW).next
        is None
    )


@pytest.mark.parametrize(
    ("found", "after_s", "state"),
    [
        (ready(), 30, "Progressing"),
        (ready(gate=(1, 5)), 601, "Unhealthy"),
        (ready(heard_seen_at=NOW), 601, "Unhealthy"),
        (ready(), 601, "Progressing"),
        (ready(is_back=True), 601, "RolledBack"),
        (member(waits_for="Aborted", generation=6), 601, "NotReached"),
        (member(step=1), 601, "NotReached"),
        (ready(is_heard=False), 601, "Unhealthy"),
        (ready(is_heard=False, may_be_there=True), 601, "Progressing"),
        (member(is_heard=False, heard_at=AGO), 601, "Away"),
        (ready(back_at=NOW + timedelta(seconds=500), gate=(1, 5)), 601, "Progressing"),
    ],
)
def test_after_an_abort_who_is_back_is_who_was_seen_to_be(
    found: Member, after_s: int, state: str
) -> None:
    aborted = gate("aborted", seq=5)
    now = NOW + timedelta(seconds=after_s)
    (judged,) = judge(aborted, stored(gate(), aborted), manifest(), [found], now).judged
    assert judged.state == state


def test_who_comes_back_after_the_deadline_has_its_time_from_then() -> None:
    late, back = NOW + timedelta(seconds=5000), NOW + timedelta(seconds=4990)
    later = back + timedelta(seconds=601)
    for found in (member(back_at=back, gate=(1, 1)), member(back_at=back, heard_seen_at=back)):
        assert progress([found], now=late).judged[0].state == "Progressing"
        assert progress([found], now=later).judged[0].state == "Unhealthy"


@pytest.mark.parametrize("clock", [timedelta(days=-20_000), timedelta(days=20_000)])
def test_a_clock_that_cannot_be_neither_cuts_the_soak_short_nor_draws_it_out(
    clock: timedelta,
) -> None:
    found = ready(at=NOW + clock, begun_seen_at=NOW, ready_seen_at=NOW + timedelta(seconds=10))
    for after_s, step in ((69, None), (70, 1)):
        now = NOW + timedelta(seconds=after_s)
        after = look(progress([found, member("pi-2", 1)], now=now), now).next
        assert (after.step if after else None) == step


def test_a_clock_that_is_ahead_does_not_draw_the_deadline_out() -> None:
    now = NOW + timedelta(seconds=601)
    found = member(begun_at=NOW + timedelta(days=900), begun_seen_at=NOW)
    assert progress([found], now=now).judged[0].state == "Unhealthy"


@pytest.mark.parametrize("behind", [timedelta(minutes=11), timedelta(days=900)])
def test_a_clock_that_is_behind_does_not_cut_the_deadline_short_for_who_comes_back(
    behind: timedelta,
) -> None:
    memory, back = Memory(), NOW + timedelta(hours=2)
    memory.complete(7, [member(is_heard=False, heard_at=AGO)], back - timedelta(seconds=10))
    found = member(begun_at=back + timedelta(seconds=5) - behind, gate=(1, 1))
    for heard, after_s, state in (
        (member(), 0, "Progressing"),
        (found, 10, "Progressing"),
        (found, 600, "Progressing"),
        (found, 611, "Unhealthy"),
    ):
        now = back + timedelta(seconds=after_s)
        seen = memory.complete(7, [heard], now)
        assert progress(seen, now=now).judged[0].state == state


def test_who_begins_before_its_wave_was_opened_by_its_own_clock_has_begun_when_that_was_seen() -> (
    None
):
    """It waited for its window, which opened by its own clock an hour later."""
    seen_at = NOW + timedelta(hours=1)
    found = member(begun_at=NOW - timedelta(seconds=1), begun_seen_at=seen_at, gate=(1, 1))
    assert progress([found], now=seen_at + timedelta(seconds=599)).judged[0].state == "Progressing"
    assert progress([found], now=seen_at + timedelta(seconds=601)).judged[0].state == "Unhealthy"


def test_who_was_switched_off_before_its_word_was_over_stops_no_wave() -> None:
    """As a device whose heartbeats count for half an hour."""
    off = member("pi-9", heard_at=LONG_AGO, heard_seen_at=LONG_AGO)
    for after_s in (0, 90, 91, 601, 1_709, 1_800):
        now = NOW + timedelta(seconds=after_s)
        there = attrs.evolve(off, is_heard=after_s < 1_709)
        found = progress([there, ready(heard_at=now), member("pi-2", 1, heard_at=now)], now=now)
        after = look(found, now).next
        assert after is None or (after.state, after.step) == ("running", 1), after_s
        assert (after is None) == (after_s <= 90), after_s


def test_who_was_not_heard_for_long_has_its_time_from_when_it_was_heard_again() -> None:
    memory, back = Memory(), NOW + timedelta(seconds=590)
    for heard_at, after_s, state in (
        (LONG_AGO, 10, "Progressing"),
        (LONG_AGO, 100, "Away"),
        (back, 590, "Progressing"),
        (back, 1_189, "Progressing"),
        (back + timedelta(seconds=60), 1_191, "Unhealthy"),
    ):
        now = NOW + timedelta(seconds=after_s)
        seen = memory.complete(7, [member(heard_at=heard_at)], now)
        assert progress(seen, now=now).judged[0].state == state, after_s


def test_a_controller_remembers_what_it_saw_and_of_one_generation() -> None:
    def at(after_s: int) -> datetime:
        return NOW + timedelta(seconds=after_s)

    memory = Memory()
    (first,) = memory.complete(7, [ready()], at(0))
    assert (first.begun_seen_at, first.ready_seen_at, first.back_at) == (at(0), at(0), None)
    (silent,) = memory.complete(7, [ready(is_heard=False)], at(1))
    assert (silent.ready_seen_at, silent.heard_seen_at) == (at(0), None)
    (back,) = memory.complete(7, [member()], at(2))
    assert (back.back_at, back.heard_seen_at, back.ready_seen_at) == (at(2), at(2), None)
    (again,) = memory.complete(7, [ready()], at(3))
    assert (again.back_at, again.heard_seen_at, again.ready_seen_at) == (at(2), at(2), at(3))
    (other,) = memory.complete(8, [ready()], at(4))
    assert (other.back_at, other.ready_seen_at) == (None, at(4))


@pytest.mark.parametrize("failure", ["two\nlines\x1b[31m", "x" * 5000, "\u2028\x00"])
def test_no_words_of_a_device_keep_an_abort_from_being_written(failure: str) -> None:
    found = look(progress([member(failure=failure), member("pi-2", 1)]), NOW)
    assert found.next is not None
    assert found.next.state == "aborted"
    assert parse_gate(found.next.payload(), fleet="home", name="kiosk") == found.next


@pytest.mark.parametrize("reason", ["two\nlines", "x" * 301])
def test_a_reason_that_does_not_fit_is_refused(reason: str) -> None:
    with pytest.raises(UsageError, match="a reason is one line of at most 300 characters"):
        order(progress([member()]), "pause", reason, NOW)


@pytest.mark.parametrize("count", [1, 2, 20, 100, 1000])
def test_waves_have_exactly_as_many_as_they_should(count: int) -> None:
    ids = [f"pi-{each}" for each in range(count)]
    for generation in range(1, 30):
        steps = steps_of("home", "kiosk", generation, ids, [("1%", 60), ("10%", 0)])
        places = [find_place("home", "kiosk", generation, each) for each in ids]
        sizes = [sum(place < step.places for place in places) for step in steps]
        assert sizes == [max(1, round(count / 100)), max(1, round(count / 10)), count]


@pytest.mark.parametrize("text", ["", "x", "-1", "101%", "nan%", "inf%", "1.5", "%"])
def test_what_is_no_wave_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no wave"):
        steps_of("home", "kiosk", 1, ["pi-1"], [(text, 0)])


def test_waves_must_grow() -> None:
    with pytest.raises(UsageError, match="as many devices as the one before"):
        steps_of("home", "kiosk", 1, [f"pi-{each}" for each in range(100)], [("50", 0), ("10", 0)])


@attrs.define
class _Simulated:
    """A device that follows gates, and what becomes of it."""

    member: Member
    breaks: bool
    falls_silent: bool

    def follow(self, at: Gate, now: datetime) -> None:
        is_open = at.state == "done" or (
            at.state == "running" and (self.member.step, self.member.slot) <= (at.step, at.slot)
        )
        if at.state == "aborted":
            self.member = attrs.evolve(
                self.member, generation=6, begun_at=None, ready_since=None, failure=""
            )
        elif is_open and self.member.is_heard and self.member.begun_at is None:
            self.member = attrs.evolve(
                self.member,
                generation=7,
                begun_at=now,
                ready_since=None if self.breaks else now,
                failure="web: JobFailed" if self.breaks else "",
                is_heard=not self.falls_silent,
            )
        if self.member.is_heard:
            self.member = attrs.evolve(self.member, heard_at=now)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    devices=st.integers(1, 60),
    bad_percent=st.sampled_from([0, 0, 3, 20]),
)
def test_any_fleet_ends_done_or_aborted_and_each_wave_is_opened_once(  # noqa: C901 - a whole rollout
    seed: int, devices: int, bad_percent: int
) -> None:
    dice = random.Random(seed)
    fleet = [
        _Simulated(
            member(
                f"pi-{each}",
                dice.choice([0, 1, 1, 2, 2, 2]),
                slot=dice.choice([0, 0, 1]),
                is_heard=dice.random() > 0.1,
                heard_at=AGO,
            ),
            breaks=dice.random() * 100 < bad_percent,
            falls_silent=dice.random() * 200 < bad_percent,
        )
        for each in range(devices)
    ]
    for each in fleet:
        if each.member.is_heard:
            each.member = attrs.evolve(each.member, heard_at=NOW)
    now, gates, why = NOW, [gate()], ""
    for _ in range(400):
        for each in fleet:
            each.follow(gates[-1], now)
        found = look(
            judge(gates[-1], stored(*gates), manifest(), [each.member for each in fleet], now), now
        )
        why = found.why
        if found.next is not None:
            # Whoever asks with the same knowledge gets the same answer: a second controller, too.
            again = look(
                judge(gates[-1], stored(*gates), manifest(), [each.member for each in fleet], now),
                now,
            )
            assert again.next == found.next
            assert found.next.order > gates[-1].order
            gates.append(found.next)
        elif gates[-1].state in {"done", "aborted"}:
            break
        now += timedelta(seconds=30)
        for each in fleet:
            # Who was away comes back some time.
            is_lost = each.falls_silent and each.member.begun_at is not None
            if not each.member.is_heard and not is_lost and dice.random() < 0.2:
                each.member = attrs.evolve(each.member, is_heard=True, heard_at=now)
    assert gates[-1].state in {"done", "aborted"}, why
    opened = [(each.step, each.slot) for each in gates if each.state == "running"]
    assert opened == sorted(set(opened))
    if not any(each.breaks or each.falls_silent for each in fleet):
        assert gates[-1].state == "done"
    if gates[-1].state == "aborted":
        reached = max(opened)
        for each in fleet:
            each.follow(gates[-1], now)
            assert each.member.begun_at is None
            if (each.member.step, each.member.slot) > reached:
                assert each.member.generation in {0, 6}
