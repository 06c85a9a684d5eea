"""One look at one profile, over D-Bus: what it says, what uses it, and what that has taken on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

import attrs
from sdbus.exceptions import SdBusBaseError

from harmony_pi_topology.common.dbus import error_name

from .nm_bus import NetworkLink
from .nm_dbus import NO_OBJECT, Connection, RawSettings
from .nm_settings import SECRETS_IN, addresses_in, label_of, put_secrets, read_known, read_secrets
from .records import FoundInterface, FoundNetwork, FoundProfile, Use

__all__ = ["active_path", "device_path", "look", "profile_path", "whole"]

_UNSAVED: Final = 1
_USES: Final[Mapping[int, Use]] = MappingProxyType({1: "coming", 2: "up", 3: "going"})
_WIRED: Final = frozenset({1, 20})
"""Devices of Ethernet, and pairs that are one cable."""
_WIRELESS: Final = 2
_UNMANAGED: Final = 10
_UNAVAILABLE: Final = 20
_REASONS: Final[Mapping[int, str]] = MappingProxyType(
    {
        4: "the interface could not be configured",
        5: "no address was given in time",
        6: "the address has run out",
        7: "the password is missing",
        8: "the Wi-Fi network broke off",
        9: "the Wi-Fi network could not be configured",
        10: "the Wi-Fi network refused",
        11: "the Wi-Fi network did not answer",
        15: "DHCP could not be started",
        16: "DHCP failed",
        17: "DHCP failed",
        18: "what is shared could not be given out; see dnsmasq in the journal",
        19: "what is shared could not be given out; see dnsmasq in the journal",
        38: "the profile was removed",
        39: "somebody took it down",
        40: "the cable was pulled",
        53: "the Wi-Fi network is not in range",
    }
)
"""By NetworkManager's number; others are told as it is."""
_GONE: Final = frozenset({"InvalidConnection", "UnknownConnection", "UnknownDevice"})

_Data: TypeAlias = "list[dict[str, tuple[str, Any]]]"


async def look(link: NetworkLink, name: str, uuid: str, interface: str | None) -> FoundNetwork:
    """Return the profile with *uuid*, the other profiles called *name*, and the state of *interface*."""
    path = await profile_path(link, uuid)
    found, there, settling = await asyncio.gather(
        _profile(link, path, uuid), _interface(link, interface), link.manager.startup
    )
    if found is not None and found.use == "down" and ":" in (interface or ""):
        # The profile itself does not say which interface it is that could not use it.
        found = attrs.evolve(found, reason=await _reason(link, there.name))
    return FoundNetwork(
        profile=found,
        # Who is called so matters only as long as there is none of ours.
        namesakes=await _namesakes(link, name) if found is None else (),
        interface=there,
        settling=settling,
    )


async def profile_path(link: NetworkLink, uuid: str) -> str | None:
    """Return the path of the profile with that UUID; None when there is none."""
    return await _or_none(link.settings.get_connection_by_uuid(uuid))


async def device_path(link: NetworkLink, interface: str) -> str | None:
    """Return the path of the device of that interface, given by its name or its MAC address; None when there
    is none."""
    if ":" in interface:
        return await _device_with(link, interface)
    return await _or_none(link.manager.get_device_by_ip_iface(interface))


async def _device_with(link: NetworkLink, mac: str) -> str | None:
    """Return the path of the device whose permanent address is *mac*, as NetworkManager itself finds it."""
    paths = await link.manager.devices
    addresses = await asyncio.gather(*(_permanent_address(link, path) for path in paths))
    return dict(zip(reversed(addresses), reversed(paths), strict=True)).get(mac)


async def _permanent_address(link: NetworkLink, path: str) -> str:
    """Return the permanent address of a wired or wireless device, or else the present one; empty for other
    devices."""
    kind = await link.device(path).device_type
    if kind in _WIRED:
        made_with = await link.wired(path).perm_hw_address
    elif kind == _WIRELESS:
        made_with = await link.wireless(path).perm_hw_address
    else:
        return ""
    return (made_with or await link.device(path).hw_address).upper()


async def active_path(link: NetworkLink, uuid: str) -> str | None:
    """Return the path of the active connection that uses the profile with that UUID; None when there is
    none."""
    paths = await link.manager.active_connections
    uuids = await asyncio.gather(*(link.active(path).uuid for path in paths))
    return dict(zip(uuids, paths, strict=True)).get(uuid)


async def whole(link: NetworkLink, path: str) -> RawSettings:
    """Return a profile, including its secrets."""
    profile = link.profile(path)
    raw = await profile.get_settings()
    for section in SECRETS_IN:
        if section in raw:
            put_secrets(raw[section], await _secrets(profile, section))
    return raw


async def _secrets(profile: Connection, section: str) -> dict[str, tuple[str, Any]]:
    """Return the secrets of a section; none where NetworkManager stores none and would ask a logged-in
    user."""
    try:
        return (await profile.get_secrets(section)).get(section, {})
    except SdBusBaseError as error:
        if error_name(error).endswith(".NoSecrets"):
            return {}
        raise


async def _profile(link: NetworkLink, path: str | None, uuid: str) -> FoundProfile | None:
    if path is None:
        return None
    raw, flags, active = await asyncio.gather(
        whole(link, path), link.profile(path).flags, active_path(link, uuid)
    )
    found = FoundProfile(
        uuid=uuid,
        settings=read_known(raw),
        secrets=read_secrets(raw),
        label=label_of(raw),
        saved=not flags & _UNSAVED,
    )
    return await _in_use(link, found, active)


async def _in_use(link: NetworkLink, found: FoundProfile, active: str | None) -> FoundProfile:
    if active is None:
        interface = str(found.settings.get("connection.interface-name", ""))
        return attrs.evolve(found, reason=await _reason(link, interface))
    state, devices = await asyncio.gather(link.active(active).state, link.active(active).devices)
    found = attrs.evolve(found, use=_USES.get(state, "coming" if state == 0 else "down"))
    if found.use == "down" or not devices:
        return found
    device = link.device(devices[0])
    name, ip4, ip6 = await asyncio.gather(device.interface, device.ip4_config, device.ip6_config)
    found = attrs.evolve(found, interface=name)
    if found.use != "up":
        return found
    applied, _ = await device.get_applied_connection(0)
    data4, gateway = await _ip4(link, ip4)
    data6 = await link.ip6(ip6).address_data if ip6 != NO_OBJECT else []
    return attrs.evolve(
        found,
        applied=read_known(applied),
        addresses=(*addresses_in(data4), *addresses_in(data6)),
        gateway=gateway or None,
    )


async def _ip4(link: NetworkLink, path: str) -> tuple[_Data, str]:
    if path == NO_OBJECT:
        return [], ""
    config = link.ip4(path)
    data, gateway = await asyncio.gather(config.address_data, config.gateway)
    return data, gateway


async def _reason(link: NetworkLink, interface: str) -> str:
    """Return why a profile is not in use, as far as its interface knows."""
    path = await device_path(link, interface) if interface else None
    if path is None:
        return ""
    _, reason = await link.device(path).state_reason
    return _REASONS.get(reason, f"reason {reason} of NetworkManager" if reason > 1 else "")


async def _interface(link: NetworkLink, name: str | None) -> FoundInterface:
    if name is None:
        return FoundInterface()
    path = await device_path(link, name)
    if path is None:
        return FoundInterface(name=name, readiness="absent")
    device = link.device(path)
    own_name, state, active = await asyncio.gather(
        device.interface, device.state, device.active_connection
    )
    return FoundInterface(
        name=own_name,
        readiness=_readiness(state),
        uses=await link.active(active).id if active != NO_OBJECT else "",
    )


def _readiness(state: int) -> Literal["ready", "no carrier", "unmanaged"]:
    if state <= _UNMANAGED:
        return "unmanaged"
    return "no carrier" if state <= _UNAVAILABLE else "ready"


async def _namesakes(link: NetworkLink, name: str) -> tuple[str, ...]:
    paths = await link.settings.list_connections()
    profiles = await asyncio.gather(*(link.profile(path).get_settings() for path in paths))
    connections = [raw["connection"] for raw in profiles]
    return tuple(str(each["uuid"][1]) for each in connections if each["id"][1] == name)


async def _or_none(call: Awaitable[str]) -> str | None:
    try:
        return await call
    except SdBusBaseError as error:
        if error_name(error).rpartition(".")[2] in _GONE:
            return None
        raise
