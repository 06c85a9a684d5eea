"""Rollouts of many light devices on a real bus: what fails touches nobody else, each wave is opened once."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Self

import pytest

from harmony_control.bus.reports import Reports
from harmony_control.rollout.controller import Rollout
from harmony_control.rollout.documents import ClassDocuments
from harmony_control.rollout.index import add_gate_key
from harmony_control.rollout.judge import Progress
from harmony_control.store.gate_key import make_gate_key
from harmony_core.errors import ConfigError, RevisionConflict, UntrustedSignature
from harmony_core.wire.envelope import generate_key, pin_keys, seal
from harmony_core.wire.gate import GATE_TYPE, Gate
from harmony_core.wire.names import ROLLOUT
from harmony_core.wire.times import parse_rfc3339, rfc3339
from tests.nats import serving

from .light_fleet import CLASS, LightDevice, LightFleet, light_fleet
from .scripted_device import ScriptedDevice


async def test_of_200_devices_what_fails_comes_back_and_touches_nobody_else(tmp_path: Path) -> None:
    async with light_fleet(tmp_path, 200) as fleet:
        await fleet.publish("one", ["100%"])
        assert (await fleet.go(fleet.rollout())).state == "done"
        assert all(each.followed == [1] for each in fleet.devices)

        # 12 of 200, 6 %: none in the first wave of 2, and 2 in the second of 20.
        order = fleet.by_place(2)
        for each in order[3::16][:12]:
            each.breaks = frozenset({2})
        before = {each.id: each.received_bytes for each in fleet.devices}
        await fleet.publish("2" * 64 * 1024, ["1%", "10%"])
        end = await fleet.go(fleet.rollout())
        assert end.state == "aborted"
        assert "motd: JobFailed: on purpose" in end.reason
        assert all(each.followed == [1, 2, 1] for each in order[:20])
        assert all(each.followed == [1] for each in order[20:])
        # The class manifest went once to each that was reached; the others have read gates and no more.
        received = [(each.received_bytes - before[each.id]) / 1024 for each in order]
        assert all(64 < each < 128 for each in received[:20])
        assert all(each < 8 for each in received[20:])
        found = await fleet.rollout().read()
        counts = found.progress.counts
        assert (counts["RolledBack"], counts["NotReached"]) == (20, 180)

        # What is right then comes to all of them, those that went back, too.
        await fleet.publish("three", ["1%", "10%"])
        assert (await fleet.go(fleet.rollout())).state == "done"
        assert all(each.followed[-1] == 3 for each in fleet.devices)


class _Freezing(Rollout):
    """A controller that freezes when it has decided, before it writes."""

    frozen: asyncio.Event
    thaw: asyncio.Event
    fenced = 0

    async def _write(
        self, documents: ClassDocuments, before: Progress, gate: Gate, *, by_operator: bool = False
    ) -> Gate:
        self.frozen.set()
        await self.thaw.wait()
        try:
            return await super()._write(documents, before, gate, by_operator=by_operator)
        except RevisionConflict:
            self.fenced += 1
            raise


@pytest.mark.parametrize("seed", range(3))
async def test_of_controllers_that_freeze_and_are_revived_each_step_is_done_once(
    tmp_path: Path, seed: int
) -> None:
    dice = random.Random(seed)
    steps = [str(each) for each in range(1, 11)]
    async with light_fleet(tmp_path, 12) as fleet:
        await fleet.publish("one", steps)
        awake, frozen = fleet.rollout(), fleet.rollout(_Freezing)
        assert isinstance(frozen, _Freezing)
        gate = (await awake.read()).progress.gate
        while gate.state != "done":
            frozen.frozen, frozen.thaw = asyncio.Event(), asyncio.Event()
            await fleet.look()
            revived = asyncio.create_task(frozen.step())
            await frozen.frozen.wait()
            for _ in range(dice.randrange(3)):
                await awake.step()
                await fleet.look()
            frozen.thaw.set()
            await revived
            gate = (await awake.read()).progress.gate
        gates = await awake.history()
        opened = [(each.state, each.step) for each in gates]
        assert opened == [*(("running", at) for at in range(11)), ("done", 10)]
        assert frozen.fenced > 0
        assert all(each.followed == [1] for each in fleet.devices)


async def test_an_abort_is_of_the_generation_that_was_looked_at_alone(tmp_path: Path) -> None:
    async with light_fleet(tmp_path, 3) as fleet:
        await fleet.publish("one", [])
        await fleet.go(fleet.rollout())
        frozen = fleet.rollout(_Freezing)
        assert isinstance(frozen, _Freezing)
        frozen.frozen, frozen.thaw = asyncio.Event(), asyncio.Event()
        abort = asyncio.create_task(frozen.order("abort"))
        await frozen.frozen.wait()
        await fleet.publish("two", [])
        frozen.thaw.set()
        said = "generation 2 of .* was published meanwhile, and abort was for generation 1"
        with pytest.raises(RevisionConflict, match=said):
            await abort
        gate = (await fleet.rollout().read()).progress.gate
        assert (gate.generation, gate.state) == (2, "running")


class _Later(datetime):
    """A clock by which every deadline is over."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return super().now(tz) + timedelta(hours=1)


async def test_who_has_just_come_back_is_not_late_before_it_has_heard_of_the_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks how it stands has seen nothing before."""
    async with light_fleet(tmp_path, 3) as fleet:
        ready, stuck, back = fleet.devices
        await fleet.publish("one", [])
        await ready.look(fleet.keys)
        await stuck.look(fleet.keys)
        await stuck.report("Waiting")
        monkeypatch.setattr("harmony_control.rollout.controller.datetime", _Later)
        found = await fleet.rollout().read()
        states = {each.member.id: each.state for each in found.progress.judged}
        assert states == {ready.id: "Ready", stuck.id: "Unhealthy", back.id: "Progressing"}
        await fleet.look()
        (judged,) = (
            each
            for each in (await fleet.rollout().read()).progress.judged
            if each.member.id == back.id
        )
        assert judged.state == "Ready"


async def test_who_comes_back_with_a_clock_that_is_behind_has_the_whole_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path, "pi-1") as bus:
        away = LightDevice(ScriptedDevice(await bus.device("pi-1")))
        documents = await ClassDocuments.open(bus.home, bus.admin)
        keys = dict(documents.believed.keys)
        fleet = LightFleet(bus, Reports(bus.home, bus.admin), [away], keys)
        await away.scripted.report(away.scripted.state(0))
        await fleet.publish("one", [])
        rollout = fleet.rollout()
        assert (await rollout.step()).next is None

        monkeypatch.setattr("harmony_control.rollout.controller.datetime", _Later)
        behind = _Later.now(UTC) - timedelta(minutes=11)
        monkeypatch.setattr("tests.control.light_fleet._now", lambda: behind)
        await away.scripted.beat()
        await away.look(keys)
        await away.report("Admitted")
        found = await rollout.step()
        (judged,) = found.progress.judged
        assert (found.next, judged.state, judged.member.begun_at) == (
            None,
            "Progressing",
            parse_rfc3339(rfc3339(behind)),
        )
        assert judged.until is not None
        assert judged.member.back_at is not None
        assert judged.until - judged.member.back_at == timedelta(minutes=10)


async def test_a_gate_that_was_put_back_is_refused_by_each_device_and_outrun(
    tmp_path: Path,
) -> None:
    async with light_fleet(tmp_path, 10) as fleet:
        await fleet.publish("one", ["1", "5"])
        rollout, bucket = fleet.rollout(), fleet.bus.bucket(ROLLOUT)
        first = await bucket.get(CLASS)
        assert first is not None
        await fleet.go(rollout)
        await bucket.put(CLASS, first.value)
        await fleet.look()
        assert all(len(each.refused) == 1 for each in fleet.devices)
        # The controller that died knew of it; this one learns of it from what devices say.
        end = await fleet.go(fleet.rollout())
        await fleet.look()
        assert (end.state, end.term) == ("done", 2)
        assert all((each.gate, each.followed) == (end, [1]) for each in fleet.devices)


async def test_a_generation_that_the_server_lost_is_not_used_again(tmp_path: Path) -> None:
    async with light_fleet(tmp_path, 3) as fleet:
        await fleet.publish("one", ["100%"])
        await fleet.go(fleet.rollout())
        bucket = fleet.bus.bucket(ROLLOUT)
        first = (await bucket.history(CLASS))[-1]
        await fleet.publish("two", ["100%"])
        await fleet.go(fleet.rollout())
        await bucket.put(CLASS, first.value)
        published = await fleet.publish("three", ["100%"])
        assert published.generation == 3
        await fleet.go(fleet.rollout())
        assert all(each.followed == [1, 2, 3] for each in fleet.devices)


async def test_a_device_that_lies_of_its_gate_holds_nobody_up(tmp_path: Path) -> None:
    async with light_fleet(tmp_path, 10) as fleet:
        fleet.devices[0].told_gate = (2**53 - 1, 2**53 - 1)
        fleet.devices[1].told_gate = (1, 2**53 - 1)
        await fleet.publish("one", ["1", "5"])
        end = await fleet.go(fleet.rollout())
        assert (end.state, end.term < 100) == ("done", True)
        assert all(each.followed == [1] for each in fleet.devices)


async def test_a_home_with_nothing_but_a_key_for_gates_opens_waves_only_where_it_may(
    tmp_path: Path,
) -> None:
    async with light_fleet(tmp_path, 3) as fleet:
        home = fleet.bus.home
        await fleet.publish("one", ["1"])
        await fleet.look()
        key = await asyncio.to_thread(make_gate_key, home)
        home.operators.mkdir(exist_ok=True)
        (home.operators / "ann.pub").write_text(home.operator_pub.read_text())
        home.operator_key.rename(tmp_path / "kept-elsewhere")
        with pytest.raises(ConfigError, match="has no operator's key"):
            await fleet.rollout().step()

        (tmp_path / "kept-elsewhere").rename(home.operator_key)
        documents = await ClassDocuments.open(home, fleet.bus.admin)
        await add_gate_key(documents, fleet.reports, key.public)
        home.operator_key.rename(tmp_path / "kept-elsewhere")
        fleet.keys.update(pin_keys([key.public]))
        assert (await fleet.go(fleet.rollout(signer=key))).state == "done"
        assert all(each.followed == [1] for each in fleet.devices)
        with pytest.raises(ConfigError, match="has no operator's key"):
            await fleet.rollout(signer=key).order("abort")
        with pytest.raises(ConfigError, match="has no operator's key"):
            await fleet.publish("two", ["1"])


async def test_gates_of_somebody_who_was_taken_out_since_hide_none_of_the_others(
    tmp_path: Path,
) -> None:
    async with light_fleet(tmp_path, 3) as fleet:
        await fleet.publish("one", ["1"])
        bucket = fleet.bus.bucket(ROLLOUT)
        first = await bucket.get(CLASS)
        assert first is not None
        gate = (await fleet.rollout().read()).progress.gate
        gone = gate.model_copy(update={"seq": 2})
        await bucket.put(CLASS, seal(gone.payload(), generate_key(), payload_type=GATE_TYPE))
        with pytest.raises(UntrustedSignature):
            await fleet.rollout().read()
        await bucket.put(CLASS, first.value)
        assert (await fleet.go(fleet.rollout())).state == "done"
