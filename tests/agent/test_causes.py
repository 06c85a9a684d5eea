"""Every change is told with its true cause and by whose order, and what was put right counts exactly once."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import hypothesis.strategies as st
import looptime
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from harmony_core import File, HasFiles, HasSystemd, Inventory, Outcome, Score, outcome_of
from harmony_core.change import Change
from harmony_core.outcome import Failure
from harmony_core.plugins import Registry
from harmony_core.reconciler import Offers
from harmony_core.resources import SystemdUnit
from harmony_core.testing import FakeFiles, FakeSystemd, ServiceProgram
from harmony_core.wire.envelope import generate_key
from harmony_core.wire.manifest import ScorePolicy
from tests.soak import runs

from .rig import Note, entry
from .sundries import THINGS, Sundry, equipped
from .virtual import VirtualDevice, running_device

T = TypeVar("T")


class Service(Score[HasSystemd]):
    """A service that reads a file, which another Score may have."""

    command: str = "/usr/bin/serve"

    async def interpret(self, inventory: Inventory, topology: HasSystemd) -> Outcome:
        content = f"[Service]\nExecStart={self.command}\n"
        unit = SystemdUnit(
            name="web.service", content=content, uses=("/etc/web.conf",), enabled=None, settle_s=0
        )
        return outcome_of(await topology.systemd.ensure(unit))


class Tardy(FakeFiles):
    """Files that take a moment to be written: long enough for a newer manifest to come."""

    takes_s = 0.05

    async def converge(
        self, resources: Sequence[File], *, apply: bool
    ) -> Sequence[Change | Exception]:
        if not apply:
            return await super().converge(resources, apply=False)
        done = await super().converge(resources, apply=True)
        await asyncio.sleep(self.takes_s)
        return done


class Pair(FakeFiles):
    """The files of whichever of two devices leads."""

    def __init__(self) -> None:
        super().__init__()
        self.place = "one"

    def lead(self, place: str) -> None:
        self.place = place
        self.write("/etc/note", b"as it is there")
        self.lose_events()


def causes(device: VirtualDevice, score: str) -> list[str]:
    return [each["why"] for each in device.events() if each["score"] == score]


def drifts(device: VirtualDevice, score: str) -> int:
    assert device.bus.told is not None
    return device.bus.told.scores[score].drift_count


@asynccontextmanager
async def serving(root: Path) -> AsyncGenerator[tuple[VirtualDevice, FakeFiles, FakeSystemd]]:
    files, systemd = FakeFiles(), FakeSystemd()
    systemd.files = files.contents
    offers: Offers = {"FileSystemHost": files, "SystemdHost": systemd}
    async with running_device(root, offers, Note, Service) as device:
        yield device, files, systemd


CONF = entry(Note(path="/etc/web.conf", text="one"), "conf")
OTHER = entry(Note(path="/etc/web.conf", text="two"), "conf")
WEB = entry(Service(), "web", after=("conf",))


@pytest.mark.looptime
async def test_what_is_removed_is_not_drift(tmp_path: Path) -> None:
    async with serving(tmp_path) as (it, _, _):
        await it.pages([CONF, WEB])
        await it.pages([])
        assert causes(it, "conf") == ["desired", "removed"]
        assert causes(it, "web") == ["desired", "removed"]


@pytest.mark.looptime
async def test_what_a_score_does_not_name_any_more_is_removed(tmp_path: Path) -> None:
    async with serving(tmp_path) as (it, _, _):
        await it.pages([entry(Note(path="/etc/a"), "note")])
        await it.pages([entry(Note(path="/etc/b"), "note")])
        assert causes(it, "note") == ["desired", "desired", "removed"]


@pytest.mark.looptime
async def test_what_is_restarted_because_of_an_ordered_change_elsewhere_is_not_drift(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as (it, files, _):
        await it.pages([CONF, WEB])
        await it.pages([OTHER, WEB])
        assert causes(it, "conf") == ["desired", "desired"]
        assert causes(it, "web") == ["desired", "dependency"]
        files.write("/etc/web.conf", b"theirs")
        await asyncio.sleep(60)
        assert causes(it, "conf")[2:] == ["drift"]
        assert set(causes(it, "web")[2:]) <= {"dependency"}
        assert (drifts(it, "conf"), drifts(it, "web")) == (1, 0)


@pytest.mark.looptime
async def test_what_goes_back_is_a_rollback_and_what_happens_to_it_later_is_drift(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as (it, files, systemd):
        systemd.programs["/usr/bin/bad"] = ServiceProgram(exit_code=3)
        await it.pages([CONF, WEB])
        bad = entry(
            Service(command="/usr/bin/bad"),
            "web",
            after=("conf",),
            policy=ScorePolicy(on_failure="rollback", deadline_s=30),
        )
        pages = await it.pages([CONF, bad])
        outcome = pages["web"].outcome
        assert isinstance(outcome, Failure)
        assert outcome.error.code == "RolledBack"
        assert causes(it, "web")[0] == "desired"
        assert causes(it, "web")[-1] == "rollback"
        assert "drift" not in causes(it, "web")
        files.write("/etc/systemd/system/web.service", b"[Service]\nExecStart=/usr/bin/theirs\n")
        await asyncio.sleep(600)
        assert causes(it, "web")[-1] == "drift"


@pytest.mark.looptime
async def test_what_a_reboot_ends_comes_up_again_because_of_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as (it, _, systemd):
        await it.pages([CONF, WEB])
        await it.kill()
        await systemd.stop("web.service")
        await it.reboot()
        await asyncio.sleep(60)
        assert causes(it, "web") == ["desired", "boot"]
        assert drifts(it, "web") == 0


@pytest.mark.looptime
@pytest.mark.parametrize("wait_s", [0.0, 0.01, 0.06])
@pytest.mark.parametrize("pushed", ["the same", "beside it", "otherwise", "nothing"])
async def test_what_was_put_right_counts_whatever_is_pushed_meanwhile(
    tmp_path: Path, pushed: str, wait_s: float
) -> None:
    files = Tardy()
    async with running_device(tmp_path, {"FileSystemHost": files}, Note) as it:
        note = entry(Note(), "note")
        await it.pages([note])
        files.write("/etc/note", b"theirs")
        await asyncio.sleep(wait_s)
        match pushed:
            case "the same":
                await it.pages([note])
            case "beside it":
                await it.pages([note, entry(Note(path="/etc/beside"), "beside")])
            case "otherwise":
                await it.pages([entry(Note(text="other"), "note")])
            case _:
                await it.pages([])
        told = causes(it, "note")
        if pushed == "nothing":
            assert told[-1] == "removed"
            return
        assert drifts(it, "note") == told.count("drift")
        if pushed != "otherwise":
            assert told == ["desired", "drift"]


@pytest.mark.looptime
async def test_every_change_is_by_who_signed_the_entry_that_it_is_made_for(tmp_path: Path) -> None:
    ann, ben = generate_key(), generate_key()
    files = FakeFiles()
    it = VirtualDevice(tmp_path, ann, Registry([Note]), {"FileSystemHost": files}, ben)
    await it.start()

    def orders() -> list[tuple[str, str, list[str]]]:
        return [(each["score"], each["why"], each["signed_by"]) for each in it.events()]

    a, b = [entry(Note(path=f"/etc/{name}"), name) for name in ("a", "b")]
    await it.pages([a], by=ann)
    await it.pages([a, b], by=ben)
    files.write("/etc/a", b"theirs")
    await asyncio.sleep(60)
    assert orders()[-1] == ("a", "drift", [ann.public.id])
    files.write("/etc/b", b"theirs")
    await asyncio.sleep(60)
    assert orders()[-1] == ("b", "drift", [ben.public.id])
    # It is remembered, and a newer one of another's makes no difference to what it does not change.
    await it.kill()
    await it.start()
    await it.pages([a, b], by=ben)
    files.write("/etc/a", b"theirs")
    await asyncio.sleep(600)
    assert orders()[-1] == ("a", "drift", [ann.public.id])
    await it.pages([a.model_copy(update={"policy": ScorePolicy(deadline_s=9)}), b], by=ben)
    files.write("/etc/a", b"theirs")
    await asyncio.sleep(600)
    assert orders()[-1] == ("a", "drift", [ben.public.id])
    await it.pages([], by=ann)
    assert [each[1:] for each in orders()[-2:]] == [("removed", [ann.public.id])] * 2
    await it.pages([a], by=ben)
    assert it.mark_stored("SELECT score FROM signer") == [("a",)]
    await it.kill()
    it.close()


@pytest.mark.looptime
@pytest.mark.parametrize("drift", ["enforce", "report"])
async def test_what_is_otherwise_in_another_place_is_no_drift(tmp_path: Path, drift: Any) -> None:
    files = Pair()
    async with running_device(tmp_path, {"FileSystemHost": files}, Note) as it:
        await it.pages([entry(Note(), "note", policy=ScorePolicy(drift=drift))])
        files.lead("two")
        await asyncio.sleep(60)
        assert files.read("/etc/note") == b"hello"
        assert causes(it, "note") == ["desired", "desired"]
        assert drifts(it, "note") == 0
        files.write("/etc/note", b"theirs")
        await asyncio.sleep(60)
        assert causes(it, "note")[2:] == ["drift"]
        assert drifts(it, "note") == 1


@pytest.mark.looptime
async def test_nothing_is_remembered_of_what_was_only_ever_planned(tmp_path: Path) -> None:
    async with running_device(tmp_path, {"FileSystemHost": FakeFiles()}, Note, Nothing) as it:
        await it.pages([entry(Note(), "note"), entry(Nothing(), "idle", after=("note",))])
        await it.kill()
        it.forget_page("idle")  # as if killed after the plan, before the first Outcome
        it.push([])
        await it.start()
        await asyncio.sleep(60)
        assert it.mark_stored("SELECT score FROM lineage") == []


class Nothing(Score[HasFiles]):
    async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome:
        return outcome_of()


class Meddling(RuleBasedStateMachine):
    """Files that somebody meddles with, while manifests come that say the same of them, or more."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = looptime.new_event_loop()
        self.root = Path(tempfile.mkdtemp())
        self.files = Tardy()
        self.device = VirtualDevice(
            self.root, generate_key(), Registry([Note]), {"FileSystemHost": self.files}
        )
        self.entries = {name: entry(Note(path=f"/srv/{name}"), name) for name in "abc"}
        self.more = 0
        self.meddled = dict.fromkeys("abc", 0)
        self.was_killed = False
        self.do(self.device.start())
        self.do(self.device.pages(list(self.entries.values())))

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @rule(name=st.sampled_from("abc"), after_s=st.sampled_from([0.0, 0.001, 0.02, 0.049, 0.051]))
    def meddles(self, name: str, after_s: float) -> None:
        self.do(self._meddle(name))
        self.do(asyncio.sleep(after_s))

    async def _meddle(self, name: str) -> None:
        # What is not put right yet cannot drift once more.
        if self.files.read(f"/srv/{name}") == b"hello":
            self.meddled[name] += 1
            self.files.write(f"/srv/{name}", f"theirs {self.meddled[name]}".encode())

    @rule(after_s=st.sampled_from([0.0, 0.001, 0.02, 0.1]), more=st.booleans())
    def pushes(self, after_s: float, more: bool) -> None:
        self.more += more
        beside = [entry(Note(path=f"/srv/{i}"), f"more-{i}") for i in range(self.more)]
        self.device.push([*self.entries.values(), *beside])
        self.do(asyncio.sleep(after_s))

    @rule()
    def is_killed(self) -> None:
        self.was_killed = True
        self.do(self.device.kill())
        self.do(self.device.start())

    @rule(seconds=st.sampled_from([0.3, 5.0, 700.0]))
    def time_passes(self, seconds: float) -> None:
        self.do(asyncio.sleep(seconds))

    def teardown(self) -> None:
        try:
            self.do(asyncio.sleep(2000))
            for name, count in self.meddled.items():
                assert self.files.read(f"/srv/{name}") == b"hello"
                told = drifts(self.device, name)
                assert causes(self.device, name).count("drift") == told
                # What was put right in the last moment before a kill, and told to nobody, may be forgotten.
                assert told == count or (self.was_killed and told < count)
        finally:
            self.do(self.device.kill())
            self.loop.close()
            self.device.close()
            shutil.rmtree(self.root)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_what_is_put_right_counts_exactly_once_whatever_is_pushed() -> None:
    run_state_machine_as_test(
        Meddling,
        settings=settings(
            max_examples=runs(100),
            stateful_step_count=15,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


DEEDS = [(name, deed) for name, thing in THINGS.items() for deed in thing.deeds if deed != "hold"]


@pytest.mark.looptime
@pytest.mark.parametrize(("name", "deed"), DEEDS)
async def test_whatever_somebody_does_counts_once_and_is_told_as_drift(
    tmp_path: Path, name: str, deed: str
) -> None:
    pi = await equipped()
    async with running_device(tmp_path, pi.offers, Sundry) as it:
        await it.pages([entry(Sundry(names=(name,), colour="red"), "it")])
        before = causes(it, "it")
        for count in (1, 2):
            await THINGS[name].meddle(pi, deed)
            await asyncio.sleep(700)
            assert await THINGS[name].found(pi) == THINGS[name].resolve_desired("red")
            assert drifts(it, "it") == count
        assert set(causes(it, "it")[len(before) :]) == {"drift"}
        await it.pages([])
        assert causes(it, "it")[-1] == "removed"
