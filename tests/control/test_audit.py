"""What a device tells of its past is held against what was seen of it: by the command, and by whole agents.

Whoever is root on the device is played by who edits its database while its agent is stopped.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import attrs
import pytest

from harmony_agent.rpc import handlers
from harmony_agent.store.event_chain import EventChain
from harmony_control.audit.ask import audit
from harmony_control.device import AuditResult
from harmony_control.fleet import Fleet
from harmony_core import plugins
from harmony_core.errors import NoAnswer, UnknownVerb
from harmony_core.outcome import ErrorInfo
from harmony_core.testing import FakeFiles
from harmony_core.wire.actual_state import ActualState, to_json
from harmony_core.wire.audit import CHAIN_START, AuditHead, hash_event
from harmony_core.wire.replies import Alive, ChainedEvent, End, Failed, Frame, Item
from harmony_scores import FileScore
from tests.control.ground import Ground, Said, harmony
from tests.control.scripted_device import NOON
from tests.control.test_requesting import answering, asking
from tests.device import running_agent
from tests.nats import Bus, serving

Tampering = Callable[[sqlite3.Connection], object]


@attrs.define
class Place:
    """A bus with pi-1, whose agent is started and stopped by hand."""

    root: Path
    bus: Bus
    fleet: Fleet
    files: FakeFiles
    pushed: int = 0

    @property
    def database(self) -> Path:
        return self.root / "state" / "agent.db"

    async def harmony(self, *arguments: str) -> Said:
        return await harmony(self.bus.home, *arguments)

    async def verify(self) -> AuditResult:
        return await self.fleet.device("pi-1").audit()

    @asynccontextmanager
    async def agent(self) -> AsyncGenerator[None]:
        """Its agent, for as long as the block lasts."""
        async with running_agent(
            self.bus.home,
            "pi-1",
            self.root,
            registry=plugins.load(),
            offers={"FileSystemHost": self.files},
            missing={},
        ):
            yield

    async def push(self, count: int = 1) -> None:
        """So many changes of one file, each of which is seen here."""
        for _ in range(count):
            self.pushed += 1
            text = f"{self.pushed}\n"
            await self.fleet.device("pi-1").put_and_wait(
                {"motd": FileScore(path="/etc/motd", content=text)}
            )

    async def edited(self, tamper: Tampering) -> AuditResult:
        """What comes of it if *tamper* has edited the database, and the agent runs again."""
        with closing(sqlite3.connect(self.database)) as database, database:
            tamper(database)
        async with self.agent():
            await self.fleet.device("pi-1").put_and_wait({})
            return await self.verify()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncGenerator[Place]:
    async with serving(tmp_path, "pi-1") as bus, Fleet.connect(bus.home) as fleet:
        yield Place(tmp_path, bus, fleet, FakeFiles())


def kinds(result: AuditResult) -> list[str]:
    return [each.kind for each in result.faults]


def rows(database: sqlite3.Connection) -> list[tuple[int, str, bytes]]:
    return database.execute("SELECT seq, json, prior FROM event ORDER BY seq").fetchall()


def rewrite_one(database: sqlite3.Connection) -> None:
    database.execute("UPDATE event SET json = replace(json, 'motd', 'othr') WHERE seq = 2")


def remove_one(database: sqlite3.Connection) -> None:
    database.execute("DELETE FROM event WHERE seq = 2")


def remove_the_newest(database: sqlite3.Connection) -> None:
    database.execute("DELETE FROM event WHERE seq >= 3")


def remove_the_oldest(database: sqlite3.Connection) -> None:
    database.execute("DELETE FROM event WHERE seq <= 2")


def leave_no_event(database: sqlite3.Connection) -> None:
    database.execute("DELETE FROM event")


def forge_all(database: sqlite3.Connection) -> None:
    """A chain that is whole by itself: only who has seen the true one can tell."""
    prior = CHAIN_START
    for seq, text, _ in rows(database):
        forged = text.replace("/etc/motd", "/etc/nothing") if seq >= 2 else text
        database.execute(
            "UPDATE event SET json = ?, prior = ? WHERE seq = ?",
            (forged, bytes.fromhex(prior), seq),
        )
        prior = hash_event(prior, forged.encode())


def forge_all_and_forget_hashes(database: sqlite3.Connection) -> None:
    """As if an agent without a chain had noted it: this one chains it as it stands."""
    forge_all(database)
    database.execute("UPDATE event SET prior = NULL")


def put_garbage(database: sqlite3.Connection) -> None:
    database.execute("UPDATE event SET json = x'ff00', prior = 'x' WHERE seq = 2")


def change_the_number(database: sqlite3.Connection) -> None:
    database.execute("UPDATE event SET seq = 100 WHERE seq = 4")


async def test_what_is_whole_is_told_as_that_by_command_and_in_python(place: Place) -> None:
    async with place.agent():
        await place.push(3)
        result = await place.verify()
        assert result.is_intact
        assert result.first is not None
        assert result.last is not None
        assert (result.count, result.first.seq, result.last.seq) == (3, 1, 3)
        assert [each.head.seq for each in result.confirmed] == [1, 2, 3]
        said = await place.harmony("audit", "verify", "pi-1")
        assert (said.status, said.err) == (0, "")
        assert "pi-1  3 events, unbroken from 20" in said.out
        assert "agrees with its signed report of 20" in said.out
        assert "agrees with what was seen here 3 times, first on 20" in said.out
        (document,) = (await place.harmony("audit", "verify", "pi-1", "--json")).documents
        assert (document["intact"], document["events"], document["faults"]) == (True, 3, [])
        assert [each["seq"] for each in document["confirmed"]] == [1, 2, 3]
    async with place.agent():  # and after a restart
        await place.push()
        assert (await place.verify()).is_intact


@pytest.mark.parametrize(
    ("tamper", "kind"),
    [
        (rewrite_one, "Rewritten"),
        (remove_one, "Rewritten"),
        (remove_the_oldest, "Shortened"),
        (remove_the_newest, "Lost"),
        (leave_no_event, "Lost"),
        (forge_all, "Rewritten"),
        (forge_all_and_forget_hashes, "Rewritten"),
        (put_garbage, "Rewritten"),
        (change_the_number, "Rewritten"),
    ],
)
async def test_whatever_is_edited_in_the_database_of_what_was_seen_is_found(
    place: Place, tamper: Tampering, kind: str
) -> None:
    async with place.agent():
        await place.push(4)
        assert (await place.verify()).is_intact
    result = await place.edited(tamper)
    assert kind in kinds(result)
    assert not result.unchecked


async def test_it_is_told_in_words_and_ends_with_1(place: Place) -> None:
    async with place.agent():
        await place.push(3)
    with closing(sqlite3.connect(place.database)) as database, database:
        forge_all(database)
    async with place.agent():
        said = await place.harmony("audit", "verify", "pi-1")
        assert said.status == 1
        assert "  Rewritten: event 2, or one before it, is not the one that was seen" in said.out
        (document,) = (await place.harmony("audit", "verify", "pi-1", "--json")).documents
        assert document["intact"] is False
        assert [(each["kind"], each["seq"]) for each in document["faults"]] == [("Rewritten", 2)]


async def test_what_was_seen_by_nobody_is_found_by_the_report_that_stands_on_the_bus(
    place: Place,
) -> None:
    async with place.agent():
        await place.push(2)
        place.bus.home.seen.unlink()
        with closing(sqlite3.connect(place.database)) as database, database:
            forge_all(database)
        result = await place.verify()
        assert kinds(result) == ["Rewritten"]
        assert "in its signed report of 20" in result.faults[0].message


async def test_a_database_that_was_put_back_from_a_backup_is_told_by_the_device_itself(
    place: Place, tmp_path: Path
) -> None:
    async with place.agent():
        await place.push(2)
    shutil.copytree(place.database.parent, tmp_path / "backup")
    async with place.agent():
        await place.push(2)
    shutil.rmtree(place.database.parent)
    shutil.copytree(tmp_path / "backup", place.database.parent)
    async with place.agent():
        await place.push()
        result = await place.verify()
        assert kinds(result) == ["Lost"]
        assert "an older one was put back" in result.faults[0].message
        assert [each.head.seq for each in result.confirmed] == [1, 2, 5, 6]
        (loss,) = result.losses
        assert (loss.after_seq, loss.event.seq) == (2, 5)
        said = await place.harmony("audit", "verify", "pi-1")
        assert said.status == 1
        assert "earlier events are lost since 20" in said.out
        said = await place.harmony("events", "pi-1")
        assert "earlier events are lost: the last report told of event 4" in said.out


def delete(place: Place) -> None:
    shutil.rmtree(place.database.parent)


def delete_but_for_the_floor(place: Place) -> None:
    for each in place.database.parent.glob("agent.db*"):
        each.unlink()


def damage(place: Place) -> None:
    for each in place.database.parent.glob("agent.db-*"):
        each.unlink()
    place.database.write_bytes(b"garbage" * 1024)


@pytest.mark.parametrize("lose", [delete, delete_but_for_the_floor, damage])
async def test_a_database_that_was_lost_is_told_by_the_device_itself(
    place: Place, lose: Callable[[Place], None]
) -> None:
    for _ in range(2):  # so that it has counted on ahead of its clock
        async with place.agent():
            await place.push()
    lose(place)
    async with place.agent():
        await place.push(2)
        result = await place.verify()
        assert kinds(result) == ["Lost"]
        assert [each.after_seq for each in result.losses] == [0]


async def test_a_record_that_is_begun_anew_without_a_word_is_found_by_what_was_seen(
    place: Place,
) -> None:
    async with place.agent():
        await place.push(3)
    delete(place)
    # The other copy of the floor would tell.
    (place.root / "etc" / "floor.copy.json").unlink()
    # As who holds the server, too: nothing that stands there makes the device say that it has lost something.
    forged = ActualState(
        agent_id="pi-1",
        agent_version="",
        boot_id="",
        generation=7,
        observed_generation=7,
        audit=AuditHead(seq=1_000, head="1" * 64),
    )
    await place.bus.bucket("actual-state").put("pi-1", to_json(forged))
    async with place.agent():
        await place.push()
        result = await place.verify()
    assert "BegunAnew" in kinds(result)
    assert not result.losses


async def test_a_record_that_is_more_than_one_answer_is_read_whole(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "_AUDIT_BYTES", 1)
    async with place.agent():
        await place.push(3)
        result = await place.verify()
    assert result.is_intact
    assert result.count == 3


async def test_a_break_that_is_there_once_only_is_none(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two answers a device may drop what the second one would have begun with."""
    whole = EventChain.read
    asked: list[int | None] = []

    async def read(chain: EventChain, *, after: int | None = None) -> AsyncGenerator[ChainedEvent]:
        async for event in whole(chain, after=after):
            if event.seq != 2 or asked:
                yield event
        asked.append(after)

    monkeypatch.setattr(EventChain, "read", read)
    async with place.agent():
        await place.push(3)
        assert (await place.verify()).is_intact
    assert asked.count(None) == 2


async def test_without_the_device_what_it_has_told_is_compared_and_what_is_missing_is_said(
    place: Place,
) -> None:
    async with place.agent():
        await place.push(2)
    await place.bus.bucket("heartbeat").put("pi-1", b"")
    said = await place.harmony("audit", "verify", "pi-1")
    assert said.status == 4
    assert "its record was not read" in said.out
    assert "not checked: pi-1 does not answer, and nothing in its place is believed" in said.out


async def test_a_report_that_contradicts_what_was_seen_is_enough(plane: Ground) -> None:
    def state(seq: int, digit: str) -> ActualState:
        return attrs.evolve(plane.pi.state(0), audit=AuditHead(seq=seq, head=digit * 64))

    await plane.pi.report(state(7, "1"))
    result = await audit(asking(plane))
    assert (kinds(result), [type(each) for each in result.unchecked]) == ([], [NoAnswer])
    await plane.pi.report(state(7, "2"))
    assert kinds(await audit(asking(plane))) == ["Rewritten"]
    await plane.pi.report(state(3, "3"))
    assert kinds(await audit(asking(plane))) == ["Shortened", "Rewritten"]
    (document,) = (await plane.harmony("audit", "verify", "pi-1", "--json")).documents
    assert (document["intact"], document["events"], document["report"]["seq"]) == (False, 0, 3)
    assert [each["kind"] for each in document["faults"]] == ["Shortened", "Rewritten"]
    assert [each["code"] for each in document["unchecked"]] == ["NoAnswer"]


async def test_of_an_agent_that_keeps_no_chain_that_is_said(plane: Ground) -> None:
    assert (await plane.harmony("audit", "verify", "pi-3")).status == 2
    await plane.pi.report(plane.pi.state(0))
    unknown = ErrorInfo(code="UnknownVerb", message="'audit' is not known here; update the agent")
    async with answering(plane, [Failed(seq=0, error=unknown)]):
        result = await audit(asking(plane))
        assert [type(each) for each in result.unchecked] == [NoAnswer, UnknownVerb]
        assert "says nothing of its record" in result.unchecked[0].message
        said = await plane.harmony("audit", "verify", "pi-1")
        assert said.status == 4
        assert "update the agent" in said.out


@pytest.mark.parametrize("seqs", [(1, 1), (2, 1), (0,), (-1,), (2**53,)], ids=str)
async def test_an_answer_that_leads_back_is_not_followed(
    plane: Ground, seqs: tuple[int, ...]
) -> None:
    items = [
        Item(seq=number, item={"seq": seq, "prior": CHAIN_START, "text": "{}"})
        for number, seq in enumerate(seqs, 1)
    ]
    frames: list[Frame] = [Alive(seq=0, at=NOON), *items, End(seq=len(items) + 1)]
    async with answering(plane, frames):
        with pytest.raises(NoAnswer, match="cannot be read"):
            await asking(plane).audit()
