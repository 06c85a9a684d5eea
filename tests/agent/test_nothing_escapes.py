"""Whatever is raised, by whatever verb of a capability: that Score's FAILURE, told, and tried again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import attrs
import pytest
from pydantic import field_validator

from harmony_core import (
    Directory,
    File,
    HasContainers,
    HasDirectories,
    HasFiles,
    HasJobs,
    HasNetwork,
    HasSystemd,
    Inventory,
    NetworkProfile,
    Outcome,
    Score,
    SystemdUnit,
    outcome_of,
)
from harmony_core.change import Changes
from harmony_core.outcome import Failure
from harmony_core.resources import Container, Ethernet, Job, Resource
from harmony_core.testing import FakePi
from harmony_core.wire.actual_state import ActualState, Condition

from .rig import Note, entry
from .virtual import VirtualDevice, running_device

pytestmark = pytest.mark.looptime

IMAGE = f"registry.example/box@sha256:{1:064x}"


class AllHost(
    HasFiles, HasDirectories, HasSystemd, HasContainers, HasJobs, HasNetwork, Protocol
): ...


class One(Score[AllHost]):
    """One thing, of the capability that it names, in one of two ways."""

    of: str
    way: int = 1

    async def interpret(self, inventory: Inventory, topology: AllHost) -> Outcome:
        capability: Any = getattr(topology, self.of)
        changes: Changes = await capability.ensure(self.thing())
        return outcome_of(changes)

    def thing(self) -> Resource:
        match self.of:
            case "files":
                return File(path="/etc/it", content=str(self.way).encode())
            case "directories":
                return Directory(path="/srv/it", mode=0o700 + self.way)
            case "systemd":
                content = f"[Service]\nExecStart=/usr/bin/sleep {self.way}\n"
                return SystemdUnit(name="it.service", content=content, enabled=None, settle_s=0)
            case "containers":
                return Container(
                    name="it", image=IMAGE, command=(str(self.way),), settle_s=0, max_hold_s=60
                )
            case "jobs":
                return Job(name="it", command=("/usr/bin/it", str(self.way)))
            case _:
                link = Ethernet(interface="eth0")
                return NetworkProfile(name="it", link=link, priority=self.way, state="kept")


class Boom(Exception):
    """Nobody's own."""


ERRORS: dict[str, Callable[[], BaseException]] = {
    "OSError": lambda: OSError(5, "Input/output error"),
    "KeyError": lambda: KeyError("nobody"),
    "Boom": Boom,
    "CancelledError": asyncio.CancelledError,
    "SystemExit": lambda: SystemExit(3),
}
CAPABILITIES = ("files", "directories", "systemd", "containers", "jobs", "network")
FATAL_VERBS = ("converge", "remove")
"""Without these nothing can be done for the Score."""


@attrs.define
class Seam:
    """One verb of one capability, which raises for as long as it is broken."""

    reconciler: Any
    verb: str
    raised: int = 0

    @asynccontextmanager
    async def broken(self, error: Callable[[], BaseException]) -> AsyncGenerator[None]:
        async def raising(*_: Any, **__: Any) -> Any:
            await asyncio.sleep(0)
            self.raised += 1
            raise error()

        # On the very object, where also `isinstance` with a Protocol looks for its verbs.
        setattr(self.reconciler, self.verb, raising)
        try:
            yield
        finally:
            delattr(self.reconciler, self.verb)


def told(device: VirtualDevice) -> ActualState:
    assert device.bus.told is not None
    return device.bus.told


def degraded(device: VirtualDevice) -> Condition:
    return next(each for each in told(device).conditions if each.type == "Degraded")


def error_of(device: VirtualDevice, score: str = "it") -> Any:
    outcome = told(device).scores[score].outcome
    assert isinstance(outcome, Failure), outcome
    return outcome.error


@asynccontextmanager
async def a_device(root: Path, pi: FakePi) -> AsyncGenerator[VirtualDevice]:
    async with running_device(root, pi.offers, Note, One, jobs="any") as device:
        yield device


async def is_alive(device: VirtualDevice, generation: int) -> bool:
    """Whether a Score that has nothing to do with what is broken is done, and the device is all there."""
    other = told(device).scores["other"]
    return (
        device.is_running
        and told(device).observed_generation == generation
        and other.observed_generation == generation
        and other.outcome.status in {"SUCCESS", "NOOP"}
    )


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("of", CAPABILITIES)
async def test_what_a_deed_raises_is_a_failure_that_is_tried_again(
    tmp_path: Path, of: str, error: str
) -> None:
    pi = FakePi()
    # What stands beside it is of another capability than the one that is broken.
    other = entry(One(of="directories" if of == "files" else "files"), "other")
    async with a_device(tmp_path, pi) as device:
        await device.pages([entry(One(of=of), "it"), other])
        seam = Seam(getattr(pi, of), "converge")
        async with seam.broken(ERRORS[error]):
            await device.pages([entry(One(of=of, way=2), "it"), other])
            assert await is_alive(device, 2)
            assert error_of(device).code == "InternalError"
            assert error_of(device).retry_at is not None
            before = seam.raised
            await asyncio.sleep(900)
            assert seam.raised > before
        await asyncio.sleep(900)
        assert told(device).scores["it"].outcome.status != "FAILURE"
        async with Seam(getattr(pi, of), "remove").broken(ERRORS[error]):
            await device.pages([other])
            assert await is_alive(device, 3)
            assert error_of(device).code == "InternalError"
            assert told(device).scores["it"].observed_generation == 3
        await asyncio.sleep(900)
        assert set(told(device).scores) == {"other"}


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("verb", ["find_hold", "prepare"])
async def test_what_holds_and_preparations_raise_is_that_too(
    tmp_path: Path, verb: str, error: str
) -> None:
    pi = FakePi()
    other = entry(One(of="files"), "other")
    async with a_device(tmp_path, pi) as device:
        await device.pages([entry(One(of="containers"), "it"), other])
        async with Seam(pi.containers, verb).broken(ERRORS[error]):
            await device.pages([entry(One(of="containers", way=2), "it"), other])
            assert await is_alive(device, 2)
            assert error_of(device).code == "InternalError"
            if verb == "find_hold":
                await device.pages([other])
                assert await is_alive(device, 3)
                assert error_of(device).code == "InternalError"
        if verb == "find_hold":
            await asyncio.sleep(900)
            assert set(told(device).scores) == {"other"}
        else:
            await asyncio.sleep(900)
            assert told(device).scores["it"].outcome.status != "FAILURE"


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("verb", ["watch", "availability"])
async def test_what_only_watches_or_answers_ends_nothing_and_hides_no_other(
    tmp_path: Path, verb: str, error: str
) -> None:
    pi = FakePi()
    other = entry(One(of="directories"), "other")
    async with a_device(tmp_path, pi) as device, Seam(pi.files, verb).broken(ERRORS[error]):
        await device.pages([entry(One(of="files"), "it"), other])
        assert await is_alive(device, 1)
        assert told(device).scores["it"].outcome.status == "SUCCESS"
        if verb == "availability":
            assert degraded(device).reason == "CapabilityUnavailable"
            capabilities = told(device).capabilities
            assert not capabilities["FileSystemHost"].available
            assert capabilities["DirectoryHost"].available
        else:
            # Heard by nobody, and found all the same: by the pass that looks at everything.
            pi.files.write("/etc/it", b"theirs")
            await asyncio.sleep(900)
            assert pi.files.read("/etc/it") == b"1"
            assert told(device).scores["it"].drift_count == 1


async def test_a_daemon_that_never_says_whether_it_is_there_stops_no_heartbeat(
    tmp_path: Path,
) -> None:
    pi = FakePi()

    async def hanging() -> Any:
        await asyncio.Future()

    pi.files.availability = hanging  # type: ignore[method-assign] # as a stranger's may be
    async with a_device(tmp_path, pi) as device:
        await device.pages([entry(One(of="directories"), "other")])
        assert await is_alive(device, 1)
        assert not told(device).capabilities["FileSystemHost"].available


Part = Callable[[VirtualDevice], tuple[object, str]]
PARTS: dict[str, Part] = {
    "plan": lambda device: (device.agent.controller.planner.ownership, "claim_all"),
    "slow pass": lambda device: (device.agent.controller.plan_cache, "look"),
    "look": lambda device: (device.agent.controller.rollback, "note"),
    "manifest": lambda device: (device.agent.controller.drift, "begin"),
    "reporter": lambda device: (device.agent.controller.statuses, "compose"),
    "drift": lambda device: (device.agent.watcher, "_watch"),
}


@pytest.mark.parametrize("part", PARTS)
async def test_a_part_of_the_agent_that_raises_is_begun_anew_and_that_is_told(
    tmp_path: Path, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own defects, too: one that comes once must not leave a device that does nothing for ever."""
    pi = FakePi()
    seen: list[ActualState] = []
    async with a_device(tmp_path, pi) as device:
        await device.pages([entry(One(of="files"), "it")])
        owner, name = PARTS[part](device)
        raised = 0

        def raising(*_: Any, **__: Any) -> Any:
            nonlocal raised
            raised += 1
            raise Boom("a defect of ours")

        device.bus.on_told = seen.append
        with monkeypatch.context() as patched:
            patched.setattr(type(owner), name, raising)
            device.push([entry(One(of="files", way=2), "it")])
            await asyncio.sleep(900)
            assert raised
            assert device.is_running
        device.bus.doubt()
        await asyncio.sleep(900)
        assert told(device).observed_generation == 2
        assert pi.files.read("/etc/it") == b"2"
        assert degraded(device).reason == "AllWell"
    reasons = {c.reason for state in seen for c in state.conditions if c.type == "Degraded"}
    assert part in {"slow pass", "reporter", "drift"} or "InternalError" in reasons


class Odd(File):
    """A stranger's kind of file, with a defect where everybody's plans come together."""

    @property
    def exclusive(self) -> frozenset[str]:
        raise Boom("a defect of a package")


class Odder(Score[HasFiles]):
    async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome:
        return outcome_of(await topology.files.ensure(Odd(path="/etc/odd", content=b"")))


class Unreadable(Score[HasFiles]):
    text: str = ""

    @field_validator("text")
    @classmethod
    def _raises(cls, text: str) -> str:
        if text:
            raise Boom("a defect of a package")
        return text

    async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome:
        raise AssertionError("never decoded")


@pytest.mark.parametrize("score", [Odder(), Unreadable.model_construct(text="x")])
async def test_a_package_s_defect_outside_of_interpret_is_its_score_s_too(
    tmp_path: Path, score: Score[Any]
) -> None:
    pi = FakePi()
    async with running_device(tmp_path, pi.offers, Note, Odder, Unreadable) as device:
        await device.pages([entry(score, "it"), entry(Note(), "other")])
        assert await is_alive(device, 1)
        assert error_of(device).code in {"InternalError", "InvalidScore"}
        assert degraded(device).reason == "ScoreFailed"
