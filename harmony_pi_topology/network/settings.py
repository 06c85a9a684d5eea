"""The settings of a network profile, by NetworkManager's names. Shared by every reconciler of profiles.

    NetworkProfile -> the settings that it speaks of        ipv4.addresses, connection.autoconnect, …
    those, and what is there -> the names that differ       everything else of the profile is not touched

Only the settings named in `DEFAULTS` are known here. What else a profile has, somebody else gave it, and it
stays. A secret is no setting: it is handed on beside them, and never told.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from types import MappingProxyType
from typing import Any, Final, TypeAlias, assert_never
from uuid import UUID, uuid5

import attrs

from harmony_core.errors import InvalidResource
from harmony_core.resources import (
    Bridge,
    Ethernet,
    Ipv4,
    Ipv4Route,
    Ipv6,
    Ipv6Route,
    Link,
    NetworkProfile,
    Vlan,
    Wifi,
)
from harmony_pi_topology.files.plan import diff_of

__all__ = [
    "BARE",
    "DEFAULTS",
    "LIVE",
    "PSK",
    "DesiredProfile",
    "Setting",
    "Settings",
    "bare",
    "describe_setting",
    "diff_settings",
    "differences",
    "profile_uuid",
    "read_settings",
    "resolve_desired",
]

Setting: TypeAlias = bool | int | str | tuple[str, ...]
Settings: TypeAlias = Mapping[str, Setting]

PSK: Final = "802-11-wireless-security.psk"
"""The name under which a secret that differs is told."""

_IP: Final[Settings] = MappingProxyType(
    {
        "method": "auto",
        "addresses": (),
        "gateway": "",
        "routes": (),
        "dns": (),
        "dns-search": (),
        "route-metric": -1,
        "never-default": False,
        "ignore-auto-dns": False,
    }
)
DEFAULTS: Final[Settings] = MappingProxyType(
    {
        "connection.type": "",
        "connection.interface-name": "",
        "connection.autoconnect": True,
        "connection.autoconnect-priority": 0,
        "connection.controller": "",
        "connection.port-type": "",
        "802-3-ethernet.mac-address": "",
        "802-3-ethernet.mtu": 0,
        "vlan.parent": "",
        "vlan.id": 0,
        "bridge.stp": True,
        "802-11-wireless.ssid": "",
        "802-11-wireless.mode": "infrastructure",
        "802-11-wireless.band": "",
        "802-11-wireless.channel": 0,
        "802-11-wireless.hidden": False,
        "802-11-wireless.mac-address": "",
        "802-11-wireless.powersave": 0,
        "802-11-wireless-security.key-mgmt": "",
        "802-11-wireless-security.proto": (),
        "802-11-wireless-security.pairwise": (),
        "802-11-wireless-security.group": (),
        **{f"ipv4.{name}": value for name, value in _IP.items()},
        **{f"ipv6.{name}": value for name, value in _IP.items()},
    }
)
"""Every setting that is known, and what it is where a profile does not say it. This is its type, too."""

LIVE: Final = frozenset(DEFAULTS) - {"connection.autoconnect", "connection.autoconnect-priority"}
"""Those that an interface which is in use has taken on. The others matter only when one is chosen."""

BARE: Final[Settings] = MappingProxyType({"ipv4.method": "disabled", "ipv6.method": "disabled"})
"""No addresses at all."""

_NEWER: Final = frozenset({("802-11-wireless.mode", "infrastructure")})
"""What goes without saying, and once was not said: what was confirmed then is confirmed still."""

LAST: Final = -999
"""The least priority that there is."""

_TYPES: Final = {
    "ethernet": "802-3-ethernet",
    "vlan": "vlan",
    "bridge": "bridge",
    "wifi": "802-11-wireless",
}
_BANDS: Final = {"2.4GHz": "bg", "5GHz": "a"}
_POWERSAVE: Final = {False: 2, True: 3}
"""NetworkManager's numbers; 0 is as it has it by default."""
_NAMESPACE: Final = UUID("b0d5e9d2-51a5-4a5e-9a35-6d1a3f0b7c11")


@attrs.frozen(kw_only=True)
class DesiredProfile:
    """A `NetworkProfile` whose secret is known."""

    profile: NetworkProfile
    settings: Settings
    psk: str | None = attrs.field(default=None, repr=False)

    @property
    def spec(self) -> str:
        """Hex SHA-256 of what an interface takes on of it, without the secret.

        What "was this confirmed?" compares.
        """
        known = {name: value for name, value in self.live.items() if (name, value) not in _NEWER}
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()

    @property
    def on_trial(self) -> Settings:
        """As long as it is not confirmed: nothing brings it up by itself once it has been taken back."""
        return {**self.settings, "connection.autoconnect": False}

    @property
    def unproven(self) -> Settings:
        """On disk, as long as the device was never reached by it: it takes no other's place by itself.

        A Wi-Fi network may be the only one where the device is taken next, so it is used where no other is.
        """
        if self.profile.may_be_out_of_range:
            return {**self.settings, "connection.autoconnect-priority": LAST}
        return self.on_trial

    @property
    def live(self) -> Settings:
        """What an interface that uses it takes on."""
        return {name: value for name, value in self.settings.items() if name in LIVE}


def profile_uuid(name: str) -> str:
    """Return the UUID of the profile that is made under *name*: the same on every device."""
    return str(uuid5(_NAMESPACE, name))


def resolve_desired(profile: NetworkProfile, secret: bytes | None) -> DesiredProfile:
    """*profile*, with the content of the secret that it names. `InvalidResource` for one that cannot be."""
    settings: dict[str, Setting] = {
        "connection.autoconnect": profile.autoconnect,
        "connection.autoconnect-priority": profile.priority,
        **dict(_of_link(profile.link)),
    }
    for family, ip in (("ipv4", profile.ipv4), ("ipv6", profile.ipv6)):
        if ip is not None:
            settings.update({f"{family}.{name}": value for name, value in _of_ip(ip)})
    psk = _psk(profile, secret) if secret is not None else None
    return DesiredProfile(profile=profile, settings=settings, psk=psk)


def bare(desired: DesiredProfile) -> Settings:
    """The same interface, without any address: what may be brought up without harm."""
    links = {name: value for name, value in desired.on_trial.items() if not name.startswith("ipv")}
    return {**links, **BARE}


def read_settings(fields: Mapping[str, Any]) -> dict[str, Setting]:
    """Settings that were JSON, which knows no tuples. What a newer agent wrote is left out."""
    return {
        name: tuple(value) if isinstance(DEFAULTS[name], tuple) else value
        for name, value in fields.items()
        if name in DEFAULTS
    }


def differences(found: Settings, desired: Settings, among: Iterable[str] = LIVE) -> tuple[str, ...]:
    """Return the names, *among* those given, under which *found* is not as *desired*, in their order."""
    chosen = frozenset(among)
    return tuple(
        name
        for name, value in desired.items()
        if name in chosen and found.get(name, DEFAULTS[name]) != value
    )


def describe_setting(value: Setting) -> str:
    """Return *value* for people: as NetworkManager's own files have it."""
    return _text(value) or "nothing"


def diff_settings(name: str, before: Settings, after: Settings) -> str | None:
    """Return what changes in the profile *name*, as a unified diff of a file like NetworkManager's own."""
    return diff_of(f"/{name}", _as_file(before), _as_file(after))


def _of_link(link: Link) -> Iterator[tuple[str, Setting]]:
    yield "connection.type", _TYPES[link.type]
    if link.interface is not None:
        yield "connection.interface-name", link.interface
    if isinstance(link, Ethernet | Wifi) and link.mac is not None:
        yield "connection.interface-name", ""
        yield f"{_TYPES[link.type]}.mac-address", link.mac
    match link:
        case Ethernet():
            yield "connection.controller", link.bridge or ""
            yield "connection.port-type", "bridge" if link.bridge else ""
            if link.mtu is not None:
                yield "802-3-ethernet.mtu", link.mtu
        case Vlan():
            yield "vlan.parent", link.parent
            yield "vlan.id", link.id
        case Bridge():
            yield "bridge.stp", link.stp
        case Wifi():
            yield from _of_wifi(link)
        case _:
            assert_never(link)


def _of_wifi(link: Wifi) -> Iterator[tuple[str, Setting]]:
    yield "802-11-wireless.ssid", link.ssid
    yield "802-11-wireless.mode", link.mode
    yield "802-11-wireless.hidden", link.hidden
    if link.band is not None:
        yield "802-11-wireless.band", _BANDS[link.band]
    if link.channel is not None:
        yield "802-11-wireless.channel", link.channel
    if link.powersave is not None:
        yield "802-11-wireless.powersave", _POWERSAVE[link.powersave]
    yield "802-11-wireless-security.key-mgmt", link.security if link.psk else ""
    if link.mode == "ap" and link.psk:
        # Else it would let in by WPA and TKIP, too, which are broken.
        yield "802-11-wireless-security.proto", ("rsn",)
        yield "802-11-wireless-security.pairwise", ("ccmp",)
        yield "802-11-wireless-security.group", ("ccmp",)


def _of_ip(ip: Ipv4 | Ipv6) -> Iterator[tuple[str, Setting]]:
    given: dict[str, Setting | None] = {
        "method": ip.method,
        "addresses": ip.addresses,
        "gateway": ip.gateway,
        "routes": None if ip.routes is None else tuple(map(_of_route, ip.routes)),
        "dns": ip.dns,
        "dns-search": ip.dns_search,
        "route-metric": ip.metric,
        "never-default": None if ip.default_route is None else not ip.default_route,
        "ignore-auto-dns": ip.ignore_auto_dns,
    }
    return ((name, value) for name, value in given.items() if value is not None)


def _of_route(route: Ipv4Route | Ipv6Route) -> str:
    """As nmcli writes it: ``10.0.0.0/8 192.168.7.1 50``."""
    parts = (route.to, route.via, None if route.metric is None else str(route.metric))
    return " ".join(part for part in parts if part is not None)


def _psk(profile: NetworkProfile, secret: bytes) -> str:
    """Return the password, of which a text file may have put a newline at the end."""
    try:
        text = secret.decode().removesuffix("\n")
    except UnicodeDecodeError:
        text = ""
    if not 8 <= len(text.encode()) <= 64:
        raise InvalidResource(
            "the secret that link.psk names is no Wi-Fi password, which has 8 to 63 characters; "
            "put the right one into the device's secrets directory",
            resource=profile.id,
        )
    return text


def _as_file(settings: Settings) -> bytes:
    """Sections and keys, sorted; what has its default is left out."""
    told = sorted(name for name, value in settings.items() if value != DEFAULTS.get(name))
    lines = list[str]()
    for section, names in groupby(told, key=lambda name: name.partition(".")[0]):
        lines.append(f"[{section}]")
        lines += [f"{name.partition('.')[2]}={_text(settings[name])}" for name in names]
    return "".join(f"{line}\n" for line in lines).encode()


def _text(value: Setting) -> str:
    match value:
        case bool():
            return str(value).lower()
        case tuple():
            return "; ".join(value)
        case _:
            return str(value)
