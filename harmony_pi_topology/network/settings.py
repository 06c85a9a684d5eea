"""The settings of a network profile, by NetworkManager's names. Shared by every reconciler of profiles.

    NetworkProfile -> the settings that it speaks of (`.desired`)  ipv4.addresses, connection.autoconnect, …
    those, and what is there -> the names that differ              everything else of it is not touched

Only the settings named in `DEFAULTS` are known here. What else a profile has, somebody else gave it, and it
stays. A secret is no setting: it is handed on beside them, and never told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from harmony_pi_topology.files.plan import diff_of

__all__ = [
    "BARE",
    "DEFAULTS",
    "EAP_PASSWORD",
    "EAP_PRIVATE_KEY_PASSWORD",
    "LIVE",
    "PRIVATE_KEY",
    "PSK",
    "SECRETS",
    "Secrets",
    "Setting",
    "Settings",
    "describe_setting",
    "diff_settings",
    "differences",
    "find_other_secrets",
    "read_settings",
]

Setting: TypeAlias = bool | int | str | tuple[str, ...]
Settings: TypeAlias = Mapping[str, Setting]
Secrets: TypeAlias = Mapping[str, str | None]
"""By their names; None is one that is to be away."""

PSK: Final = "802-11-wireless-security.psk"
EAP_PASSWORD: Final = "802-1x.password"  # noqa: S105 - a setting's name
EAP_PRIVATE_KEY_PASSWORD: Final = "802-1x.private-key-password"  # noqa: S105 - a setting's name
PRIVATE_KEY: Final = "wireguard.private-key"
SECRETS: Final = (PSK, EAP_PASSWORD, EAP_PRIVATE_KEY_PASSWORD, PRIVATE_KEY)
"""The names under which secrets that differ are told; beside them, each WireGuard peer may have one."""

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
        "bond.options": (),
        "wireguard.listen-port": 0,
        "wireguard.mtu": 0,
        "wireguard.peers": (),
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
        "802-1x.eap": (),
        "802-1x.identity": "",
        "802-1x.anonymous-identity": "",
        "802-1x.ca-cert": "",
        "802-1x.domain-suffix-match": "",
        "802-1x.system-ca-certs": False,
        "802-1x.domain-match": "",
        "802-1x.altsubject-matches": (),
        "802-1x.phase2-auth": "",
        "802-1x.client-cert": "",
        "802-1x.private-key": "",
        "802-1x.private-key-password-flags": 0,
        **{f"ipv4.{name}": value for name, value in _IP.items()},
        **{f"ipv6.{name}": value for name, value in _IP.items()},
    }
)
"""Every setting that is known, and what it is where a profile does not say it. This is its type, too."""

LIVE: Final = frozenset(DEFAULTS) - {"connection.autoconnect", "connection.autoconnect-priority"}
"""Those that an interface which is in use has taken on. The others matter only when one is chosen."""

BARE: Final[Settings] = MappingProxyType({"ipv4.method": "disabled", "ipv6.method": "disabled"})
"""No addresses at all."""


def read_settings(fields: Mapping[str, Any]) -> dict[str, Setting]:
    """Return the settings in *fields*, read from JSON, which has no tuples. Leave out what a newer agent
    wrote."""
    return {
        name: tuple(value) if isinstance(DEFAULTS[name], tuple) else value
        for name, value in fields.items()
        if name in DEFAULTS
    }


def differences(found: Settings, desired: Settings, among: Iterable[str] = LIVE) -> tuple[str, ...]:
    """Return the names in *among*, in their order, whose value in *found* differs from *desired*."""
    chosen = frozenset(among)
    return tuple(
        name
        for name, value in desired.items()
        if name in chosen and found.get(name, DEFAULTS[name]) != value
    )


def find_other_secrets(found: Mapping[str, str], desired: Secrets) -> tuple[str, ...]:
    """Return the names of the secrets that differ from *desired*."""
    return tuple(name for name, value in desired.items() if found.get(name) != value)


def describe_setting(value: Setting) -> str:
    """Return *value* for people, as in NetworkManager's own files."""
    return _text(value) or "nothing"


def diff_settings(name: str, before: Settings, after: Settings) -> str | None:
    """Return the changes of the profile *name*, as a unified diff of a file like NetworkManager's own."""
    return diff_of(f"/{name}", _as_file(before), _as_file(after))


def _as_file(settings: Settings) -> bytes:
    """Return sections and keys, sorted, without those that have their default."""
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
