"""Whatever happens in whatever order: once it is quiet, the device is what its newest manifest says.

A machine of random steps: manifests, somebody else's hands, faults, kills, pulled cables and time. After each
run everything is mended, and then

* every Score of the newest manifest is converged, or says for good why not;
* what is wanted is there, what is not wanted any more is gone, and strangers' things are as they left them;
* nobody starves, and no generation goes back.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import hypothesis.strategies as st
import looptime
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from harmony_core import File
from harmony_core.change import Change
from harmony_core.envelope import generate_key
from harmony_core.errors import WriteFailed
from harmony_core.manifest import ScorePolicy, SerializedScore
from harmony_core.outcome import Failure, Noop, Success
from harmony_core.plugins import Registry
from harmony_core.testing import FakeFiles
from tests.soak import runs

from .rig import Several, entry
from .virtual import VirtualDevice

T = TypeVar("T")

PATHS = tuple(f"/etc/app/{name}" for name in "abcdef")
IDS = ("one", "two", "three", "four")
OURS = ("red", "blue")
THEIRS = b"theirs"
FOREIGN = "/etc/foreign"
QUIET_S = 2_000.0


class Faulty(FakeFiles):
    """Files of which some cannot be written."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: set[str] = set()

    async def converge(
        self, resources: Sequence[File], *, apply: bool
    ) -> Sequence[Change | Exception]:
        sound = [each for each in resources if each.path not in self.broken]
        results = iter(await super().converge(sound, apply=apply))
        return [
            WriteFailed("the disk is tired; wait", resource=each.id)
            if each.path in self.broken
            else next(results)
            for each in resources
        ]


@st.composite
def manifests(draw: st.DrawFn) -> list[SerializedScore]:
    """Up to four Scores; some want the same files, alike or otherwise; some wait for others."""
    entries: list[SerializedScore] = []
    for score_id in draw(st.lists(st.sampled_from(IDS), unique=True)):
        paths = draw(st.lists(st.sampled_from(PATHS), unique=True, max_size=4))
        score = Several(paths=tuple(paths), text=draw(st.sampled_from(OURS)))
        before = [each.id for each in entries]
        after = draw(st.lists(st.sampled_from(before), unique=True)) if before else []
        policy = ScorePolicy(drift=draw(st.sampled_from(["enforce", "report"])))
        entries.append(entry(score, score_id, after=tuple(after), policy=policy))
    return entries


class Engine(RuleBasedStateMachine):
    """One device, and everything that can happen to it."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = looptime.new_event_loop()
        self.root = Path(tempfile.mkdtemp())
        self.files = Faulty()
        self.files.write(FOREIGN, b"foreign")
        self.entries: list[SerializedScore] = []
        self.strangers: set[str] = set()
        """The paths at which somebody else ever wrote something."""
        self.device = VirtualDevice(
            self.root, generate_key(), Registry([Several]), {"FileSystemHost": self.files}
        )
        self.do(self.device.start())

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def at_once(self, act: Callable[[], None]) -> None:
        """Whatever happens, happens while the agent's loop runs."""

        async def acting() -> None:
            act()

        self.do(acting())

    @initialize(entries=manifests())
    def begins_with(self, entries: list[SerializedScore]) -> None:
        self.pushes(entries, 0)

    @rule(entries=manifests(), allowed=st.sampled_from([0, 100]))
    def pushes(self, entries: list[SerializedScore], allowed: int) -> None:
        self.entries = entries
        self.device.push(entries, removals_allowed=allowed)

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.3, 2.0, 40.0, 700.0]))
    def time_passes(self, seconds: float) -> None:
        self.do(asyncio.sleep(seconds))

    @rule(path=st.sampled_from(PATHS))
    def somebody_writes(self, path: str) -> None:
        self.strangers.add(path)
        self.at_once(lambda: self.files.write(path, THEIRS))

    @rule(path=st.sampled_from(PATHS))
    def somebody_deletes(self, path: str) -> None:
        self.at_once(lambda: self.files.delete(path))

    @rule(path=st.sampled_from(PATHS))
    def breaks(self, path: str) -> None:
        self.files.broken.add(path)

    @rule()
    def is_mended(self) -> None:
        self.files.broken.clear()

    @rule()
    def is_killed(self) -> None:
        self.do(self.device.kill())
        self.do(self.device.start())

    @rule()
    def cable_is_pulled(self) -> None:
        self.device.bus.pull_cable()

    @rule()
    def cable_is_put_back(self) -> None:
        self.at_once(self.device.bus.plug_in)

    def teardown(self) -> None:
        try:
            self.comes_to_rest()
        finally:
            self.do(self.device.kill())
            self.do(self.loop.shutdown_asyncgens())
            self.loop.close()
            self.device.close()
            shutil.rmtree(self.root)

    def comes_to_rest(self) -> None:
        self.files.broken.clear()
        self.at_once(self.device.bus.plug_in)
        # Leave for what is held, and a newest manifest for what is only to be told of.
        self.device.push(self.entries, removals_allowed=100)
        self.do(asyncio.sleep(QUIET_S))
        assert self.device.is_running
        state = self.device.bus.told
        assert state is not None
        assert state.generation == state.observed_generation == self.device.generation
        assert set(state.scores) == {each.id for each in self.entries}
        refused = self.refused_of(state.scores)
        self.files_are_as_wished(refused)

    def refused_of(self, pages: Any) -> set[str]:
        """Who does not converge must have lost against another, or wait for one that has."""
        refused: set[str] = set()
        for each in self.entries:
            outcome = pages[each.id].outcome
            if isinstance(outcome, Success | Noop):
                continue
            refused.add(each.id)
            if isinstance(outcome, Failure):
                assert outcome.error.code == "OwnershipConflict", outcome
            else:
                assert outcome.reason == "Blocked", outcome
                assert refused.intersection(each.after), outcome
        return refused

    def files_are_as_wished(self, refused: set[str]) -> None:
        wished = [each for each in self.entries if each.id not in refused]
        wanted = {
            path: each.spec["text"].encode() for each in wished for path in each.spec["paths"]
        }
        for path in PATHS:
            if path in wanted:
                assert self.files.read(path) == wanted[path]
            elif not refused and not self.is_asked_for(path):
                # Who is refused or blocked keeps what it had: only what is settled is collected.
                theirs = {THEIRS} if path in self.strangers else set[bytes]()
                assert self.files.read(path) in {None, *theirs}, (
                    f"{path} is nobody's, and still there"
                )
        assert self.files.read(FOREIGN) == b"foreign"

    def is_asked_for(self, path: str) -> bool:
        return any(path in each.spec["paths"] for each in self.entries)


@pytest.mark.soak
def test_whatever_happens_it_comes_to_rest_as_its_newest_manifest_says() -> None:
    run_state_machine_as_test(
        Engine,
        settings=settings(
            max_examples=runs(500),
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
