"""Whose is what: what several Scores want alike, otherwise, or gone, and ports that change hands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path

import pytest

from harmony_core import (
    Container,
    HasContainers,
    HasFiles,
    Inventory,
    Outcome,
    Score,
    outcome_of,
)
from harmony_core.change import Change
from harmony_core.outcome import Failure, Noop
from harmony_core.plugins import Registry
from harmony_core.reconciler import Offers
from harmony_core.resources import PublishedPort
from harmony_core.testing import FakeContainers, FakeFiles
from harmony_core.wire.actual_state import ScoreStatus
from harmony_core.wire.envelope import generate_key
from harmony_core.wire.manifest import SerializedScore

from .rig import Note, Several, code, entry, status
from .virtual import VirtualDevice

pytestmark = pytest.mark.looptime

A, B, C = "/etc/a", "/etc/b", "/etc/c"


class Without(Score[HasFiles]):
    """A file that is not to be there."""

    path: str = A

    async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome:
        return outcome_of(await topology.files.absent(self.path))


class Web(Score[HasContainers]):
    """Containers and the port of each."""

    ports: Mapping[str, int]

    async def interpret(self, inventory: Inventory, topology: HasContainers) -> Outcome:
        wanted = [
            Container(
                name=name,
                image=f"registry.test/web:1@sha256:{'1' * 64}",
                ports=(PublishedPort(host=port, container=80),),
                settle_s=0,
            )
            for name, port in self.ports.items()
        ]
        return outcome_of(await topology.containers.ensure(*wanted))


class Once(Web):
    """The same, each made only where it is not there."""

    async def interpret(self, inventory: Inventory, topology: HasContainers) -> Outcome:
        if all([await topology.containers.observe(name) for name in self.ports]):
            return Noop()
        return await super().interpret(inventory, topology)


class Runtime(FakeContainers):
    """Containers that remember what was made of them, and what they refused."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[str] = []
        self.refused: list[Exception] = []

    async def converge(
        self, resources: Sequence[Container], *, apply: bool
    ) -> Sequence[Change | Exception]:
        results = await super().converge(resources, apply=apply)
        if apply:
            self.refused += [each for each in results if isinstance(each, Exception)]
            self.done += [r.resource for r in results if isinstance(r, Change) and r.changed]
        return results


@pytest.fixture
def files() -> FakeFiles:
    return FakeFiles()


@pytest.fixture
def containers() -> Runtime:
    return Runtime()


@pytest.fixture
async def device(
    tmp_path: Path, files: FakeFiles, containers: Runtime
) -> AsyncGenerator[VirtualDevice]:
    """To be started by the test, since only there the clock jumps."""
    offers: Offers = {"FileSystemHost": files, "ContainerRuntime": containers}
    kinds = Registry([Note, Several, Without, Web, Once])
    it = VirtualDevice(tmp_path, generate_key(), kinds, offers)
    yield it
    await it.kill()
    it.close()


def note(score_id: str, text: str) -> SerializedScore:
    return entry(Note(path=A, text=text), score_id)


def web(score_id: str, after: tuple[str, ...] = (), **ports: int) -> SerializedScore:
    return entry(Web(ports=ports), score_id, after=after)


def words(page: ScoreStatus) -> str:
    assert isinstance(page.outcome, Failure)
    return page.outcome.error.message


async def foreseen(device: VirtualDevice, *entries: SerializedScore) -> dict[str, str]:
    """What `harmony diff` says would become of each, and that nothing was done."""
    plans = await device.agent.controller.preview.preview(entries)
    return {
        plan.score: plan.planned.verdict.outcome.status
        for plan in plans
        if plan.planned is not None
    }


async def test_what_two_scores_share_changes_when_both_change_it_alike(
    device: VirtualDevice, files: FakeFiles
) -> None:
    await device.start()
    await device.pages([note("one", "v1"), note("two", "v1")])
    changed = [note("one", "v2"), note("two", "v2")]
    assert await foreseen(device, *changed) == {"one": "SUCCESS", "two": "SUCCESS"}
    assert "FAILURE" not in status(await device.pages(changed)).values()
    assert files.read(A) == b"v2"
    # It is shared as before: it goes only with the last.
    await device.pages([note("two", "v2")])
    assert files.read(A) == b"v2"
    await device.pages([])
    assert files.read(A) is None


async def test_who_alone_changes_what_is_shared_is_refused_and_the_other_keeps_it(
    device: VirtualDevice, files: FakeFiles
) -> None:
    await device.start()
    await device.pages([note("one", "v1"), note("two", "v1")])
    more = entry(Several(paths=(A, B), text="v1"), "two")
    pages = await device.pages([note("one", "v2"), more])
    assert status(pages) == {"one": "FAILURE", "two": "SUCCESS"}
    assert code(pages["one"]) == "OwnershipConflict"
    assert "Score 'two'," in words(pages["one"])
    assert files.read(A) == b"v1"
    # Nor does a third one get what the one that was refused would have liked to leave.
    pages = await device.pages([note("third", "v1"), note("one", "v2"), more])
    assert status(pages) == {"third": "NOOP", "one": "FAILURE", "two": "NOOP"}
    pages = await device.pages([note("one", "v2")])
    assert status(pages) == {"one": "SUCCESS"}
    assert files.read(A) == b"v2"


async def test_where_those_that_share_it_change_it_otherwise_the_manifest_decides(
    device: VirtualDevice, files: FakeFiles
) -> None:
    await device.start()
    await device.pages([note("one", "v1"), note("two", "v1")])
    both = [note("two", "v3"), note("one", "v2")]
    assert await foreseen(device, *both) == {"two": "SUCCESS", "one": "FAILURE"}
    assert status(await device.pages(both)) == {"two": "SUCCESS", "one": "FAILURE"}
    assert files.read(A) == b"v3"
    # Who was refused is an owner no more, whatever it had.
    pages = await device.pages([note("one", "v1"), note("two", "v3")])
    assert status(pages) == {"one": "FAILURE", "two": "NOOP"}
    assert files.read(A) == b"v3"


@pytest.mark.parametrize("newcomer_first", [True, False])
async def test_a_newcomer_does_not_hold_its_owner_to_what_stood_there(
    device: VirtualDevice, files: FakeFiles, *, newcomer_first: bool
) -> None:
    await device.start()
    await device.pages([note("owner", "v1")])
    both = [note("new", "v1"), note("owner", "v2")]
    pages = await device.pages(both if newcomer_first else both[::-1])
    assert status(pages) == {"owner": "SUCCESS", "new": "FAILURE"}
    assert files.read(A) == b"v2"


async def test_another_scores_resource_cannot_be_taken_away(
    device: VirtualDevice, files: FakeFiles
) -> None:
    await device.start()
    touched: list[str] = []
    await device.pages([note("owner", "hello")])
    files.listen(touched.append)
    both = [entry(Without(), "without"), note("owner", "hello")]
    assert await foreseen(device, *both) == {"without": "FAILURE", "owner": "NOOP"}
    pages = await device.pages(both)
    assert status(pages) == {"owner": "NOOP", "without": "FAILURE"}
    assert code(pages["without"]) == "OwnershipConflict"
    assert touched == []
    # It goes with its owner, and whoever wants it gone is looked at again.
    assert status(await device.pages(both[:1])) == {"without": "NOOP"}
    assert files.read(A) is None
    # Neither does it come first for being there first.
    assert status(await device.pages(both)) == {"owner": "SUCCESS", "without": "FAILURE"}


async def test_who_takes_away_what_it_shares_only_lets_go_of_it(
    device: VirtualDevice, files: FakeFiles
) -> None:
    await device.start()
    await device.pages([note("one", "hello"), note("two", "hello")])
    for _ in range(2):
        pages = await device.pages([note("one", "hello"), entry(Without(), "two")])
        assert status(pages) == {"one": "NOOP", "two": "FAILURE"}
    assert files.read(A) == b"hello"
    assert not device.agent.controller.ledger.is_shared(f"file:{A}", "one")


async def test_what_a_score_has_made_itself_it_may_take_away(
    device: VirtualDevice, files: FakeFiles
) -> None:
    await device.start()
    await device.pages([note("it", "hello")])
    assert status(await device.pages([entry(Without(), "it")])) == {"it": "SUCCESS"}
    assert files.read(A) is None


async def test_what_policy_protects_cannot_be_taken_away(device: VirtualDevice) -> None:
    await device.start()
    pages = await device.pages([entry(Without(path="/proc/version"), "it")])
    assert code(pages["it"]) == "PolicyRefused"


async def test_a_port_moves_once_its_holder_has_left_it(
    device: VirtualDevice, containers: Runtime
) -> None:
    await device.start()
    await device.pages([web("giver", a=80), web("taker", b=81)])
    containers.done.clear()
    moved = [web("taker", b=80), web("giver", a=8080)]
    assert await foreseen(device, *moved) == {"taker": "SUCCESS", "giver": "SUCCESS"}
    assert status(await device.pages(moved)) == {"giver": "SUCCESS", "taker": "SUCCESS"}
    assert (containers.done, containers.refused) == (["container:a", "container:b"], [])


async def test_a_port_of_a_score_that_is_gone_is_free_in_the_same_manifest(
    device: VirtualDevice, containers: Runtime
) -> None:
    await device.start()
    await device.pages([web("old", a=80)])
    assert await foreseen(device, web("new", b=80)) == {"new": "SUCCESS"}
    assert status(await device.pages([web("new", b=80)])) == {"new": "SUCCESS"}
    assert containers.refused == []


async def test_two_scores_that_would_exchange_ports_are_told_how(
    device: VirtualDevice, containers: Runtime
) -> None:
    await device.start()
    await device.pages([web("one", a=80), web("two", b=81)])
    containers.done.clear()
    exchange = [web("one", a=81), web("two", b=80)]
    assert await foreseen(device, *exchange) == {"one": "FAILURE", "two": "FAILURE"}
    pages = await device.pages(exchange)
    assert [code(page) for page in pages.values()] == ["OwnershipConflict"] * 2
    assert "push one of them with a free one first" in words(pages["one"])
    assert containers.done == []  # both run as before
    # And that it works.
    await device.pages([web("one", a=82), web("two", b=80)])
    assert status(await device.pages(exchange)) == {"one": "SUCCESS", "two": "NOOP"}


async def test_a_port_that_its_holder_leaves_only_after_the_taker_is_refused_in_words(
    device: VirtualDevice,
) -> None:
    await device.start()
    await device.pages([web("holder", a=80)])
    pages = await device.pages([web("holder", after=("taker",), a=8080), web("taker", b=80)])
    assert code(pages["taker"]) == "OwnershipConflict"
    assert "only after Score 'taker'" in words(pages["taker"])
    assert pages["holder"].outcome.reason == "Blocked"


async def test_of_two_newcomers_with_one_port_the_first_has_it(
    device: VirtualDevice, containers: Runtime
) -> None:
    await device.start()
    pages = await device.pages([web("z", a=80), web("b", b=80)])
    assert status(pages) == {"z": "SUCCESS", "b": "FAILURE"}
    assert code(pages["b"]) == "OwnershipConflict"
    assert containers.refused == []


async def test_an_owner_keeps_its_port_for_a_container_of_another_name(
    device: VirtualDevice, containers: Runtime
) -> None:
    await device.start()
    await device.pages([web("owner", a=80)])
    pages = await device.pages([web("new", b=80), web("owner", other=80)])
    assert status(pages) == {"owner": "SUCCESS", "new": "FAILURE"}
    assert containers.refused == []


async def test_what_its_owner_only_looks_at_is_its_own_and_so_is_the_port(
    device: VirtualDevice, containers: Runtime
) -> None:
    await device.start()
    once = entry(Once(ports={"a": 80}), "once")
    await device.pages([once])
    containers.done.clear()
    pages = await device.pages([web("same", a=81), web("port", b=80), once])
    assert status(pages) == {"once": "NOOP", "port": "FAILURE", "same": "FAILURE"}
    assert "belongs to Score 'once'" in words(pages["same"])
    assert "port:80/tcp, which container:a of Score 'once' has" in words(pages["port"])
    assert containers.done == []


async def test_a_port_that_is_not_left_after_all_is_kept(
    device: VirtualDevice, containers: Runtime
) -> None:
    await device.start()
    await device.pages([web("giver", a=80), web("taker", b=81)])
    containers.faults["a"] = TimeoutError("podman is slow today")
    moved = [web("giver", a=8080), web("taker", b=80)]
    pages = await device.pages(moved)
    assert pages["taker"].outcome.reason == "Blocked"
    assert "container:a has left port:80/tcp" in pages["taker"].outcome.message
    del containers.faults["a"]
    await asyncio.sleep(600)
    assert device.bus.told is not None
    assert status(device.bus.told.scores) == {"giver": "SUCCESS", "taker": "SUCCESS"}
