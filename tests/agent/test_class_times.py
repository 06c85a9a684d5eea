"""A device begins with a new generation of its class when its time has come, though nobody tells it: on a
virtual clock, with the clock on the wall going along."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import pytest

from harmony_agent import class_watch, clock
from harmony_agent.store import classes, desired
from harmony_core.testing import FakeFiles
from harmony_core.wire.actual_state import LayerStatus
from harmony_core.wire.class_manifest import (
    CLASS_TYPE,
    PLACES,
    ClassManifest,
    Rollout,
    Step,
    Window,
)
from harmony_core.wire.envelope import generate_key
from harmony_core.wire.fleet_index import FLEET_TYPE, ClassRule, FleetIndex, Selected
from harmony_core.wire.gate import GATE_TYPE, Gate

from . import virtual
from .rig import Note, entry
from .virtual import VirtualDevice, running_device

pytestmark = pytest.mark.looptime

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
GATES = generate_key()
RULE = ClassRule(selectors=(Selected(since=1, selector="role=kiosk"),), priority=0)


class Wall(datetime):
    """Shows noon when the loop begins, and goes as that does."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Wall:
        at = NOON + timedelta(seconds=asyncio.get_running_loop().time())
        return cls.fromtimestamp(at.timestamp(), tz)


@pytest.fixture(autouse=True)
def greenwich(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    monkeypatch.setenv("TZ", "Etc/GMT")
    time.tzset()
    for module in (class_watch, clock, classes, desired, virtual):
        monkeypatch.setattr(module, "datetime", Wall)
    yield
    monkeypatch.undo()
    time.tzset()


@asynccontextmanager
async def running_kiosk(tmp_path: Path) -> AsyncGenerator[VirtualDevice]:
    async with running_device(tmp_path, {"FileSystemHost": FakeFiles()}, Note) as device:
        _put_index(device, {"kiosk": RULE}, generation=1)
        device.push([], labels={"role": "kiosk"})
        yield device


def _put_index(device: VirtualDevice, rules: dict[str, ClassRule], *, generation: int) -> None:
    index = FleetIndex(
        fleet="home",
        generation=generation,
        issued_at=NOON,
        classes=rules,
        gate_keys=(GATES.public.to_text(),),
    )
    device.put_of_class("fleet.index", index.payload(), FLEET_TYPE)


def _roll_out(device: VirtualDevice, rollout: Rollout, name: str = "kiosk", **gate: Any) -> None:
    """Put the first generation of the class, and a gate that is open for all."""
    manifest = ClassManifest(
        fleet="home",
        target=f"class:{name}",
        generation=1,
        issued_at=NOON,
        scores=(entry(Note(path=f"/etc/{name}"), name),),
        rollout=rollout,
    )
    device.put_of_class(f"desired-class.{name}.1", manifest.payload(), CLASS_TYPE)
    fields: dict[str, Any] = {"state": "running", "places": PLACES, **gate}
    opened = Gate(
        fleet="home",
        name=name,
        generation=1,
        sha256=hashlib.sha256(manifest.payload()).hexdigest(),
        issued_at=NOON,
        term=1,
        seq=1,
        **fields,
    )
    # No operator: with their own word, devices begin before the time that they have signed.
    device.put_of_class(f"rollout.{name}", opened.payload(), GATE_TYPE, GATES)


def _layer(device: VirtualDevice, name: str = "kiosk") -> LayerStatus:
    assert device.bus.told is not None
    return device.bus.told.layers[f"class:{name}"]


async def _until_applied(device: VirtualDevice, name: str = "kiosk") -> float:
    """Return when it was, in seconds after noon."""
    while device.bus.told is None or _layer(device, name).phase != "Applied":
        await asyncio.sleep(0.5)
    return asyncio.get_running_loop().time()


async def test_it_begins_when_its_window_opens_and_nobody_says_so(tmp_path: Path) -> None:
    async with running_kiosk(tmp_path) as kiosk:
        _roll_out(kiosk, Rollout(windows=(Window(begin="15:00", until="15:30"),)))
        kiosk.bus.on_class_hint("fleet.index")
        await asyncio.sleep(10)
        assert _layer(kiosk).reason == "OutsideWindow"
        assert 3 * 3600 <= await _until_applied(kiosk) < 3 * 3600 + 10


async def test_it_begins_when_its_wave_opens_and_nobody_says_so(tmp_path: Path) -> None:
    """The gate may be open already: what an operator has signed says when."""
    async with running_kiosk(tmp_path) as kiosk:
        steps = (Step(upto="0", places=0, soak_s=7200), Step(upto="100%", places=PLACES))
        _roll_out(kiosk, Rollout(steps=steps), state="done")
        kiosk.bus.on_class_hint("fleet.index")
        await asyncio.sleep(10)
        assert _layer(kiosk).reason == "TooEarly"
        assert 2 * 3600 <= await _until_applied(kiosk) < 2 * 3600 + 10


async def test_a_time_zone_in_which_its_window_is_open_counts_within_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_kiosk(tmp_path) as kiosk:
        _roll_out(kiosk, Rollout(windows=(Window(begin="21:50", until="22:30"),)))
        kiosk.bus.on_class_hint("fleet.index")
        await asyncio.sleep(10)
        assert _layer(kiosk).reason == "OutsideWindow"
        monkeypatch.setenv("TZ", "Etc/GMT-10")  # ten hours ahead
        assert await _until_applied(kiosk) < 80


async def test_a_hint_of_a_class_that_it_does_not_know_has_it_look_at_the_index(
    tmp_path: Path,
) -> None:
    """The hint of the index may have been lost."""
    async with running_kiosk(tmp_path) as kiosk:
        _roll_out(kiosk, Rollout())
        kiosk.bus.on_class_hint("fleet.index")
        await _until_applied(kiosk)
        _put_index(kiosk, {"kiosk": RULE, "door": RULE}, generation=2)
        _roll_out(kiosk, Rollout(), "door")
        await asyncio.sleep(10)
        kiosk.bus.on_class_hint("rollout.door")
        begun = asyncio.get_running_loop().time()
        while "class:door" not in (kiosk.bus.told.layers if kiosk.bus.told else {}):
            await asyncio.sleep(0.5)
        assert await _until_applied(kiosk, "door") - begun < 10
