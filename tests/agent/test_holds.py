"""While what a Score made says "not now", nothing of that Score is changed, and every other one is."""

from __future__ import annotations

import hashlib
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import attrs
import pytest

from harmony_core import (
    Container,
    File,
    HasContainers,
    HasFiles,
    Inventory,
    Outcome,
    Score,
    outcome_of,
)
from harmony_core.outcome import Running
from harmony_core.reconciler import Offers
from harmony_core.testing import FakeContainers
from harmony_core.wire.actual_state import ActualState
from harmony_core.wire.requests import Diff, Reconcile, Release

from .asking import asker
from .rig import Note, Rig, entry, status

HOLD = b'{"owner": "recorder", "reason": "writes the archive"}'
IMAGE = f"registry.test/web:1@sha256:{'1' * 64}"
CONFIG = "/etc/recorder.conf"


class Host(HasContainers, HasFiles, Protocol):
    """What a recorder needs."""


class Recorder(Score[Host]):
    config: str = "one"
    extra: bool = True
    """Whether there is a second file."""

    async def interpret(self, inventory: Inventory, topology: Host) -> Outcome:
        names = (CONFIG, "/etc/extra") if self.extra else (CONFIG,)
        content = self.config.encode()
        wrote = await topology.files.ensure(*(File(path=path, content=content) for path in names))
        ran = await topology.containers.ensure(
            Container(name="recorder", image=IMAGE, uses=(CONFIG,), max_hold_s=3600)
        )
        return outcome_of(wrote, ran)


@attrs.frozen
class Held:
    """A device on which the recorder runs, in force as generation 1."""

    rig: Rig
    containers: FakeContainers

    def agent(self) -> AbstractAsyncContextManager[None]:
        offers: Offers = {"FileSystemHost": self.rig.files, "ContainerRuntime": self.containers}
        return self.rig.agent(offers, kinds=[Recorder])

    async def begin(self) -> None:
        await self.rig.put(1, entry(Recorder(), "it"))
        assert status(await self.rig.seen(1)) == {"it": "SUCCESS"}
        await self.containers.write_hold("recorder", HOLD)

    async def is_held(self) -> ActualState:
        return await self.rig.until(is_held)


def is_held(state: ActualState) -> bool:
    page = state.scores.get("it")
    return page is not None and isinstance(page.outcome, Running) and page.outcome.reason == "Held"


@pytest.fixture
def held(rig: Rig) -> Held:
    containers = FakeContainers()
    containers.files = rig.files.contents
    return Held(rig, containers)


async def test_a_score_waits_as_a_whole_until_its_application_is_done(held: Held) -> None:
    async with held.agent():
        await held.begin()
        identity = await held.containers.identity("recorder")
        await held.rig.put(2, entry(Recorder(config="two"), "it"), entry(Note(), "other"))
        state = await held.is_held()
        assert state.generation == 2
        message = state.scores["it"].outcome.message
        assert message.startswith("recorder has asked for time until ")
        assert message.endswith(": writes the archive")
        assert held.rig.files.read(CONFIG) == b"one"
        told = state.scores["it"].resources[f"file:{CONFIG}"]
        assert told["sha256"] == hashlib.sha256(b"one").hexdigest()
        await held.rig.until(lambda state: status(state.scores).get("other") == "SUCCESS")
        await held.containers.write_hold("recorder", None)
        assert status(await held.rig.seen(2))["it"] == "RUNNING"
        await held.rig.until(lambda state: status(state.scores)["it"] == "SUCCESS")
        assert held.rig.files.read(CONFIG) == b"two"
        assert await held.containers.identity("recorder") != identity


async def test_what_is_released_is_changed_at_once(held: Held) -> None:
    async with held.agent():
        await held.begin()
        await held.rig.put(2, entry(Recorder(config="two"), "it"))
        await held.is_held()
        device = await asker(held.rig)
        assert (await device.ask(Release(score="it"))).items == []
        await held.rig.until(lambda state: status(state.scores)["it"] == "SUCCESS")
        assert held.rig.files.read(CONFIG) == b"two"
        assert (await device.ask(Release(score="it"))).code == "NotHeld"


async def test_a_diff_says_what_would_wait(held: Held) -> None:
    async with held.agent():
        await held.begin()
        device = await asker(held.rig)
        ask = Diff(entries=(entry(Recorder(config="two"), "it"),))
        planned, *changes = (await device.ask(ask)).items
        assert planned["status"] == "RUNNING"
        assert "has asked for time" in planned["message"]
        assert {each["resource"] for each in changes} == {
            f"file:{CONFIG}",
            "file:/etc/extra",
            "container:recorder",
        }


async def test_nothing_of_a_score_that_is_held_goes(held: Held) -> None:
    async with held.agent():
        await held.begin()
        await held.rig.put(2)
        await held.is_held()
        assert held.rig.files.read(CONFIG) == b"one"
        assert await held.containers.identity("recorder") is not None
        await held.containers.write_hold("recorder", None)
        await held.rig.until(lambda state: not state.scores)
        assert held.rig.files.read(CONFIG) is None
        assert await held.containers.identity("recorder") is None


async def test_a_score_that_may_not_go_yet_is_told_since_when_however_often_it_is_looked_at(
    held: Held,
) -> None:
    async with held.agent():
        await held.begin()
        await held.rig.put(2)
        since = (await held.is_held()).scores["it"].since
        device = await asker(held.rig)
        (told,) = (await device.ask(Reconcile(score="it"))).items
        assert (told["state"]["outcome"]["reason"], told["state"]["since"]) == ("Held", since)


async def test_what_it_names_no_longer_stays_until_then(held: Held) -> None:
    async with held.agent():
        await held.begin()
        await held.rig.put(2, entry(Recorder(extra=False), "it"))
        await held.is_held()
        assert held.rig.files.read("/etc/extra") == b"one"
        await held.containers.write_hold("recorder", None)
        await held.rig.until(lambda state: status(state.scores)["it"] == "SUCCESS")
        assert held.rig.files.read("/etc/extra") is None


async def test_what_changes_nothing_does_not_wait(held: Held) -> None:
    async with held.agent():
        await held.begin()
        await held.rig.put(2, entry(Recorder(), "it"))
        assert status(await held.rig.seen(2)) == {"it": "NOOP"}


async def test_an_application_that_has_ended_holds_nothing(held: Held) -> None:
    async with held.agent():
        await held.begin()
        await held.rig.put(2, entry(Recorder(config="two"), "it"))
        await held.is_held()
        await held.containers.delete("recorder")
        await held.rig.until(lambda state: status(state.scores)["it"] == "SUCCESS")
        assert held.rig.files.read(CONFIG) == b"two"


async def test_its_time_to_converge_begins_when_it_may_be_changed(held: Held) -> None:
    async with held.agent():
        await held.begin()
        policy = {"on_failure": "rollback", "deadline_s": 1}
        await held.rig.put(2, entry(Recorder(config="two"), "it", policy=policy))
        await held.is_held()
        await held.containers.pass_time(10)
        assert is_held(await held.is_held())
        await held.containers.write_hold("recorder", None)
        await held.rig.until(lambda state: status(state.scores)["it"] == "SUCCESS")
        assert held.rig.files.read(CONFIG) == b"two"
