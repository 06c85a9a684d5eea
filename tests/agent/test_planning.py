"""Before anything is done for a manifest, all of it is planned."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from harmony_core import File
from harmony_core.change import Change
from harmony_core.testing import FakeFiles

from .rig import Note, Rig, Several, code, entry, status


class Watched(FakeFiles):
    """Files that count the looks at each."""

    def __init__(self) -> None:
        super().__init__()
        self.planned: list[str] = []
        self.applied: list[str] = []

    async def converge(
        self, resources: Sequence[File], *, apply: bool
    ) -> Sequence[Change | Exception]:
        (self.applied if apply else self.planned).extend(each.path for each in resources)
        return await super().converge(resources, apply=apply)


class Hanging(Watched):
    """A file system on which one file cannot be looked at until it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let = asyncio.Event()

    async def converge(
        self, resources: Sequence[File], *, apply: bool
    ) -> Sequence[Change | Exception]:
        if any(each.path == "/etc/hangs" for each in resources):
            await self.let.wait()
        return await super().converge(resources, apply=apply)


async def test_what_the_plan_finds_in_order_is_not_looked_at_again(rig: Rig) -> None:
    rig.files = files = Watched()
    async with rig.agent():
        await rig.put(1, entry(Note(), "note"))
        await rig.seen(1)
        await asyncio.sleep(0.5)
        files.planned.clear()
        files.applied.clear()
        await rig.put(2, entry(Note(), "note"))
        assert status(await rig.seen(2)) == {"note": "NOOP"}
        assert (files.planned, files.applied) == (["/etc/note"], [])


async def test_a_score_of_which_one_part_is_refused_does_no_part(rig: Rig) -> None:
    async with rig.agent():
        await rig.put(1, entry(Several(paths=("/etc/first", "/etc/harmony/agent.toml")), "it"))
        assert code((await rig.seen(1))["it"]) == "PolicyRefused"
        assert rig.files.read("/etc/first") is None


async def test_a_plan_that_hangs_keeps_neither_the_others_nor_a_newer_manifest(rig: Rig) -> None:
    rig.files = files = Hanging()
    async with rig.agent():
        await rig.put(1, entry(Note(path="/etc/hangs"), "hangs"), entry(Note(), "note"))
        await rig.until(lambda s: status(s.scores).get("note") == "SUCCESS")
        await rig.put(2, entry(Note(path="/etc/other"), "hangs"), entry(Note(), "note"))
        assert status(await rig.seen(2)) == {"hangs": "SUCCESS", "note": "NOOP"}
        files.let.set()


async def test_what_stands_on_another_score_is_planned_upon_its_plan(rig: Rig) -> None:
    rig.files = files = Watched()
    async with rig.agent():
        await rig.put(
            1,
            entry(Note(path="/etc/base"), "base"),
            entry(Note(path="/etc/top"), "top", after=("base",)),
        )
        await rig.until(lambda s: status(s.scores) == {"base": "SUCCESS", "top": "SUCCESS"})
    assert files.planned == ["/etc/base", "/etc/top"]
