"""A report never has both what was changed and an older Outcome of what stands on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from harmony_core import (
    Directory,
    HasDirectories,
    HasSystemd,
    Inventory,
    Outcome,
    Score,
    SystemdUnit,
    outcome_of,
)
from harmony_core.outcome import Failure, Noop, Success
from harmony_core.reconciler import Offers
from harmony_core.testing import FakeDirectories, FakeSystemd, ServiceProgram
from harmony_core.wire.actual_state import ActualState

from .rig import Note, Rig, entry, status

SERVES = "/usr/bin/serves"


class Serves(Score[HasSystemd]):
    """A service that reads the note, and does not say that it comes after it."""

    name: str = "serves.service"
    uses: tuple[str, ...] = ("/etc/note",)

    async def interpret(self, inventory: Inventory, topology: HasSystemd) -> Outcome:
        content = f"[Service]\nExecStart={SERVES}\n"
        unit = SystemdUnit(name=self.name, content=content, enabled=None, uses=self.uses)
        return outcome_of(await topology.systemd.ensure(unit))


class Shared(Score[HasDirectories]):
    mode: int = 0o755

    async def interpret(self, inventory: Inventory, topology: HasDirectories) -> Outcome:
        return outcome_of(
            await topology.directories.ensure(Directory(path="/srv/shared", mode=self.mode))
        )


def offers(rig: Rig) -> tuple[Offers, FakeSystemd]:
    systemd = FakeSystemd()
    systemd.files = rig.files.contents
    return {"FileSystemHost": rig.files, "SystemdHost": systemd}, systemd


@asynccontextmanager
async def all_reports(rig: Rig) -> AsyncGenerator[list[ActualState]]:
    """Every report from now on, as it is made."""
    seen: list[ActualState] = []

    async def look() -> None:
        while True:
            state = await rig.state()
            if state is not None and (not seen or seen[-1] != state):
                seen.append(state)
            await asyncio.sleep(0.001)

    looking = asyncio.create_task(look())
    try:
        yield seen
    finally:
        looking.cancel()


async def test_a_service_that_only_uses_the_file_is_not_told_as_it_was(rig: Rig) -> None:
    offered, systemd = offers(rig)
    async with rig.agent(offered, kinds=[Serves]):
        service = entry(Serves(), "a-service")
        await rig.put(1, entry(Note(), "note"))
        await rig.seen(1)
        await rig.put(2, entry(Note(), "note"), service)
        await rig.seen(2)
        async with all_reports(rig) as reports:
            systemd.programs[SERVES] = ServiceProgram(exit_code=1)
            await rig.put(3, service, entry(Note(text="bad"), "note"))
            await rig.until(
                lambda state: (
                    isinstance(state.scores["a-service"].outcome, Failure)
                    and state.observed_generation == 3
                )
            )
        for each in reports:
            note, told = each.scores["note"], each.scores["a-service"]
            if note.observed_generation == 3 and isinstance(note.outcome, Success | Noop):
                assert not (
                    told.observed_generation == 3 and isinstance(told.outcome, Success | Noop)
                ), each


async def test_what_follows_such_a_service_waits_for_it_and_all_comes_to_rest(rig: Rig) -> None:
    offered, _ = offers(rig)
    async with rig.agent(offered, kinds=[Serves]):
        service = entry(Serves(), "service")
        last = entry(Note(path="/etc/last"), "last", after=("service",))
        await rig.put(1, entry(Note(), "note"))
        await rig.seen(1)
        await rig.put(2, entry(Note(), "note"), service, last)
        await rig.seen(2)
        async with all_reports(rig) as reports:
            await rig.put(3, last, service, entry(Note(text="newer"), "note"))
            await rig.until(
                lambda state: (
                    state.observed_generation == 3
                    and status(state.scores)
                    == {"note": "SUCCESS", "service": "SUCCESS", "last": "NOOP"}
                )
            )
        for each in reports:
            told = status(each.scores)
            if told["service"] == "RUNNING":
                assert told["last"] == "RUNNING", each


async def test_a_failure_is_tried_again_as_soon_as_what_it_stands_on_is_mended(rig: Rig) -> None:
    offered, systemd = offers(rig)
    systemd.programs[SERVES] = ServiceProgram(exit_code=1)
    async with rig.agent(offered, kinds=[Serves]):
        service = entry(Serves(), "service")
        await rig.put(1, entry(Note(), "note"))
        await rig.seen(1)
        await rig.put(2, entry(Note(), "note"), service)
        await rig.until(lambda state: status(state.scores).get("service") == "FAILURE")
        del systemd.programs[SERVES]
        await rig.put(3, service, entry(Note(text="good"), "note"))
        state = await rig.until(
            lambda state: status(state.scores) == {"note": "SUCCESS", "service": "SUCCESS"}
        )
        assert state.observed_generation == 3


async def test_what_two_scores_share_is_looked_at_for_both(rig: Rig) -> None:
    directories = FakeDirectories()
    offered: Offers = {"FileSystemHost": rig.files, "DirectoryHost": directories}
    async with rig.agent(offered, kinds=[Shared]):
        one, two = entry(Shared(), "one"), entry(Shared(), "two")
        await rig.put(1, one, two)
        await rig.seen(1)
        await rig.put(2, entry(Shared(mode=0o700), "one"), entry(Shared(mode=0o700), "two"))
        state = await rig.until(
            lambda state: (
                state.observed_generation == 2
                and set(status(state.scores).values()) <= {"SUCCESS", "NOOP"}
            )
        )
        assert "SUCCESS" in status(state.scores).values()
