"""A NetworkManager, or a bus, that hangs, refuses or goes away: a typed error in bounded time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from pathlib import Path
from typing import Any

import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from sdbus.dbus_exceptions import DbusAccessDeniedError, DbusFailedError

from harmony_core.change import Change
from harmony_core.errors import (
    CapabilityUnavailable,
    InvalidResource,
    NetworkFailed,
    NetworkRolledBack,
    TimedOut,
)
from harmony_core.reconciler import MemoryBackups, MemoryRecords
from harmony_core.resources import Ethernet, NetworkProfile
from harmony_pi_topology.network.networkmanager import SdbusNetworkManager
from harmony_pi_topology.testing.hearing import Hearer
from tests.topology.served_network_manager import ServedNetworkManager, served
from tests.topology.served_systemd import PrivateBus, hang, private_bus

OFFICE = NetworkProfile(name="office", link=Ethernet(interface="eth0"))
SOON_S = 0.3


class MissingProperty(DbusFailedError):
    dbus_error_name = "org.freedesktop.NetworkManager.Settings.Connection.MissingProperty"


class CreationFailed(DbusFailedError):
    dbus_error_name = "org.freedesktop.NetworkManager.Device.CreationFailed"


class InvalidArguments(DbusFailedError):
    dbus_error_name = "org.freedesktop.NetworkManager.InvalidArguments"


class Always:
    """A control plane that is always reached."""

    async def reachable(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def nothing_blocks_the_loop() -> Generator[BlockBuster]:
    with blockbuster_ctx() as blockbuster:
        yield blockbuster


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncGenerator[PrivateBus]:
    async with private_bus(tmp_path) as bus:
        yield bus


@pytest.fixture
async def it(bus: PrivateBus) -> AsyncGenerator[ServedNetworkManager]:
    async with served(bus) as network_manager:
        yield network_manager


@pytest.fixture
async def network(bus: PrivateBus, tmp_path: Path) -> AsyncGenerator[SdbusNetworkManager]:
    network = SdbusNetworkManager(
        records=MemoryRecords(),
        backups=MemoryBackups(),
        reachability=Always(),
        secrets_directory=str(tmp_path),
        address=bus.address,
        answer_within_s=SOON_S,
    )
    yield network
    await network.close()


async def looked(network: SdbusNetworkManager) -> Change | Exception:
    (result,) = await network.converge([OFFICE], apply=True)
    return result


def raising(error: Exception) -> Callable[[], Coroutine[Any, Any, None]]:
    async def refuse() -> None:
        raise error

    return refuse


async def test_a_network_manager_that_hangs_is_timed_out(
    it: ServedNetworkManager, network: SdbusNetworkManager
) -> None:
    it.settings.on_look = hang
    with pytest.raises(TimedOut):
        await network.observe("office")
    for apply in (True, False):
        (error,) = await network.converge([OFFICE], apply=apply)
        assert isinstance(error, TimedOut)
        assert error.resource == "network:office"
    (error,) = await network.remove(["office"], apply=True)
    assert isinstance(error, TimedOut)
    assert error.resource == "network:office"


async def test_one_that_is_not_there_is_unavailable_and_it_says_what_to_do(
    network: SdbusNetworkManager,
) -> None:
    error = await looked(network)
    assert isinstance(error, CapabilityUnavailable)
    assert "systemctl enable --now NetworkManager" in error.message
    availability = await network.availability()
    assert not availability.available
    assert "systemctl enable --now NetworkManager" in availability.reason


async def test_a_bus_that_hangs_up_is_unavailable_and_connected_to_anew(
    bus: PrivateBus, network: SdbusNetworkManager
) -> None:
    async with served(bus):
        assert (await network.availability()).available
        await bus.kill()
        assert isinstance(await looked(network), CapabilityUnavailable)
    await bus.start()
    async with served(bus):
        assert (await network.availability()).available
        assert isinstance(await looked(network), Change)


async def test_the_end_of_a_bus_is_told_and_watching_is_mended(
    bus: PrivateBus, network: SdbusNetworkManager
) -> None:
    told = Hearer()
    async with served(bus):
        await network.watch(["office"], told)
        await bus.kill()
        await told.hears("office")
    await bus.start()
    async with served(bus):
        assert (await network.availability()).available
        await told.hears("office")
        assert told.heard == []


async def test_a_profile_that_it_refuses_is_invalid_and_its_checkpoint_is_given_up(
    it: ServedNetworkManager, network: SdbusNetworkManager
) -> None:
    it.settings.on_add = raising(MissingProperty("ipv4.method is missing"))
    error = await looked(network)
    assert isinstance(error, InvalidResource)
    assert "ipv4.method is missing" in error.message
    assert it.manager.waiting == []
    it.settings.on_add = raising(DbusAccessDeniedError("not you"))
    error = await looked(network)
    assert isinstance(error, CapabilityUnavailable)
    assert "root" in error.message


async def test_one_that_cannot_bring_a_profile_up_takes_it_back(
    it: ServedNetworkManager, network: SdbusNetworkManager
) -> None:
    it.manager.on_activate = raising(CreationFailed("no such module"))
    error = await looked(network)
    assert isinstance(error, NetworkRolledBack)
    assert "no such module" in error.message
    assert it.manager.rolled_back == 1
    assert it.profile.settings == {}


async def test_one_that_hangs_while_it_brings_a_profile_up_is_asked_again(
    it: ServedNetworkManager, network: SdbusNetworkManager
) -> None:
    it.manager.on_activate = hang
    for _ in range(2):
        assert isinstance(await looked(network), TimedOut)
    assert it.manager.activations == 2
    assert len(it.manager.waiting) == 1
    assert it.manager.rolled_back == 0


async def test_without_a_checkpoint_nothing_is_begun(
    it: ServedNetworkManager, network: SdbusNetworkManager
) -> None:
    it.manager.on_checkpoint = raising(CreationFailed("no memory"))
    assert isinstance(await looked(network), NetworkFailed)
    assert it.profile.settings == {}
    it.manager.on_checkpoint = hang
    assert isinstance(await looked(network), TimedOut)
    assert it.profile.settings == {}


async def test_somebody_else_s_checkpoint_is_waited_for(
    it: ServedNetworkManager, network: SdbusNetworkManager
) -> None:
    taken = "device 'eth0' is already included in checkpoint /org/freedesktop/NetworkManager/…"
    it.manager.on_checkpoint = raising(InvalidArguments(taken))
    change = await looked(network)
    assert isinstance(change, Change)
    assert change.pending is not None
    assert "another change" in change.pending.message
    assert it.profile.settings == {}


async def test_what_hangs_does_not_keep_others_from_being_told_the_end(
    it: ServedNetworkManager, network: SdbusNetworkManager
) -> None:
    it.settings.on_look = hang
    looks = [asyncio.create_task(looked(network)) for _ in range(3)]
    assert all(isinstance(error, TimedOut) for error in await asyncio.gather(*looks))
