"""A NetworkManager that misbehaves, served on a private bus: for faults only.

    async with private_bus(tmp_path) as bus, served(bus) as network_manager:
        network_manager.on_activate = hang

It has one interface and no profile. For how a NetworkManager behaves that is well, there is the real one in a
box.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from sdbus import dbus_method_async_override, dbus_property_async_override
from sdbus.dbus_exceptions import DbusFailedError

from harmony_pi_topology.common.dbus_connection import Connection as BusConnection
from harmony_pi_topology.network.nm_dbus import (
    NETWORK_MANAGER,
    NM_PATH,
    NO_OBJECT,
    SETTINGS_PATH,
    Checkpoint,
    Connection,
    Device,
    NetworkManager,
    RawSettings,
    Settings,
)
from tests.topology.served_systemd import PrivateBus

__all__ = ["ServedNetworkManager", "served"]

DEVICE = f"{NM_PATH}/Devices/1"
PROFILE = f"{SETTINGS_PATH}/1"
CHECKPOINT = f"{NM_PATH}/Checkpoint/1"


class UnknownConnection(DbusFailedError):
    dbus_error_name = "org.freedesktop.NetworkManager.Settings.InvalidConnection"


async def _nothing() -> None:
    return None


class ServedDevice(Device):
    @dbus_property_async_override()
    def interface(self) -> str:
        return "eth0"

    @dbus_property_async_override()
    def state(self) -> int:
        return 30

    @dbus_property_async_override()
    def state_reason(self) -> tuple[int, int]:
        return (30, 0)

    @dbus_property_async_override()
    def active_connection(self) -> str:
        return NO_OBJECT

    @dbus_property_async_override()
    def ip4_config(self) -> str:
        return NO_OBJECT

    @dbus_property_async_override()
    def ip6_config(self) -> str:
        return NO_OBJECT

    @dbus_property_async_override()
    def ports(self) -> list[str]:
        return []


class ServedProfile(Connection):
    def __init__(self) -> None:
        super().__init__()
        self.settings: RawSettings = {}

    @dbus_method_async_override()
    async def get_settings(self) -> RawSettings:
        return self.settings

    @dbus_method_async_override()
    async def update2(
        self, settings: RawSettings, flags: int, args: dict[str, tuple[str, Any]]
    ) -> dict[str, tuple[str, Any]]:
        self.settings = settings
        return {}

    @dbus_method_async_override()
    async def delete(self) -> None:
        self.settings = {}

    @dbus_property_async_override()
    def flags(self) -> int:
        return 1


class ServedSettings(Settings):
    """Each of the ``on_…`` is what it does when it is asked."""

    def __init__(self, profile: ServedProfile) -> None:
        super().__init__()
        self.profile = profile
        self.on_look: Callable[[], Awaitable[object]] = _nothing
        self.on_add: Callable[[], Awaitable[object]] = _nothing

    @dbus_method_async_override()
    async def list_connections(self) -> list[str]:
        return [PROFILE] if self.profile.settings else []

    @dbus_method_async_override()
    async def get_connection_by_uuid(self, uuid: str) -> str:
        await self.on_look()
        if not self.profile.settings:
            raise UnknownConnection("no such profile")
        return PROFILE

    @dbus_method_async_override()
    async def add_connection2(
        self, settings: RawSettings, flags: int, args: dict[str, tuple[str, Any]]
    ) -> tuple[str, dict[str, tuple[str, Any]]]:
        await self.on_add()
        self.profile.settings = settings
        return PROFILE, {}


class ServedManager(NetworkManager):
    def __init__(self) -> None:
        super().__init__()
        self.waiting = list[str]()
        self.rolled_back = 0
        self.activations = 0
        self.on_activate: Callable[[], Awaitable[object]] = _nothing
        self.on_checkpoint: Callable[[], Awaitable[object]] = _nothing

    @dbus_method_async_override()
    async def get_device_by_ip_iface(self, iface: str) -> str:
        return DEVICE

    @dbus_method_async_override()
    async def activate_connection(self, connection: str, device: str, specific_object: str) -> str:
        self.activations += 1
        await self.on_activate()
        return f"{NM_PATH}/ActiveConnection/1"

    @dbus_method_async_override()
    async def checkpoint_create(self, devices: list[str], rollback_timeout: int, flags: int) -> str:
        await self.on_checkpoint()
        self.waiting = [CHECKPOINT]
        return CHECKPOINT

    @dbus_method_async_override()
    async def checkpoint_destroy(self, checkpoint: str) -> None:
        self.waiting = []

    @dbus_method_async_override()
    async def checkpoint_rollback(self, checkpoint: str) -> dict[str, int]:
        self.waiting = []
        self.rolled_back += 1
        return {}

    @dbus_property_async_override()
    def checkpoints(self) -> list[str]:
        return self.waiting

    @dbus_property_async_override()
    def active_connections(self) -> list[str]:
        return []

    @dbus_property_async_override()
    def devices(self) -> list[str]:
        return [DEVICE]

    @dbus_property_async_override()
    def startup(self) -> bool:
        return False


class ServedCheckpoint(Checkpoint):
    @dbus_property_async_override()
    def created(self) -> int:
        return 1000


class ServedNetworkManager:
    """All of its objects."""

    def __init__(self) -> None:
        self.profile = ServedProfile()
        self.settings = ServedSettings(self.profile)
        self.manager = ServedManager()
        self.device = ServedDevice()
        self.checkpoint = ServedCheckpoint()


@contextlib.asynccontextmanager
async def served(bus: PrivateBus) -> AsyncGenerator[ServedNetworkManager]:
    connection = BusConnection(bus.address, closed=lambda: None)
    await connection.bus.request_name_async(NETWORK_MANAGER, 0)
    it = ServedNetworkManager()
    it.manager.export_to_dbus(NM_PATH, connection.bus)
    it.settings.export_to_dbus(SETTINGS_PATH, connection.bus)
    it.profile.export_to_dbus(PROFILE, connection.bus)
    it.device.export_to_dbus(DEVICE, connection.bus)
    it.checkpoint.export_to_dbus(CHECKPOINT, connection.bus)
    try:
        yield it
    finally:
        connection.close()
