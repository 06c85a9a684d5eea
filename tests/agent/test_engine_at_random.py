"""Whatever happens in whatever order: once it is quiet, the device is what its newest manifest says.

A machine of random steps: manifests, somebody else's hands, faults, kills, pulled cables, holds and time.
After each step no generation has gone back. After each run everything is mended, and then

* every Score of the newest manifest is converged, or says for good why not; nobody starves;
* what is wanted is there; what was rolled back is as it once was good;
* what nobody wants any more is as it was before us, and strangers' things are as they left them;
* and so is everything, once the last Score is gone.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

import hypothesis.strategies as st
import looptime
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from harmony_core.errors import WriteFailed
from harmony_core.outcome import Failure, Noop, Success
from harmony_core.plugins import Registry
from harmony_core.wire.actual_state import ActualState, ScoreStatus
from harmony_core.wire.audit import CHAIN_START, AuditHead, hash_event
from harmony_core.wire.envelope import generate_key
from harmony_core.wire.manifest import ScorePolicy, SerializedScore
from tests.soak import runs

from .rig import entry
from .sundries import BAD, GOOD, THINGS, Foreign, Sundry, equipped, is_bad
from .virtual import VirtualDevice

T = TypeVar("T")

IDS = ("one", "two", "three", "four")
QUIET_S = 2_000.0
names = st.sampled_from(sorted(THINGS))


@st.composite
def manifests(draw: st.DrawFn) -> list[SerializedScore]:
    """Up to four Scores; some want the same, alike or otherwise; some wait for others; some are bad."""
    entries: list[SerializedScore] = []
    for score_id in draw(st.lists(st.sampled_from(IDS), unique=True)):
        wanted = draw(st.lists(names, unique=True, max_size=5))
        score = Sundry(names=tuple(wanted), colour=draw(st.sampled_from([*GOOD, *GOOD, BAD])))
        before = [each.id for each in entries]
        after = draw(st.lists(st.sampled_from(before), unique=True)) if before else []
        policy = ScorePolicy(
            drift=draw(st.sampled_from(["enforce", "report"])),
            on_failure=draw(st.sampled_from(["keep", "rollback"])),
            deadline_s=30,
        )
        entries.append(entry(score, score_id, after=tuple(after), policy=policy))
    return entries


class Engine(RuleBasedStateMachine):
    """One device, and everything that can happen to it."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = looptime.new_event_loop()
        self.root = Path(tempfile.mkdtemp())
        self.pi = self.do(equipped())
        self.foreign = self.do(Foreign().identities(self.pi))
        self.before = self.found()
        self.entries: list[SerializedScore] = []
        self.pushed: defaultdict[str, list[SerializedScore]] = defaultdict(list)
        """All that each Score ever was."""
        self.referenced: set[str] = set()
        """What somebody else ever had hands on."""
        self.reports: list[ActualState] = []
        """What was told since the last step."""
        self.heads: dict[int, AuditHead] = {}
        """How its chain of events went, by number, as all its reports have told."""
        self.generation = 0
        self.observed: dict[str, int] = {}
        self.device = VirtualDevice(self.root, generate_key(), Registry([Sundry]), self.pi.offers)
        self.device.bus.on_told = self.reports.append
        self.do(self.device.start())

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Whatever happens, happens while the agent's loop runs."""
        return self.loop.run_until_complete(work)

    def found(self) -> Mapping[str, object]:
        return {name: self.do(thing.found(self.pi)) for name, thing in THINGS.items()}

    @initialize(entries=manifests())
    def begins_with(self, entries: list[SerializedScore]) -> None:
        self.pushes(entries, 0)

    @rule(entries=manifests(), allowed=st.sampled_from([0, 100]))
    def pushes(self, entries: list[SerializedScore], allowed: int) -> None:
        self.entries = entries
        for each in entries:
            self.pushed[each.id].append(each)
        self.device.push(entries, removals_allowed=allowed)

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.3, 2.0, 40.0, 700.0]))
    def time_passes(self, seconds: float) -> None:
        self.do(self.pi.systemd.pass_time(seconds))
        self.do(self.pi.containers.pass_time(seconds))
        self.do(asyncio.sleep(seconds))

    @rule(name=names, data=st.data())
    def somebody_meddles(self, name: str, data: st.DataObject) -> None:
        self.referenced.add(name)
        deed = data.draw(st.sampled_from(list(THINGS[name].deeds)))
        self.do(THINGS[name].meddle(self.pi, deed))

    @rule(name=names)
    def breaks(self, name: str) -> None:
        THINGS[name].breaks(self.pi, WriteFailed("the disk is tired; wait"))

    @rule()
    def is_mended(self) -> None:
        for each in (self.pi.files, self.pi.systemd, self.pi.containers):
            each.faults.clear()

    @rule()
    def is_killed(self) -> None:
        self.do(self.device.kill())
        self.do(self.device.start())

    @rule()
    def cable_is_pulled(self) -> None:
        self.device.bus.pull_cable()

    @rule()
    def cable_is_put_back(self) -> None:
        self.do(self._plug_in())

    async def _plug_in(self) -> None:
        self.device.bus.plug_in()

    @invariant()
    def no_generation_goes_back(self) -> None:
        for state in self.reports:
            assert self.generation <= state.generation <= self.device.generation
            assert state.observed_generation <= state.generation
            for name, page in state.scores.items():
                assert self.observed.get(name, 0) <= page.observed_generation <= state.generation
            assert state.audit is not None
            head = self.heads.setdefault(state.audit.seq, state.audit)
            assert head == state.audit
            assert head.seq == max(self.heads), "what was told of can be forgotten"
            self.generation = state.generation
            self.observed = {name: page.observed_generation for name, page in state.scores.items()}
        self.reports.clear()

    def teardown(self) -> None:
        try:
            self.comes_to_rest(self.entries)
            self.comes_to_rest([])
        finally:
            self.do(self.device.kill())
            self.do(self.loop.shutdown_asyncgens())
            self.loop.close()
            self.device.close()
            shutil.rmtree(self.root)

    def comes_to_rest(self, entries: list[SerializedScore]) -> None:
        self.is_mended()
        self.cable_is_put_back()
        # Leave for what is held, and to put right what was only to be told of.
        self.pushes([enforced(each) for each in entries], 100)
        self.time_passes(QUIET_S)
        self.time_passes(
            QUIET_S
        )  # a hold counts from when it was first seen, which may be only now
        assert self.device.is_running
        self.no_generation_goes_back()
        state = self.device.bus.told
        assert state is not None
        assert state.generation == state.observed_generation == self.device.generation
        assert set(state.scores) == {each.id for each in entries}
        self.all_is_as_wished(self.refused_of(state.scores), state.scores)
        assert self.do(Foreign().identities(self.pi)) == self.foreign
        self.its_record_is_that_of_which_it_has_told(state.audit)

    def its_record_is_that_of_which_it_has_told(self, newest: AuditHead | None) -> None:
        head = AuditHead(seq=0, head=CHAIN_START)
        for seq, text, prior in self.device.mark_stored("SELECT seq, json, prior FROM event"):
            assert prior.hex() == head.head
            head = AuditHead(seq=seq, head=hash_event(prior.hex(), text.encode()))
            assert self.heads.get(seq, head) == head
        assert head == newest, "a change that no report has told of"

    def refused_of(self, pages: Mapping[str, ScoreStatus]) -> set[str]:
        """Who does not converge is bad, or has lost against another, or waits for one that has not either."""
        refused: set[str] = set()
        waiting: dict[str, set[str]] = {}
        for each in self.entries:
            outcome = pages[each.id].outcome
            if isinstance(outcome, Success | Noop):
                assert not is_bad_entry(each), each
            elif isinstance(outcome, Failure):
                refused.add(each.id)
                assert outcome.error.code in rightly_said_of(each), outcome
            else:
                assert outcome.reason == "Blocked", outcome
                waiting[each.id] = {name for name in IDS if name in outcome.message}
        # Nobody waits for nobody, or in a circle.
        while freed := {name for name, others in waiting.items() if others & refused}:
            refused |= freed
            waiting = {name: others for name, others in waiting.items() if name not in freed}
        assert not waiting, pages
        return refused

    def all_is_as_wished(self, refused: set[str], pages: Mapping[str, ScoreStatus]) -> None:
        found = self.found()
        wanted = {
            name: each.spec["colour"]
            for each in self.entries
            if each.id not in refused
            for name in each.spec["names"]
        }
        # Who is refused or waits keeps what it had: only what is settled is collected.
        kept = {n for each in refused for past in self.pushed[each] for n in past.spec["names"]}
        for name, thing in THINGS.items():
            if name in wanted:
                assert found[name] == thing.resolve_desired(wanted[name]), name
            elif name not in kept and name not in self.referenced:
                assert found[name] == self.before[name], f"{name} is nobody's"
            elif name not in kept:
                ours = [thing.resolve_desired(colour) for colour in (*GOOD, BAD)]
                assert found[name] not in ours, f"{name} is nobody's, and still ours"
        for each in refused:
            if "is effective again" in said(pages[each]):
                assert any(is_as(past, found) for past in self.pushed[each])


def enforced(each: SerializedScore) -> SerializedScore:
    return each.model_copy(update={"policy": each.policy.model_copy(update={"drift": "enforce"})})


def rightly_said_of(each: SerializedScore) -> set[str]:
    """The errors that it may be left with for good, all being mended."""
    # Who may go back had until its deadline, also while something was broken, or another's.
    back = {"RolledBack"} if each.policy.on_failure == "rollback" else set[str]()
    bad = {"UnitFailed", "ContainerFailed"} if is_bad_entry(each) else set[str]()
    return {"OwnershipConflict", *back, *bad}


def is_bad_entry(each: SerializedScore) -> bool:
    return any(is_bad(name, each.spec["colour"]) for name in each.spec["names"])


def is_as(each: SerializedScore, found: Mapping[str, object]) -> bool:
    """Whether everything is as this good Score wants it."""
    colour = each.spec["colour"]
    return not is_bad_entry(each) and all(
        found[name] == THINGS[name].resolve_desired(colour) for name in each.spec["names"]
    )


def said(page: ScoreStatus) -> str:
    return page.outcome.error.message if isinstance(page.outcome, Failure) else ""


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_whatever_happens_it_comes_to_rest_as_its_newest_manifest_says() -> None:
    run_state_machine_as_test(
        Engine,
        settings=settings(
            max_examples=runs(500, part=20),
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
