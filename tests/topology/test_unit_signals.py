"""systemd's signals, when the bus or systemd itself misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest
from blockbuster import BlockBuster, blockbuster_ctx

from harmony_core.errors import CapabilityUnavailable, TimedOut
from harmony_core.testing import Hearer
from harmony_pi_topology.systemd.signals import UnitSignals
from tests.topology.served_systemd import (
    ALIAS,
    NAME,
    PrivateBus,
    ServedManager,
    ServedUnit,
    hang,
    private_bus,
    served,
)

UNIT = "org.freedesktop.systemd1.Unit"
SOON_S = 0.5


@pytest.fixture(autouse=True)
def nothing_blocks_the_loop() -> Generator[BlockBuster]:
    with blockbuster_ctx() as blockbuster:
        yield blockbuster


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncGenerator[PrivateBus]:
    async with private_bus(tmp_path) as bus:
        yield bus


@pytest.fixture
async def systemd(bus: PrivateBus) -> AsyncGenerator[ServedManager]:
    async with served(bus) as systemd:
        yield systemd


@pytest.fixture
async def signals(bus: PrivateBus) -> AsyncGenerator[UnitSignals]:
    signals = UnitSignals(bus.address, answer_within_s=SOON_S)
    yield signals
    signals.close()


@pytest.fixture
def told() -> Hearer:
    return Hearer()


def says(unit: ServedUnit, **properties: str) -> None:
    """It tells that these have changed, and all others with them."""
    state = {"ActiveState": "active", "SubState": "running", "StatusText": "", **properties}
    unit.properties_changed.emit((UNIT, {name: ("s", text) for name, text in state.items()}, []))


async def test_a_unit_that_only_says_how_it_is_doing_is_not_told(
    systemd: ServedManager, signals: UnitSignals, told: Hearer
) -> None:
    await signals.watch([NAME], told)
    says(systemd.unit)
    await told.hears(NAME)
    for n in range(3):
        says(systemd.unit, StatusText=f"{n} requests served")
    systemd.unit_files_changed.emit(None)
    await told.hears(NAME)
    says(systemd.unit, StatusText="4 requests served")
    says(systemd.unit, ActiveState="failed")
    await told.hears(NAME)
    assert told.heard == []


async def test_an_alias_is_told_of_what_it_stands_for(
    systemd: ServedManager, signals: UnitSignals, told: Hearer
) -> None:
    await signals.watch([ALIAS], told)
    says(systemd.unit)
    await told.hears(ALIAS)


async def test_a_bus_that_hangs_up_is_found_again_and_all_may_have_changed(
    bus: PrivateBus, signals: UnitSignals, told: Hearer
) -> None:
    async with served(bus):
        await signals.watch([NAME], told)
    await bus.kill()
    await signals.mend()
    await bus.start()
    async with served(bus) as systemd:
        await signals.mend()
        await told.hears("everything")
        for n in range(3):
            says(systemd.unit, SubState=str(n))
            await told.hears(NAME)


async def test_a_bus_that_hangs_is_given_up_and_found_again(
    bus: PrivateBus, signals: UnitSignals, told: Hearer
) -> None:
    async with served(bus):
        await signals.watch([NAME], told)
        bus.freeze()
        await signals.mend()
    await bus.kill()
    await bus.start()
    async with served(bus) as systemd:
        while None not in told.heard:
            await signals.mend()
            await asyncio.sleep(0.01)
        told.heard.clear()
        says(systemd.unit)
        await told.hears(NAME)


async def test_a_bus_that_answers_is_left_alone(
    systemd: ServedManager, signals: UnitSignals, told: Hearer
) -> None:
    await signals.watch([NAME], told)
    for _ in range(3):
        await signals.mend()
    assert systemd.subscriptions == 1
    assert told.heard == []


async def test_a_systemd_that_does_not_begin_to_tell_is_told_and_tried_again(
    systemd: ServedManager, signals: UnitSignals, told: Hearer
) -> None:
    systemd.on_subscribe = hang
    with pytest.raises(TimedOut):
        await signals.watch([NAME], told)
    systemd.on_subscribe = _nothing
    await signals.mend()
    await told.hears("everything")
    says(systemd.unit)
    await told.hears(NAME)


async def test_a_bus_that_is_not_there_is_told_and_found_when_it_is(
    bus: PrivateBus, signals: UnitSignals, told: Hearer
) -> None:
    await bus.kill()
    with pytest.raises(CapabilityUnavailable, match=r"dbus\.service"):
        await signals.watch([NAME], told)
    await bus.start()
    async with served(bus):
        await signals.mend()
        await told.hears("everything")


async def test_nobody_is_connected_to_for_nothing(bus: PrivateBus, told: Hearer) -> None:
    await bus.kill()
    signals = UnitSignals(bus.address, answer_within_s=SOON_S)
    await signals.watch([], told)
    await signals.mend()
    signals.close()


async def test_closed_while_it_connects_it_tells_nothing(
    systemd: ServedManager, bus: PrivateBus, told: Hearer
) -> None:
    systemd.on_subscribe = hang
    signals = UnitSignals(bus.address, answer_within_s=5)
    watching = asyncio.create_task(signals.watch([NAME], told))
    while not systemd.subscriptions:
        await asyncio.sleep(0.001)
    signals.close()
    with contextlib.suppress(CapabilityUnavailable):
        await watching
    await told.is_at_rest()
    assert told.heard == []


async def _nothing() -> None:
    return
