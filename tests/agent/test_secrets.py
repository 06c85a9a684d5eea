"""Secrets on a device: what was signed decides which value is written, and whoever asks has no say in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import pytest

from harmony_agent import config as configuration
from harmony_control.store import operator_key
from harmony_core import File, HasFiles, Inventory, Outcome, Score, outcome_of
from harmony_core.change import Change
from harmony_core.errors import SecretMissing
from harmony_core.secret_values import secret_word
from harmony_core.testing import FakeFiles
from harmony_core.wire.manifest import SerializedScore, hash_entry
from harmony_core.wire.requests import Diff
from harmony_core.wire.sealed import SealedFor, SealedSecret
from tests.agent.asking import asker
from tests.agent.rig import Rig, code, entry, status
from tests.nats import serving

PATH = "/etc/password"
VERSION, NEWER = "00" * 8, "11" * 8


class Password(Score[HasFiles]):
    """A file that its owner alone may read."""

    text: str = "${secret.db}"

    async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome:
        file = File(path=PATH, content=self.text.encode(), mode=0o600)
        return outcome_of(await topology.files.ensure(file))


class Shouted(Password):
    """Changes what it was given."""

    async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome:
        louder = Password(text=self.text.upper())
        return await louder.interpret(inventory, topology)


class Slow(FakeFiles):
    """Files of which each is written only when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.let = asyncio.Event(), asyncio.Event()

    async def converge(
        self, resources: Sequence[File], *, apply: bool
    ) -> Sequence[Change | Exception]:
        if apply:
            self.begun.set()
            await self.let.wait()
        return await super().converge(resources, apply=apply)


@pytest.fixture
def files() -> Slow:
    return Slow()


@pytest.fixture
async def rig(tmp_path: Path, files: Slow) -> AsyncGenerator[Rig]:
    async with serving(tmp_path, "pi-1") as bus:
        yield Rig(bus, tmp_path, operator_key.load(bus.home), files)


def with_secret(
    rig: Rig, value: str, version: str = VERSION, score: Password | None = None
) -> SerializedScore:
    wanted = entry(score or Password(), "it", references=True)
    what_for = SealedFor(
        agent_id="pi-1", score="it", name="db", entry=hash_entry(wanted), epoch=0, generation=1
    )
    key = configuration.load(rig.bus.home.agent_toml("pi-1")).report_key
    sealed = SealedSecret.seal(value, version, what_for, key.public)
    return wanted.model_copy(update={"secrets": {"db": sealed}})


async def test_whoever_asks_what_would_change_cannot_have_another_value_written(
    rig: Rig, files: Slow
) -> None:
    async with rig.agent(kinds=[Password]):
        device = await asker(rig)
        await rig.put(1, with_secret(rig, "mine"))
        await files.begun.wait()
        forged = with_secret(rig, "another")
        items = (await device.ask(Diff(entries=(forged,)))).items
        assert [each["status"] for each in items if "status" in each] == ["SUCCESS"]
        files.let.set()
        assert status(await rig.seen(1)) == {"it": "SUCCESS"}
        assert files.read(PATH) == b"mine"
        items = (await device.ask(Diff(entries=(forged,)))).items
        assert [each["actions"] for each in items if "actions" in each] == [["wrote 4 → 7 bytes"]]
        files.write(PATH, b"mine, too", mode=0o600)
        while files.read(PATH) != b"mine":
            await asyncio.sleep(0.01)


async def test_a_version_has_one_value_and_an_earlier_one_is_forgotten(
    rig: Rig, files: Slow
) -> None:
    files.let.set()
    async with rig.agent(kinds=[Password]):
        await rig.put(1, with_secret(rig, "mine"))
        await rig.seen(1)
        await rig.put(2, with_secret(rig, "another"))
        assert code((await rig.seen(2))["it"]) == "SecretRefused"
        assert files.read(PATH) == b"mine"
        await rig.put(3, with_secret(rig, "newer", NEWER))
        assert status(await rig.seen(3)) == {"it": "SUCCESS"}
        assert files.read(PATH) == b"newer"
        with pytest.raises(SecretMissing):
            files.secret_values.reveal(secret_word("it", "db", VERSION).encode())


async def test_who_changes_a_score_and_has_not_its_secret_has_nothing_opened(
    rig: Rig, files: Slow
) -> None:
    files.let.set()
    async with rig.agent(kinds=[Password, Shouted]):
        mine = with_secret(rig, "mine")
        await rig.put(1, mine)
        await rig.seen(1)
        told = Password(text="told: ${secret.db}").model_dump(mode="json")
        changes: list[dict[str, object]] = [{"spec": told}, {"kind": Shouted.kind}]
        for generation, change in enumerate(changes, start=2):
            await rig.put(generation, mine.model_copy(update=change))
            page = (await rig.seen(generation))["it"]
            assert code(page) == "SecretRefused"
            assert "said something else" in repr(page.outcome)
        assert files.read(PATH) == b"mine"
        await rig.put(4, mine)
        assert status(await rig.seen(4)) == {"it": "NOOP"}


async def test_a_score_that_loses_the_word_says_so(rig: Rig, files: Slow) -> None:
    files.let.set()
    async with rig.agent(kinds=[Password, Shouted]):
        await rig.put(1, with_secret(rig, "mine", score=Shouted()))
        page = (await rig.seen(1))["it"]
        assert code(page) == "InterpretationFailed"
        assert secret_word("it", "db", VERSION) in repr(page.outcome)
        assert "mine" not in repr(page.outcome)
