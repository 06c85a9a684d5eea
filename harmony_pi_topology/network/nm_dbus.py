"""NetworkManager's D-Bus interfaces, as far as they are spoken to, and what its errors mean.

One thin class a D-Bus interface, with the few members that are used: a library with all of them would take
longer to load than the whole rest of the agent.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from sdbus import DbusInterfaceCommonAsync, dbus_method_async, dbus_property_async

from harmony_core.errors import (
    CapabilityError,
    CapabilityUnavailable,
    InvalidResource,
    NetworkFailed,
)

__all__ = [
    "ERRORS",
    "NETWORK_MANAGER",
    "NM_PATH",
    "NO_OBJECT",
    "OTHER_ERRORS",
    "SETTINGS_PATH",
    "ActiveConnection",
    "Connection",
    "Device",
    "IpConfig4",
    "IpConfig6",
    "NetworkManager",
    "RawSettings",
    "Settings",
    "Wired",
    "Wireless",
]

NETWORK_MANAGER: Final = "org.freedesktop.NetworkManager"
NM_PATH: Final = "/org/freedesktop/NetworkManager"
SETTINGS_PATH: Final = "/org/freedesktop/NetworkManager/Settings"
NO_OBJECT: Final = "/"

RawSettings: TypeAlias = dict[str, dict[str, tuple[str, Any]]]
"""A profile, by section and key; each value with its D-Bus type."""

_START = "start it: systemctl enable --now NetworkManager"
_CORRECT = "correct the profile"
_ROOT = "the agent must run as root"
OTHER_ERRORS: Final = (NetworkFailed, "see on the device: journalctl -u NetworkManager")
ERRORS: Final[Mapping[str, tuple[type[CapabilityError], str]]] = MappingProxyType(
    {
        "InvalidProperty": (InvalidResource, _CORRECT),
        "InvalidSetting": (InvalidResource, _CORRECT),
        "InvalidConnection": (InvalidResource, _CORRECT),
        "MissingProperty": (InvalidResource, _CORRECT),
        "MissingSetting": (InvalidResource, _CORRECT),
        "SettingNotFound": (InvalidResource, _CORRECT),
        "PropertyNotFound": (InvalidResource, _CORRECT),
        "PermissionDenied": (CapabilityUnavailable, _ROOT),
        "AccessDenied": (CapabilityUnavailable, _ROOT),
        "ServiceUnknown": (CapabilityUnavailable, _START),
        "NameHasNoOwner": (CapabilityUnavailable, _START),
        "NoReply": (CapabilityUnavailable, _START),
        "Disconnected": (CapabilityUnavailable, _START),
        "Timeout": (CapabilityUnavailable, _START),
    }
)


class NetworkManager(DbusInterfaceCommonAsync, interface_name=NETWORK_MANAGER):
    """NetworkManager itself."""

    @dbus_method_async("s", "o")
    async def get_device_by_ip_iface(self, iface: str) -> str:
        raise NotImplementedError

    @dbus_method_async("ooo", "o")
    async def activate_connection(self, connection: str, device: str, specific_object: str) -> str:
        """Activate a profile, and return its active connection. With NO_OBJECT as *device*, the profile's
        settings choose."""
        raise NotImplementedError

    @dbus_method_async("o")
    async def deactivate_connection(self, active_connection: str) -> None:
        raise NotImplementedError

    @dbus_method_async("aouu", "o")
    async def checkpoint_create(self, devices: list[str], rollback_timeout: int, flags: int) -> str:
        """Create a checkpoint. An empty list of devices stands for all of them. *rollback_timeout* is in
        seconds."""
        raise NotImplementedError

    @dbus_method_async("o")
    async def checkpoint_destroy(self, checkpoint: str) -> None:
        raise NotImplementedError

    @dbus_method_async("o", "a{su}")
    async def checkpoint_rollback(self, checkpoint: str) -> dict[str, int]:
        """Roll back to a checkpoint. Return a result for each device; 0 is success."""
        raise NotImplementedError

    @dbus_property_async("ao")
    def checkpoints(self) -> list[str]:
        raise NotImplementedError

    @dbus_property_async("ao")
    def active_connections(self) -> list[str]:
        raise NotImplementedError

    @dbus_property_async("ao")
    def devices(self) -> list[str]:
        raise NotImplementedError

    @dbus_property_async("b")
    def startup(self) -> bool:
        """Whether it was just started, and still activates what it activates by itself."""
        raise NotImplementedError


class Checkpoint(
    DbusInterfaceCommonAsync, interface_name="org.freedesktop.NetworkManager.Checkpoint"
):
    """What is put back when its time is over. Its path is given to another one once the daemon is started
    anew."""

    @dbus_property_async("x")
    def created(self) -> int:
        """The time of its creation, in milliseconds since the boot."""
        raise NotImplementedError


class Settings(DbusInterfaceCommonAsync, interface_name="org.freedesktop.NetworkManager.Settings"):
    """All profiles."""

    @dbus_method_async(result_signature="ao")
    async def list_connections(self) -> list[str]:
        raise NotImplementedError

    @dbus_method_async("s", "o")
    async def get_connection_by_uuid(self, uuid: str) -> str:
        raise NotImplementedError

    @dbus_method_async("a{sa{sv}}ua{sv}", "oa{sv}")
    async def add_connection2(
        self, settings: RawSettings, flags: int, args: dict[str, tuple[str, Any]]
    ) -> tuple[str, dict[str, tuple[str, Any]]]:
        raise NotImplementedError


class Connection(
    DbusInterfaceCommonAsync, interface_name="org.freedesktop.NetworkManager.Settings.Connection"
):
    """One profile."""

    @dbus_method_async(result_signature="a{sa{sv}}")
    async def get_settings(self) -> RawSettings:
        """Return the settings, without secrets."""
        raise NotImplementedError

    @dbus_method_async("s", "a{sa{sv}}")
    async def get_secrets(self, setting_name: str) -> RawSettings:
        """Return the secrets of one section."""
        raise NotImplementedError

    @dbus_method_async("a{sa{sv}}ua{sv}", "a{sv}")
    async def update2(
        self, settings: RawSettings, flags: int, args: dict[str, tuple[str, Any]]
    ) -> dict[str, tuple[str, Any]]:
        """Replace the whole profile."""
        raise NotImplementedError

    @dbus_method_async()
    async def delete(self) -> None:
        raise NotImplementedError

    @dbus_property_async("u")
    def flags(self) -> int:
        raise NotImplementedError


class ActiveConnection(
    DbusInterfaceCommonAsync, interface_name="org.freedesktop.NetworkManager.Connection.Active"
):
    """One use of a profile."""

    @dbus_property_async("s")
    def id(self) -> str:
        """The profile's name."""
        raise NotImplementedError

    @dbus_property_async("s")
    def uuid(self) -> str:
        raise NotImplementedError

    @dbus_property_async("u")
    def state(self) -> int:
        """The state: 1 activating, 2 activated, 3 deactivating, 4 deactivated."""
        raise NotImplementedError

    @dbus_property_async("ao")
    def devices(self) -> list[str]:
        raise NotImplementedError


class Device(DbusInterfaceCommonAsync, interface_name="org.freedesktop.NetworkManager.Device"):
    """One interface."""

    @dbus_method_async("a{sa{sv}}tu")
    async def reapply(self, connection: RawSettings, version_id: int, flags: int) -> None:
        """Apply the changes of its profile; an empty *connection* stands for the settings of the profile."""
        raise NotImplementedError

    @dbus_method_async("u", "a{sa{sv}}t")
    async def get_applied_connection(self, flags: int) -> tuple[RawSettings, int]:
        """Return the settings that it has applied, and their version."""
        raise NotImplementedError

    @dbus_property_async("s")
    def interface(self) -> str:
        raise NotImplementedError

    @dbus_property_async("u")
    def state(self) -> int:
        """The state: 10 unmanaged, 20 unavailable, 30 disconnected … 100 activated, 110 deactivating, 120
        failed."""
        raise NotImplementedError

    @dbus_property_async("u")
    def device_type(self) -> int:
        raise NotImplementedError

    @dbus_property_async("s")
    def hw_address(self) -> str:
        """The present address."""
        raise NotImplementedError

    @dbus_property_async("(uu)")
    def state_reason(self) -> tuple[int, int]:
        raise NotImplementedError

    @dbus_property_async("o")
    def active_connection(self) -> str:
        """The path of its active connection; NO_OBJECT when it is not in use."""
        raise NotImplementedError

    @dbus_property_async("o", property_name="Ip4Config")
    def ip4_config(self) -> str:
        raise NotImplementedError

    @dbus_property_async("o", property_name="Ip6Config")
    def ip6_config(self) -> str:
        raise NotImplementedError

    @dbus_property_async("ao")
    def ports(self) -> list[str]:
        """The devices that are ports of this one."""
        raise NotImplementedError


class Wired(DbusInterfaceCommonAsync, interface_name="org.freedesktop.NetworkManager.Device.Wired"):
    """A wired interface."""

    @dbus_property_async("s")
    def perm_hw_address(self) -> str:
        """The permanent address; empty where it is not known."""
        raise NotImplementedError


class Wireless(
    DbusInterfaceCommonAsync, interface_name="org.freedesktop.NetworkManager.Device.Wireless"
):
    """A wireless interface."""

    @dbus_property_async("s")
    def perm_hw_address(self) -> str:
        """The permanent address; empty where it is not known."""
        raise NotImplementedError


class IpConfig4(
    DbusInterfaceCommonAsync, interface_name="org.freedesktop.NetworkManager.IP4Config"
):
    """What an interface has of IPv4."""

    @dbus_property_async("aa{sv}")
    def address_data(self) -> list[dict[str, tuple[str, Any]]]:
        raise NotImplementedError

    @dbus_property_async("s")
    def gateway(self) -> str:
        raise NotImplementedError


class IpConfig6(
    DbusInterfaceCommonAsync, interface_name="org.freedesktop.NetworkManager.IP6Config"
):
    """What an interface has of IPv6."""

    @dbus_property_async("aa{sv}")
    def address_data(self) -> list[dict[str, tuple[str, Any]]]:
        raise NotImplementedError
