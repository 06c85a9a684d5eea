"""Who devices are, told to operators elsewhere for as long as the server runs, whoever may sign it by then.

All is changed beside the server that runs: from another terminal, or from another machine.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Self

import attrs
import pytest

from harmony_control.bus.connection import Bucket
from harmony_control.fleet import Fleet
from harmony_control.server.roster import publish_devices, publishing_devices
from harmony_control.store import operator_key
from harmony_control.store.home import Home
from harmony_core.errors import ManifestRejected
from harmony_core.wire.actual_state import to_json
from harmony_core.wire.device_record import SERIAL_MAX, DeviceRecord, open_record, seal_record
from harmony_core.wire.device_signature import ACTUAL_STATE_TYPE, sign
from harmony_core.wire.envelope import Signer, generate_key, pin_keys, seal
from harmony_core.wire.names import ACTUAL_STATE, DEVICES
from harmony_core.wire.root import ROOT_TYPE, Root, Scope

from .ground import Ground, ground, harmony
from .test_signed_reports import operator_elsewhere, write


@attrs.frozen
class Roster(Ground):
    """As `Ground`, with an operator elsewhere."""

    bob: Home

    async def trust(self, *arguments: str, home: Home | None = None) -> None:
        """Change the root document by hand, as who has a copy of its root key."""
        key = ("--key", str(self.home.root_key)) if home else ()
        said = await harmony(home or self.home, "trust", *arguments, *key)
        assert said.status == 0, said.err

    async def read(self, key: Signer) -> DeviceRecord | None:
        """The record of pi-1, if that *key* has signed it."""
        found = await self.bus.bucket(DEVICES).get("pi-1")
        if found is None:
            return None
        trusted = pin_keys([key.public])
        try:
            return open_record(found.value, trusted=trusted, fleet="home", agent_id="pi-1")
        except ManifestRejected:
            return None

    async def until_signed_by(self, key: Signer) -> DeviceRecord:
        async with asyncio.timeout(20):
            while (found := await self.read(key)) is None:
                await asyncio.sleep(0.05)
        return found

    async def put(self, key: Signer, serial: int) -> None:
        """Write the true record of pi-1, signed by *key*."""
        report_key = self.home.agents()["pi-1"].report_key
        record = DeviceRecord(fleet="home", agent_id="pi-1", report_key=report_key, serial=serial)
        await Bucket(self.bus.admin, DEVICES).put("pi-1", seal_record(record, key))


@pytest.fixture
async def roster(tmp_path: Path) -> AsyncGenerator[Roster]:
    async with ground(tmp_path) as plane:
        bob = await operator_elsewhere(plane, tmp_path)
        yield Roster(plane.bus, plane.fleet, plane.pi, bob)


def new_key(root: Path) -> Home:
    """A home with another operator's key."""
    other = Home(root)
    operator_key.create(other)
    return other


def take_over(home: Home, key: Home) -> None:
    """Have *home* sign with the key of *key* from now on."""
    for name in ("operator_key", "operator_pub"):
        new = Path(f"{getattr(home, name)}.new")
        shutil.copy(getattr(key, name), new)
        new.rename(getattr(home, name))


def bring_forward(record: DeviceRecord) -> int:
    """A serial as of a clock that was a year ahead."""
    return record.serial + 365 * 24 * 3600 * 1000


async def test_a_new_operator_s_key_signs_who_devices_are_though_the_server_runs(
    roster: Roster, tmp_path: Path
) -> None:
    """By serials that readers believe, who have seen those of the earlier key."""
    old, new = operator_key.load(roster.home), new_key(tmp_path / "new")
    await roster.trust("init")
    await roster.pi.report(roster.pi.state(1))
    async with publishing_devices(roster.home, roster.bus.admin):
        ahead = bring_forward(await roster.until_signed_by(old))
        await roster.put(old, ahead)
        async with Fleet.connect(roster.bob) as his:
            assert await his.device("pi-1").state() is not None
        await roster.trust("add", "new", str(new.operator_pub))
        await asyncio.to_thread(take_over, roster.home, new)
        assert await roster.read(old) is not None, "it counts still, and need not be written"
        await roster.trust("remove", "admin")
        record = await roster.until_signed_by(operator_key.load(new))
    assert record.serial == ahead + 1
    async with Fleet.connect(roster.bob) as his:  # who has not read that document before
        assert await his.device("pi-1").state() is not None


async def test_who_counts_no_more_since_the_time_is_over_is_signed_after(
    roster: Roster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Later(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return super().now(tz) + timedelta(days=31)

    own, old = operator_key.load(roster.home), new_key(tmp_path / "old")
    await roster.trust("init")
    await roster.trust("add", "old", str(old.operator_pub), "--until", "30d")
    await roster.put(operator_key.load(old), serial := time.time_ns() // 1_000_000)
    async with publishing_devices(roster.home, roster.bus.admin):
        async with asyncio.timeout(20):
            while await roster.bus.bucket(DEVICES).get("pi-2") is None:
                await asyncio.sleep(0.05)
        assert await roster.read(operator_key.load(old)) is not None, "it counts still"
        monkeypatch.setattr("harmony_control.store.roots.datetime", Later)
        record = await roster.until_signed_by(own)
    assert record.serial > serial


async def test_a_root_document_from_another_machine_is_heard_of_by_the_server(
    roster: Roster, tmp_path: Path
) -> None:
    own, carol = operator_key.load(roster.home), new_key(tmp_path / "carol")
    await roster.trust("init")
    await roster.trust("add", "carol", str(carol.operator_pub))
    async with publishing_devices(roster.home, roster.bus.admin):
        first = await roster.until_signed_by(own)
        await roster.put(operator_key.load(carol), bring_forward(first))
        await roster.trust("remove", "carol", home=roster.bob)
        record = await roster.until_signed_by(own)
    assert record.serial == bring_forward(first) + 1
    assert (roster.home.trust / "3.json").read_bytes() == (roster.bob.trust / "3.json").read_bytes()


async def test_who_may_sign_no_records_says_so_once_and_replaces_none(
    roster: Roster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own, carol = operator_key.load(roster.home), new_key(tmp_path / "carol")
    await roster.trust("init")
    await roster.trust("add", "carol", str(carol.operator_pub))
    await roster.put(operator_key.load(carol), time.time_ns() // 1_000_000)
    await roster.trust("remove", "admin")
    with caplog.at_level(logging.ERROR):
        async with publishing_devices(roster.home, roster.bus.admin):
            await until(lambda: "may sign no records of devices" in caplog.text)
            told = len(caplog.records)
            await roster.trust("add", "admin", str(roster.home.operator_pub))
            await roster.trust("remove", "carol")
            await roster.until_signed_by(own)
    assert told == len(caplog.records) == 1


async def test_a_first_root_document_is_taken_in_from_nobody(
    roster: Roster,
) -> None:
    """Whoever may write the bucket, and has an operator's key: a person has to look at it."""
    bob, root_key = operator_key.load(roster.bob), generate_key()
    forged = Root(
        fleet="home",
        version=1,
        issued_at=datetime.now(UTC),
        root_keys=(root_key.public.to_text(),),
        root_threshold=1,
        scopes=(Scope(name="bob", keys=(bob.public.to_text(),)),),
    )
    envelope = seal(forged.payload(), root_key, bob, payload_type=ROOT_TYPE)
    await roster.bus.bucket("trust").put("1", envelope)
    async with publishing_devices(roster.home, roster.bus.admin):
        await roster.until_signed_by(operator_key.load(roster.home))
    assert roster.home.root_versions() == []


async def test_a_serial_that_none_can_follow_keeps_no_other_record_from_being_written(
    roster: Roster, caplog: pytest.LogCaptureFixture
) -> None:
    own = operator_key.load(roster.home)
    await roster.put(own, SERIAL_MAX)
    await roster.bus.enrol("pi-1", replace=True)
    await publish_devices(roster.home, roster.bus.admin)
    assert "pi-1 has the last serial" in caplog.text
    assert await roster.bus.bucket(DEVICES).get("pi-2") is not None


async def test_who_was_taken_out_is_believed_no_more_by_who_goes_on_reading(
    roster: Roster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `harmony serve` on another machine, which has learned from a thief who pi-1 is."""
    monkeypatch.setattr("harmony_control.bus.device_keys._LOOK_AGAIN_S", 0.1)
    own, carol, thief = operator_key.load(roster.home), new_key(tmp_path / "carol"), generate_key()
    await roster.trust("init")
    await roster.trust("add", "carol", str(carol.operator_pub))
    await publish_devices(roster.home, roster.bus.admin)
    first = await roster.until_signed_by(own)
    text = thief.public.to_text()
    false = first.model_copy(update={"report_key": text, "serial": first.serial + 1})
    await roster.bus.bucket(DEVICES).put("pi-1", seal_record(false, operator_key.load(carol)))
    data = to_json(roster.pi.state(9))
    await write(roster, ACTUAL_STATE, data, sign(thief, ACTUAL_STATE_TYPE, data))
    async with Fleet.connect(roster.bob) as his, asyncio.timeout(20):
        assert await his.device("pi-1").state() is not None, "carol may say who pi-1 is"
        await roster.trust("remove", "carol", "--stolen")
        while await his.device("pi-1").state() is not None:
            await asyncio.sleep(0.05)
        await publish_devices(roster.home, roster.bus.admin)
        await roster.pi.report(roster.pi.state(2))
        while (state := await his.device("pi-1").state()) is None:
            await asyncio.sleep(0.05)
        assert state.generation == 2


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_so():
            await asyncio.sleep(0.05)
