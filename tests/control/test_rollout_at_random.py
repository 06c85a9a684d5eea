"""A rollout at random: devices that break, fall silent and come back; controllers that die, are doubled, and
decide by what is old; people who pause, resume, promote and abort at any moment."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from harmony_control.rollout.judge import Member, Progress, Stored, judge
from harmony_control.rollout.memory import Memory
from harmony_control.rollout.state import Verb, look, order
from harmony_core.errors import UsageError
from harmony_core.wire.class_manifest import PLACES, ClassManifest, Rollout, Step
from harmony_core.wire.gate import Gate

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
STEPS = (
    Step(upto="1", places=100, soak_s=60),
    Step(upto="50%", places=1000, soak_s=60),
    Step(upto="100%", places=PLACES),
)
NEW, OLD = 7, 6


@attrs.define
class _Device:
    id: str
    step: int
    slot: int
    clock: timedelta
    """How far its clock is off."""
    is_heard: bool = True
    heard_at: datetime = NOW
    breaks: bool = False
    follows: int = OLD
    begun_at: datetime | None = None
    is_back: bool = False
    was_reached: bool = False

    @property
    def at(self) -> tuple[int, int]:
        return (self.step, self.slot)

    def follow(self, gate: Gate, now: datetime) -> None:
        if not self.is_heard:
            return
        self.heard_at = now
        if gate.state == "aborted":
            self.is_back = self.follows == NEW or self.is_back
            self.follows, self.begun_at = OLD, None
        elif self.follows == OLD and _is_open(gate, self.step, self.slot):
            self.follows, self.begun_at, self.was_reached = NEW, now, True

    def member(self) -> Member:
        since = None if self.begun_at is None else self.begun_at + self.clock
        return Member(
            id=self.id,
            step=self.step,
            slot=self.slot,
            is_heard=self.is_heard,
            heard_at=self.heard_at,
            generation=self.follows,
            begun_at=since,
            waits_for="Aborted" if not (self.begun_at or self.is_back) else "",
            ready_since=None if self.breaks else since,
            is_back=self.is_back,
            failure="web: JobFailed" if self.breaks and since else "",
        )


def _is_open(gate: Gate, step: int, slot: int) -> bool:
    if gate.state == "done":
        return True
    return gate.state == "running" and (
        step < gate.step or (step == gate.step and slot <= gate.slot)
    )


class ARollout(RuleBasedStateMachine):
    """The bucket's key is `gates`: a write is refused unless it is in place of the last."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.manifest = ClassManifest(
            fleet="home",
            target="class:kiosk",
            generation=NEW,
            supersedes=OLD,
            issued_at=NOW,
            rollout=Rollout(steps=STEPS, deadline_s=600),
        )
        self.gates = [
            Gate(
                fleet="home",
                name="kiosk",
                generation=NEW,
                sha256="ab" * 32,
                stable_generation=OLD,
                stable_sha256="cd" * 32,
                state="running",
                places=100,
                term=1,
                seq=1,
                issued_at=NOW,
            )
        ]
        self.devices: list[_Device] = []
        self.memory = Memory()
        self.stale: Progress | None = None
        self.went_wrong = False
        self.was_stopped_by_hand = False

    @initialize(seed=st.integers(0, 2**32), count=st.integers(1, 30))
    def some_devices(self, seed: int, count: int) -> None:
        dice = random.Random(seed)
        off = [timedelta(), timedelta(), timedelta(seconds=3), timedelta(days=-9000)]
        self.devices = [
            _Device(
                f"pi-{at}", dice.choice([0, 1, 1, 2, 2]), dice.choice([0, 0, 1]), dice.choice(off)
            )
            for at in range(count)
        ]

    def progress(self) -> Progress:
        members = self.memory.complete(NEW, [each.member() for each in self.devices], self.now)
        gates = [Stored(each, each.issued_at) for each in self.gates]
        return judge(self.gates[-1], gates, self.manifest, members, self.now)

    def write(self, gate: Gate, before: Gate) -> None:
        if before == self.gates[-1]:
            self.gates.append(gate)

    @rule()
    def a_controller_looks(self) -> None:
        found = look(self.progress(), self.now)
        if found.next is not None:
            self.write(found.next, found.progress.gate)

    @rule()
    def a_controller_freezes(self) -> None:
        self.stale = self.progress()

    @rule()
    def a_frozen_controller_is_revived(self) -> None:
        if self.stale is not None and (gate := look(self.stale, self.now).next) is not None:
            self.write(gate, self.stale.gate)

    @rule()
    def another_controller_takes_over(self) -> None:
        self.memory = Memory()

    @rule(verb=st.sampled_from(("pause", "resume", "resume", "abort", "promote", "promote --full")))
    def a_person_wants(self, verb: Verb) -> None:
        before = self.progress()
        try:
            self.write(order(before, verb, "", self.now), before.gate)
        except UsageError:
            return
        self.was_stopped_by_hand |= verb == "abort"

    @rule(share=st.integers(0, 3))
    def devices_look(self, share: int) -> None:
        for at, each in enumerate(self.devices):
            if at % 4 >= share:
                each.follow(self.gates[-1], self.now)

    @rule(seconds=st.sampled_from((1, 30, 61, 700)))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)
        # Whoever has not begun by its deadline, for whatever reason, is unhealthy.
        self.went_wrong |= seconds == 700
        for each in self.devices:
            if each.is_heard:
                each.heard_at = self.now

    @rule(at=st.integers(0, 29))
    def a_device_falls_silent_or_is_back(self, at: int) -> None:
        if at < len(self.devices):
            self.devices[at].is_heard = not self.devices[at].is_heard
            self.went_wrong = True

    @rule(at=st.integers(0, 29))
    def a_device_breaks(self, at: int) -> None:
        if at < len(self.devices):
            self.devices[at].breaks = self.went_wrong = True

    @invariant()
    def each_gate_is_newer_and_no_wave_is_shut_or_skipped(self) -> None:
        for before, after in zip(self.gates, self.gates[1:], strict=False):
            assert after.order > before.order
            assert before.state != "aborted", "nothing comes after an abort"
            assert before.state != "done" or after.state == "aborted"
            if after.state == "running":
                assert (after.step, after.slot) >= (before.step, before.slot)
                assert after.step <= before.step + 1
            assert after.places == STEPS[after.step].places

    @invariant()
    def nobody_was_reached_whom_no_gate_let_in(self) -> None:
        for each in self.devices:
            let_in = any(_is_open(gate, each.step, each.slot) for gate in self.gates)
            assert not each.was_reached or let_in

    @invariant()
    def an_abort_is_by_a_person_or_because_something_went_wrong(self) -> None:
        if self.gates[-1].state == "aborted":
            assert self.was_stopped_by_hand or self.went_wrong

    def teardown(self) -> None:
        """All is put right: then it comes to an end, and every device that is heard to what that says."""
        for each in self.devices:
            each.breaks, each.is_heard = False, True
        for _ in range(60):
            for each in self.devices:
                each.follow(self.gates[-1], self.now)
            if self.gates[-1].state == "paused":
                self.a_person_wants_to_go_on()
            self.a_controller_looks()
            self.now += timedelta(seconds=30)
        for each in self.devices:
            each.follow(self.gates[-1], self.now)
        assert self.gates[-1].state in {"done", "aborted"}, look(self.progress(), self.now).why
        is_done = self.gates[-1].state == "done"
        assert {each.follows for each in self.devices} <= {NEW if is_done else OLD}
        reached = {each.state for each in self.progress().judged}
        assert reached <= ({"Ready"} if is_done else {"RolledBack", "NotReached"})

    def a_person_wants_to_go_on(self) -> None:
        before = self.progress()
        self.write(order(before, "resume", "", self.now), before.gate)


TestARollout = ARollout.TestCase
TestARollout.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
