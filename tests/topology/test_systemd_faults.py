"""A systemd, or a bus, that hangs, refuses or goes away: a typed error in bounded time, and no more."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from pathlib import Path
from typing import Any

import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from sdbus import SdBusLibraryError
from sdbus.dbus_exceptions import DbusAccessDeniedError, DbusFailedError

from harmony_core.change import Change
from harmony_core.errors import (
    CapabilityError,
    CapabilityUnavailable,
    InvalidResource,
    PolicyRefused,
    TimedOut,
    UnitFailed,
)
from harmony_core.reconciler import MemoryBackups, MemoryRecords
from harmony_core.resources import SystemdUnit
from harmony_pi_topology.common.dbus import to_capability_error
from harmony_pi_topology.network import nm_dbus
from harmony_pi_topology.systemd.reconciler import SdbusSystemd
from harmony_pi_topology.systemd.sdbus import SystemdBus
from harmony_pi_topology.systemd.waker import Waker
from tests.topology.served_systemd import (
    NAME,
    PrivateBus,
    ServedManager,
    hang,
    private_bus,
    served,
)

WEB = SystemdUnit(name=NAME, settle_s=0)
SOON_S = 0.3


@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.ENOMEM])
@pytest.mark.parametrize("known", [(), (nm_dbus.ERRORS, nm_dbus.OTHER_ERRORS)])
def test_whoever_has_the_bus_fail_beneath_them_is_told_what_to_do(
    number: int, known: tuple[Any, ...]
) -> None:
    error = SdBusLibraryError(f"sd_bus_call returned error number: {number}")
    ours = to_capability_error(error, "looking at x.service", *known)
    assert isinstance(ours, CapabilityUnavailable)
    what, _, remedy = ours.message.partition("; ")
    assert what == f"looking at x.service: the system bus failed ({os.strerror(number)})"
    assert "'systemctl status dbus'" in remedy


class NoSuchUnit(DbusFailedError):
    dbus_error_name = "org.freedesktop.systemd1.NoSuchUnit"


class UnitMasked(DbusFailedError):
    dbus_error_name = "org.freedesktop.systemd1.UnitMasked"


class BadUnitSetting(DbusFailedError):
    dbus_error_name = "org.freedesktop.systemd1.BadUnitSetting"


class TransactionIsDestructive(DbusFailedError):
    dbus_error_name = "org.freedesktop.systemd1.TransactionIsDestructive"


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
async def units(bus: PrivateBus) -> AsyncGenerator[SdbusSystemd]:
    units = opened(bus)
    yield units
    await units.close()


def opened(bus: PrivateBus, *, answer_within_s: float = SOON_S) -> SdbusSystemd:
    async def no_journal(unit: str, lines: int) -> str:
        return ""

    return SdbusSystemd(
        records=MemoryRecords(),
        backups=MemoryBackups(),
        address=bus.address,
        journal_tail=no_journal,
        job_wait_s=SOON_S,
        answer_within_s=answer_within_s,
        reload_within_s=SOON_S,
    )


async def looked(units: SdbusSystemd) -> Change | Exception:
    (result,) = await units.converge([WEB], apply=True)
    return result


def raising(error: Exception) -> Callable[[], Coroutine[Any, Any, None]]:
    async def refuse() -> None:
        raise error

    return refuse


async def test_a_systemd_that_hangs_is_timed_out(
    systemd: ServedManager, units: SdbusSystemd
) -> None:
    systemd.on_look = hang
    with pytest.raises(TimedOut):
        await units.observe(NAME)
    for apply in (True, False):
        (error,) = await units.converge([WEB], apply=apply)
        assert isinstance(error, TimedOut)
        assert error.resource == f"unit:{NAME}"
    (error,) = await units.remove([NAME], apply=True)
    assert isinstance(error, TimedOut)


async def test_a_start_that_is_never_answered_is_timed_out(
    systemd: ServedManager, units: SdbusSystemd
) -> None:
    systemd.on_start = hang
    assert isinstance(await looked(units), TimedOut)


async def test_a_reload_that_is_never_answered_is_timed_out_and_nothing_started(
    systemd: ServedManager, units: SdbusSystemd
) -> None:
    systemd.on_reload = hang
    systemd.enablement = "disabled"
    assert isinstance(await looked(units), TimedOut)
    assert systemd.starts == 0


async def test_a_bus_that_hangs_is_timed_out(systemd: ServedManager, bus: PrivateBus) -> None:
    bus.freeze()
    units = opened(bus)
    assert isinstance(await looked(units), TimedOut)
    assert not (await units.availability()).available
    await units.close()


async def test_a_bus_without_systemd_is_unavailable(bus: PrivateBus, units: SdbusSystemd) -> None:
    assert isinstance(await looked(units), CapabilityUnavailable)
    assert not (await units.availability()).available


async def test_a_bus_that_is_not_there_is_unavailable_with_a_remedy(
    bus: PrivateBus, units: SdbusSystemd
) -> None:
    await bus.kill()
    assert isinstance(await looked(units), CapabilityUnavailable)
    availability = await units.availability()
    assert not availability.available
    assert "dbus.service" in availability.reason


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (NoSuchUnit("Unit web.service not found."), UnitFailed),
        (UnitMasked("Unit web.service is masked."), PolicyRefused),
        (BadUnitSetting("Unit web.service has a bad unit file setting."), InvalidResource),
        (TransactionIsDestructive("Transaction is destructive."), UnitFailed),
        (DbusAccessDeniedError("Access denied"), CapabilityUnavailable),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, Exception) else "",
)
async def test_what_systemd_answers_is_a_typed_error_in_its_words(
    systemd: ServedManager, units: SdbusSystemd, reply: Exception, error: type[CapabilityError]
) -> None:
    systemd.on_start = raising(reply)
    result = await looked(units)
    assert type(result) is error
    assert re.search(rf"{re.escape(str(reply))}; [a-z]{{2}}", str(result)), "it says what to do"


@pytest.mark.parametrize("result", ["canceled", "timeout", "dependency", "skipped"])
async def test_a_job_that_does_not_end_well_is_a_failure(
    systemd: ServedManager, units: SdbusSystemd, result: str
) -> None:
    async def end_it() -> None:
        asyncio.get_running_loop().call_later(0.05, systemd.end_job, result)

    systemd.on_start = end_it
    error = await looked(units)
    assert isinstance(error, UnitFailed)
    assert error.message.startswith(f"{NAME} ")


async def test_what_systemd_says_it_has_enabled_and_has_not_is_a_failure(
    systemd: ServedManager, units: SdbusSystemd
) -> None:
    systemd.enablement = "disabled"
    systemd.unit.active = "active"
    error = await looked(units)
    assert isinstance(error, UnitFailed)
    assert "was enabled, and systemd says that it is disabled" in error.message


@pytest.mark.parametrize("result", ["canceled", "timeout", "frozen", "collected"])
async def test_a_stop_that_does_not_end_well_is_a_failure(
    systemd: ServedManager, units: SdbusSystemd, result: str
) -> None:
    async def end_it() -> None:
        asyncio.get_running_loop().call_later(0.05, systemd.end_job, result)

    await looked(units)  # it is noted as started by us
    systemd.unit.active = "active"
    systemd.on_stop = end_it
    stopped = WEB.model_copy(update={"state": "stopped"})
    (error,) = await units.converge([stopped], apply=True)
    (other,) = await units.remove([NAME], apply=True)
    for each in (error, other):
        assert isinstance(each, UnitFailed)
        assert each.message.startswith(
            f"{NAME} is frozen" if result == "frozen" else f"{NAME} could not be stopped: "
        )


async def test_the_end_of_a_job_is_heard_also_before_its_name(
    systemd: ServedManager, units: SdbusSystemd
) -> None:
    async def end_it() -> None:
        systemd.end_job("canceled")

    systemd.on_start = end_it
    assert isinstance(await looked(units), UnitFailed)


async def test_a_job_that_does_not_end_is_looked_at_again_and_not_queued_again(
    systemd: ServedManager, units: SdbusSystemd
) -> None:
    async def take_it_up() -> None:
        systemd.unit.has_job = True

    systemd.on_start = take_it_up
    for _ in range(2):
        change = await looked(units)
        assert isinstance(change, Change)
        assert change.pending is not None
        assert change.pending.reason == "Progressing"
    assert systemd.starts == 1
    systemd.unit.has_job = False
    systemd.end_job("dependency")
    # On another connection than the answers, so that it may come later than those.
    while not isinstance(error := await looked(units), Exception):
        await asyncio.sleep(0)
    assert isinstance(error, UnitFailed)
    assert "something that it needs" in error.message
    assert systemd.starts == 1


async def test_a_job_that_waits_for_too_long_has_failed(
    systemd: ServedManager, units: SdbusSystemd
) -> None:
    async def take_it_up() -> None:
        systemd.unit.has_job = True

    systemd.on_start = take_it_up
    impatient = WEB.model_copy(update={"start_timeout_s": SOON_S / 2})
    (error,) = await units.converge([impatient], apply=True)
    assert isinstance(error, UnitFailed)
    assert "has not started within" in error.message


async def test_a_systemd_that_sleeps_over_what_it_is_asked_is_woken(
    bus: PrivateBus, systemd: ServedManager, tmp_path: Path
) -> None:
    """As one does that has read the table of mounts too often, until something else than a call wakes it."""
    await asyncio.to_thread((tmp_path / "run/systemd").mkdir, parents=True)
    loop = asyncio.get_running_loop()
    asked = SystemdBus(bus.address, waker=Waker(tmp_path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as woken:
        woken.bind(str(tmp_path / "run/systemd/notify"))

        async def sleep() -> None:
            await loop.sock_recv(woken, 100)

        systemd.on_look = sleep
        assert (await asked.look(NAME)).load == "loaded"
        end = await asked.queue("start", NAME)
        await sleep()
        systemd.end_job("done")
        assert await end == "done"
    asked.close()


async def test_a_unit_that_is_forgotten_before_it_can_be_stopped_is_gone(
    bus: PrivateBus, systemd: ServedManager
) -> None:
    async def forget() -> None:
        systemd.unit.load = "not-found"
        raise NoSuchUnit(f"Unit {NAME} not loaded.")

    systemd.on_stop = forget
    asked = SystemdBus(bus.address)
    await asked.forget(NAME)
    assert (await asked.look(NAME)).load == "not-found"
    asked.close()


async def test_a_bus_that_hangs_up_during_a_job_is_told_at_once_and_replaced(
    bus: PrivateBus, systemd: ServedManager
) -> None:
    units = SdbusSystemd(
        records=MemoryRecords(), backups=MemoryBackups(), address=bus.address, job_wait_s=50
    )

    async def take_it_up() -> None:
        systemd.unit.has_job = True

    systemd.on_start = take_it_up
    looking = asyncio.create_task(looked(units))
    while not systemd.starts:
        await asyncio.sleep(0.01)
    await bus.kill()
    assert isinstance(await looking, CapabilityUnavailable)
    await bus.start()
    async with served(bus) as another:
        another.unit.active = "active"
        assert (await units.availability()).available
        change = await looked(units)
        assert isinstance(change, Change)
        assert change.pending is None
        assert another.starts == 0
    await units.close()


async def test_what_is_asked_when_the_bus_hangs_up_is_answered_at_once(
    bus: PrivateBus, systemd: ServedManager
) -> None:
    systemd.on_look = hang
    units = SdbusSystemd(
        records=MemoryRecords(),
        backups=MemoryBackups(),
        address=bus.address,
        answer_within_s=50,
    )
    asking = [asyncio.create_task(units.observe(NAME)) for _ in range(5)]
    await asyncio.sleep(0.1)
    await bus.kill()
    for error in await asyncio.gather(*asking, return_exceptions=True):
        assert isinstance(error, CapabilityUnavailable)
    await units.close()


async def test_many_looks_at_once_are_no_more_than_a_bus_allows(
    bus: PrivateBus, systemd: ServedManager
) -> None:
    units = opened(bus, answer_within_s=30)
    states = await asyncio.gather(*(units.observe(NAME) for _ in range(40)))
    assert len({type(state) for state in states}) == 1
    others = [WEB.model_copy(update={"name": f"other-{n}.service"}) for n in range(40)]
    for error in await units.converge(others, apply=True):
        assert "pending replies" not in str(error)
    await units.close()


async def test_a_bus_that_hung_up_leaves_nothing_that_others_stumble_over(
    bus: PrivateBus, systemd: ServedManager, units: SdbusSystemd
) -> None:
    """The number of its descriptor is given to whoever connects next, to anything."""
    await units.observe(NAME)
    await bus.kill()
    await asyncio.sleep(0.05)
    loop = asyncio.get_running_loop()
    pairs = [socket.socketpair() for _ in range(10)]
    heard = [asyncio.Event() for _ in pairs]
    for (here, _), event in zip(pairs, heard, strict=True):
        loop.add_reader(here, event.set)
    await units.close()
    for _, there in pairs:
        there.setblocking(False)
        await loop.sock_sendall(there, b"!")
    await asyncio.gather(*(event.wait() for event in heard))
    for here, there in pairs:
        loop.remove_reader(here)
        here.close()
        there.close()


async def test_a_reload_under_way_is_not_joined_but_the_next_one_is_shared(
    bus: PrivateBus, systemd: ServedManager
) -> None:
    """What is written while systemd reads may have been written too late for it."""
    reading = asyncio.Event()
    systemd.on_reload = reading.wait
    asked = SystemdBus(bus.address)
    first = asyncio.create_task(asked.reload())
    while not systemd.reloads:
        await asyncio.sleep(0.01)
    others = [asyncio.create_task(asked.reload()) for _ in range(3)]
    await asyncio.sleep(0.05)
    assert systemd.reloads == 1
    reading.set()
    await asyncio.gather(first, *others)
    assert systemd.reloads == 2
    asked.close()
