"""Volumes on their way, from what holds them on a device to an operator and back: sealed; whole, whatever is
lost on the way; for who began it alone; deleted once nobody asks. The bus between loses things."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest

from harmony_agent.apply.policy import DevicePolicy
from harmony_agent.policy_toml import PolicyTable
from harmony_agent.rpc.transfers import VolumeTransfers
from harmony_agent.wiring import refuse_volume_data
from harmony_control.bus.volume_data import load_volume, save_volume
from harmony_core.change import Change
from harmony_core.errors import (
    CapabilityUnavailable,
    InvalidRequest,
    LoadTakenBack,
    NoAnswer,
    OutOfScope,
    PolicyRefused,
    RequestFailed,
    TransferDamaged,
    UnknownTransfer,
    VolumeBusy,
    WriteFailed,
)
from harmony_core.resources import Volume
from harmony_core.volumes import ArchivedVolume, LoadedVolume, TellBytes
from harmony_core.wire.envelope import generate_key
from harmony_core.wire.replies import JsonItem, VolumeArchived, VolumeLoaded, item_as
from harmony_core.wire.requests import (
    PIECE_MAX_BYTES,
    READ_MAX_BYTES,
    VolumeEnd,
    VolumeLoad,
    VolumeRead,
    VolumeSave,
    VolumeWrite,
)
from harmony_core.wire.root import Root, Scope
from harmony_core.wire.sealed import open_box, seal_box

T = TypeVar("T")
ADA, BOB = ("key of ada",), ("key of bob",)
ID, OTHER_ID = "0" * 32, "1" * 32
DEVICE = generate_key()


class Host:
    """A reconciler of volumes: `KeepsVolumeData`, over one volume in memory."""

    resource_class = Volume

    def __init__(self) -> None:
        self.data = b"data"
        self.waits = asyncio.Event()
        self.waits.set()
        self.fails: Exception | None = None
        self.was_cancelled = False
        self.began = asyncio.Event()
        self.recovered = 0
        self.recovery_fails: list[Exception] = []

    async def save_volume(
        self,
        name: str,
        into: Path,
        *,
        stop: bool,
        settle: Callable[[], Awaitable[None]],
        tell: TellBytes,
    ) -> ArchivedVolume:
        self.began.set()
        try:
            await self.waits.wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        if self.fails is not None:
            raise self.fails
        await asyncio.to_thread(into.write_bytes, self.data)
        return ArchivedVolume(
            size_bytes=len(self.data),
            sha256=hashlib.sha256(self.data).hexdigest(),
            rested=("stopped",) if stop else (),
        )

    async def load_volume(
        self,
        name: str,
        archive: Path,
        *,
        keep_previous: bool,
        settle: Callable[[], Awaitable[None]],
    ) -> LoadedVolume:
        if self.fails is not None:
            raise self.fails
        self.data = await asyncio.to_thread(archive.read_bytes)
        return LoadedVolume(previous="there" if keep_previous else "")

    async def recover_volumes(self) -> str:
        self.recovered += 1
        if self.recovery_fails:
            raise self.recovery_fails.pop()
        return ""


class Holders:
    """A ledger, of which only this is asked."""

    def holders(self, resource: str) -> set[str]:
        return {"data"}


class Place:
    """A device, and the operator who asks it."""

    def __init__(
        self,
        root: Path,
        *,
        policy: str = 'preset = "open"',
        kept_for_s: float = 600,
        has_volumes: bool = True,
    ) -> None:
        self.host = Host()
        # Nothing else of them is asked here.
        offers: Any = {"VolumeHost": self.host} if has_volumes else {}
        ledger: Any = Holders()
        self.spool = root / "volumes"
        self.noted: list[tuple[str, str, Sequence[str]]] = []
        rules = DevicePolicy(rules=PolicyTable.read_text(policy))

        def permit(volume: str, keyids: Sequence[str]) -> None:
            refuse_volume_data(rules, None, "agent:pi-1", volume, keyids, datetime.now(UTC))

        self.transfers = VolumeTransfers(
            offers=offers,
            ledger=ledger,
            spool=self.spool,
            key=DEVICE,
            permit=permit,
            settle=settled,
            aside=asyncio.to_thread,
            record=self.note,
            kept_for_s=kept_for_s,
        )

    def note(self, score: str, change: Change, signed_by: Sequence[str]) -> None:
        (action,) = change.actions
        self.noted.append((change.resource, action, signed_by))

    async def ask(self, ask: Any, keyids: Sequence[str] = ADA) -> list[JsonItem]:
        return [item async for item in self.transfers.of(ask, keyids)]

    def kept(self) -> list[str]:
        return sorted(each.name for each in self.spool.iterdir()) if self.spool.exists() else []


async def settled() -> None:
    """Nobody changes anything here."""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


class Asking:
    """What `harmony_control.bus.requests.Asking` is to a transfer, over a bus that loses what *dice* say."""

    agent_id = "pi-1"

    def __init__(self, place: Place, loses: float = 0.0, seed: int = 0) -> None:
        self._place = place
        self._loses = loses
        self._dice = random.Random(seed)
        self.seen: list[str] = []
        self.turns: Callable[[JsonItem], JsonItem] = lambda item: item
        self.most_bytes = 0

    def _lose(self) -> None:
        # A device of which nothing at all was heard is not asked again by this.
        if len(self.seen) > 2 and self._dice.random() < self._loses:
            raise NoAnswer("lost")

    async def items(self, ask: Any, *, lifetime_s: float = 60) -> AsyncGenerator[JsonItem]:
        self._lose()
        self.seen.append(str(ask.model_dump()))
        size = 0
        async for item in self._place.transfers.of(ask, ADA):
            self.seen.append(str(item))
            size += len(str(item))
            self._lose()
            yield self.turns(item)
        self.most_bytes = max(self.most_bytes, size)

    def read(self, cls: type[T], item: JsonItem) -> T:
        return item_as(cls, item)

    async def find_key(self) -> str:
        return DEVICE.public.to_text()


async def save(asking: Any) -> bytes:
    taken = bytearray()
    told: list[int] = []
    await save_volume(
        asking, "data", taken.extend, stop=False, tell=lambda _, done, of: told.append(done)
    )
    return bytes(taken)


async def load(asking: Any, data: bytes, *, keep: bool = False) -> VolumeLoaded:
    return await load_volume(
        asking,
        "data",
        lambda offset, most: data[offset : offset + most],
        of_bytes=len(data),
        keep_previous=keep,
        tell=lambda _what, _done, _of: None,
    )


@pytest.mark.parametrize("size", [0, 1, PIECE_MAX_BYTES, 2 * READ_MAX_BYTES + 17])
async def test_what_is_saved_and_loaded_is_the_same_and_nothing_is_left(
    place: Place, size: int
) -> None:
    place.host.data = random.Random(size).randbytes(size)
    asking = Asking(place)
    saved = await save(asking)
    assert saved == place.host.data
    place.host.data = b"other"
    assert (await load(asking, saved, keep=True)).previous == "there"
    assert place.host.data == saved
    assert place.kept() == []
    assert asking.most_bytes < 2 * READ_MAX_BYTES
    said = [(actions.split(" (")[0], by) for _, actions, by in place.noted]
    assert said == [
        ("saved the data of volume data", list(ADA)),
        ("replaced the data of volume data", list(ADA)),
    ]


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_is_lost_on_the_way_what_arrives_is_whole(
    place: Place, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harmony_control.bus.volume_data._ASK_AGAIN_S", 0.0)
    data = random.Random(seed).randbytes(1_300_000)
    place.host.data = data
    asking = Asking(place, loses=0.15, seed=seed)
    assert await save(asking) == data
    place.host.data = b""
    await load(Asking(place, loses=0.15, seed=seed + 100), data)
    assert place.host.data == data


async def test_the_bus_sees_nothing_of_the_data(place: Place) -> None:
    place.host.data = b"PASSWORD=hunter2 " * 1000
    asking = Asking(place)
    await load(asking, await save(asking))
    seen = " ".join(asking.seen)
    assert "hunter2" not in seen
    assert "UEFTU1dPUkQ9aHVudGVyMi" not in seen  # in base64


def reseal(item: JsonItem) -> JsonItem:
    return {**item, "box": seal_box(b"other", generate_key().public)}


def misplace(item: JsonItem) -> JsonItem:
    return {**item, "offset": item["offset"] + 1}


def garble(item: JsonItem) -> JsonItem:
    return {**item, "box": "no box"}


@pytest.mark.parametrize("spoil", [reseal, misplace, garble])
async def test_a_piece_that_is_not_what_was_asked_for_is_never_taken(
    place: Place, spoil: Callable[[JsonItem], JsonItem]
) -> None:
    asking = Asking(place)
    asking.turns = lambda item: spoil(item) if "box" in item else item
    with pytest.raises(TransferDamaged):
        await save(asking)
    assert place.kept() == []


async def test_an_archive_that_is_not_what_its_hash_says_is_told(place: Place) -> None:
    asking = Asking(place)
    asking.turns = lambda item: {**item, "sha256": "0" * 64} if "sha256" in item else item
    with pytest.raises(TransferDamaged):
        await save(asking)


async def test_what_did_not_arrive_as_it_was_sent_changes_nothing(place: Place) -> None:
    await place.ask(VolumeWrite(volume="data", transfer=ID, offset=0, box=boxed(b"new")))
    for size, sha256 in ((3, "0" * 64), (4, hashlib.sha256(b"new").hexdigest())):
        with pytest.raises((TransferDamaged, UnknownTransfer)):
            await place.ask(VolumeLoad(volume="data", transfer=ID, size_bytes=size, sha256=sha256))
    assert place.host.data == b"data"
    assert place.kept() == []


def boxed(data: bytes) -> str:
    return seal_box(data, DEVICE.public)


async def test_a_piece_counts_once_and_none_is_left_out(place: Place) -> None:
    async def write(offset: int, data: bytes) -> int:
        (item,) = await place.ask(
            VolumeWrite(volume="data", transfer=ID, offset=offset, box=boxed(data))
        )
        return int(item["done_bytes"])

    assert [await write(0, b"one"), await write(0, b"one"), await write(3, b"two")] == [3, 3, 6]
    with pytest.raises(InvalidRequest, match="leaves out"):
        await write(7, b"four")
    sha256 = hashlib.sha256(b"onetwo").hexdigest()
    asked = VolumeLoad(volume="data", transfer=ID, size_bytes=6, sha256=sha256)
    for _ in range(2):  # its answer may have been lost
        item_as(VolumeLoaded, (await place.ask(asked))[-1])
    assert place.host.data == b"onetwo"
    with pytest.raises(InvalidRequest, match="being loaded"):
        await write(6, b"more")


async def test_what_is_not_sealed_to_this_device_is_refused(place: Place) -> None:
    box = seal_box(b"new", generate_key().public)
    with pytest.raises(TransferDamaged):
        await place.ask(VolumeWrite(volume="data", transfer=ID, offset=0, box=box))


async def test_nobody_else_goes_on_with_a_transfer(place: Place) -> None:
    mine = generate_key()
    ask = VolumeSave(volume="data", transfer=ID, seal_to=mine.public.to_text())
    item_as(VolumeArchived, (await place.ask(ask))[-1])
    theirs = VolumeSave(volume="data", transfer=ID, seal_to=generate_key().public.to_text())
    for other in (VolumeRead(transfer=ID, offset=0), VolumeEnd(transfer=ID), theirs):
        with pytest.raises(UnknownTransfer):
            await place.ask(other, BOB)
    # Also for who began it, all is sealed to the key that was named then.
    await place.ask(theirs)
    (piece,) = await place.ask(VolumeRead(transfer=ID, offset=0))
    assert open_box(piece["box"], mine) == b"data"
    with pytest.raises(UnknownTransfer):
        await place.ask(VolumeRead(transfer=OTHER_ID, offset=0))


async def test_an_appliance_gives_and_takes_only_the_data_that_it_lists(tmp_path: Path) -> None:
    place = Place(tmp_path, policy='preset = "appliance"\nvolume_data = ["web-*"]')
    key = generate_key().public.to_text()
    for ask in (
        VolumeSave(volume="data", transfer=ID, seal_to=key),
        VolumeWrite(volume="data", transfer=ID, offset=0, box=boxed(b"new")),
        VolumeLoad(volume="data", transfer=ID, size_bytes=0, sha256="0" * 64),
    ):
        with pytest.raises(PolicyRefused, match=r'volume_data = \["web-\*"\]'):
            await place.ask(ask)
    assert place.kept() == []
    assert place.noted == []
    await place.ask(VolumeSave(volume="web-data", transfer=ID, seal_to=key))
    assert place.kept() == [f"{ID}.tar"]


def root_of(*scopes: Scope) -> Root:
    return Root(
        fleet="home",
        version=1,
        issued_at=datetime.now(UTC),
        root_keys=(generate_key().public.to_text(),),
        root_threshold=1,
        scopes=scopes,
    )


def test_only_who_may_push_volumes_and_what_sees_them_may_have_their_data() -> None:
    ada, bob, eve, dan = (generate_key() for _ in range(4))
    policy, now = DevicePolicy(), datetime.now(UTC)
    of_all = root_of(
        Scope(name="ada", keys=(ada.public.to_text(),)),
        Scope(name="support", keys=(eve.public.to_text(),), signs=("request",)),
        Scope(name="bob", keys=(bob.public.to_text(),), kinds=("FileScore",)),
    )
    refuse_volume_data(policy, of_all, "agent:pi-1", "data", [ada.public.id], now)
    for other in (bob, eve, generate_key()):
        with pytest.raises(OutOfScope, match="VolumeScore"):
            refuse_volume_data(policy, of_all, "agent:pi-1", "data", [other.public.id], now)
    # One makes volumes, and the other containers: it takes both.
    of_some = root_of(
        Scope(name="ada", keys=(ada.public.to_text(),), kinds=("VolumeScore", "ContainerScore")),
        Scope(name="bob", keys=(bob.public.to_text(),), kinds=("ContainerScore",)),
        Scope(name="dan", keys=(dan.public.to_text(),), kinds=("VolumeScore",)),
    )
    for allowed in ([ada.public.id], [bob.public.id, dan.public.id]):
        refuse_volume_data(policy, of_some, "agent:pi-1", "data", allowed, now)
    for other, lacks in ((bob, "VolumeScore"), (dan, "ContainerScore")):
        with pytest.raises(OutOfScope, match=lacks):
            refuse_volume_data(policy, of_some, "agent:pi-1", "data", [other.public.id], now)


async def test_what_nobody_asks_for_is_deleted(tmp_path: Path) -> None:
    place = Place(tmp_path, kept_for_s=0.05)
    await place.ask(VolumeWrite(volume="data", transfer=ID, offset=0, box=boxed(b"new")))
    assert place.kept() == [f"{ID}.tar"]
    async with asyncio.timeout(20):
        while place.kept():
            await asyncio.sleep(0.01)
    with pytest.raises(UnknownTransfer, match="begin again"):
        await place.ask(VolumeWrite(volume="data", transfer=ID, offset=3, box=boxed(b"more")))


async def test_only_few_are_on_their_way_at_once(place: Place) -> None:
    for n in range(4):
        await place.ask(
            VolumeWrite(volume="data", transfer=f"{n:032x}", offset=0, box=boxed(b"new"))
        )
    with pytest.raises(VolumeBusy):
        await place.ask(VolumeWrite(volume="data", transfer="f" * 32, offset=0, box=boxed(b"new")))
    await place.ask(VolumeEnd(transfer=f"{1:032x}"))
    await place.ask(VolumeWrite(volume="data", transfer="f" * 32, offset=0, box=boxed(b"new")))


async def test_two_that_ask_for_one_at_once_get_the_same(place: Place) -> None:
    mine = generate_key()
    ask = VolumeSave(volume="data", transfer=ID, seal_to=mine.public.to_text())
    # Somebody else, who has guessed the number, comes too late.
    answers = await asyncio.gather(
        place.ask(ask), place.ask(ask), place.ask(ask, BOB), return_exceptions=True
    )
    first, second, third = answers
    assert isinstance(first, list)
    assert isinstance(second, list)
    assert isinstance(third, UnknownTransfer)
    assert first[-1] == second[-1]
    assert item_as(VolumeArchived, first[-1]).size_bytes == len(place.host.data)
    assert len(place.noted) == 1
    write = VolumeWrite(volume="data", transfer=OTHER_ID, offset=0, box=boxed(b"new"))
    both = await asyncio.gather(place.ask(write), place.ask(write))
    assert [each[0]["done_bytes"] for each in both] == [3, 3]


async def test_where_the_spool_cannot_be_made_nothing_is_left_of_it(place: Place) -> None:
    place.spool.write_text("in its place")
    ask = VolumeSave(volume="data", transfer=ID, seal_to=generate_key().public.to_text())
    for _ in range(6):  # more than may be on their way
        with pytest.raises(WriteFailed):
            await place.ask(ask)


async def test_one_that_is_given_up_while_it_is_read_lets_everybody_go_on(place: Place) -> None:
    place.host.waits.clear()
    ask = VolumeSave(volume="data", transfer=ID, seal_to=generate_key().public.to_text())
    items = place.transfers.of(ask, ADA)
    assert (await anext(items))["done_bytes"] == 0
    await place.host.began.wait()
    await place.ask(VolumeEnd(transfer=ID))
    assert place.host.was_cancelled
    with pytest.raises(UnknownTransfer):
        await anext(items)
    place.host.was_cancelled = False
    place.host.began.clear()
    other = place.transfers.of(ask.model_copy(update={"transfer": OTHER_ID}), ADA)
    await anext(other)
    await place.host.began.wait()
    await place.transfers.close()
    assert place.host.was_cancelled
    await items.aclose()
    await other.aclose()


@pytest.mark.parametrize("error", [CapabilityUnavailable("silent"), LoadTakenBack("back")])
async def test_one_that_fails_is_told_and_may_be_begun_again(
    place: Place, error: Exception
) -> None:
    place.host.fails = error
    place.host.recovery_fails = [CapabilityUnavailable("podman does not answer")]
    with pytest.raises(type(error)):
        await load(Asking(place), b"new")
    assert place.kept() == []
    if isinstance(error, CapabilityUnavailable):
        # Who was stopped for it is still to go on: that is tried until podman answers.
        assert place.host.recovered == 1
    else:
        assert "put back what was there" in place.noted[0][1]
    place.host.fails = None
    await load(Asking(place), b"new")
    assert place.host.data == b"new"
    await place.transfers.close()


async def test_what_is_left_is_tried_again_whatever_hinders_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harmony_agent.rpc.transfers._RECOVERED_AGAIN_S", 0.0)
    hindrances: list[Exception] = [VolumeBusy("another"), RecursionError(), OSError(5, "I/O error")]
    for error in hindrances:
        place.host.fails = error
        place.host.recovery_fails = list(hindrances)
        place.host.recovered = 0
        with pytest.raises(type(error)):
            await load(Asking(place), b"new")
        async with asyncio.timeout(20):
            while place.host.recovered <= len(hindrances):
                await asyncio.sleep(0)
    await place.transfers.close()


async def test_what_the_last_agent_has_left_is_deleted_and_finished(place: Place) -> None:
    place.spool.mkdir()
    (place.spool / "left.tar").write_bytes(b"secret")
    await place.transfers.recover()
    assert place.kept() == []
    assert place.host.recovered == 1


async def test_where_there_are_no_volumes_it_says_so(tmp_path: Path) -> None:
    place = Place(tmp_path, has_volumes=False)
    with pytest.raises(RequestFailed, match="podman"):
        await place.ask(VolumeWrite(volume="data", transfer=ID, offset=0, box=boxed(b"")))
