"""Profiles as NetworkManager has them on D-Bus, and as they are compared: two ways of writing the same.

    {"ipv4": {"address-data": ("aa{sv}", …), "dns": ("au", …)}}  <->  {"ipv4.addresses": ("10.0.0.2/24",), …}

What is known is read and written; everything else of a profile goes through untouched. A setting with its
default is not written at all, and older ways of saying the same are taken out beside the one that is written.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from types import MappingProxyType
from typing import Any, Final, TypeAlias, TypeGuard

import attrs

from harmony_core.resources import NetworkProfile, resource_id

from .nm_dbus import RawSettings
from .settings import DEFAULTS, SECRETS, Secrets, Setting, Settings
from .wireguard import peers_in, preshared_key_of, write_peers

__all__ = [
    "LABEL",
    "SECRETS_IN",
    "Section",
    "addresses_in",
    "from_bytes",
    "label_of",
    "merge",
    "put_secrets",
    "read_known",
    "read_secrets",
    "to_bytes",
]

LABEL: Final = "harmony.resource"
"""The key in the profile's user data under which the resource's id is kept."""
SECRETS_IN: Final = ("802-11-wireless-security", "802-1x", "wireguard")
"""The sections that may have secrets, which are told by a call of their own."""

_ABOUT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "802-11-wireless-security": "802-11-wireless-security.key-mgmt",
        "802-1x": "802-1x.eap",
    }
)
"""The setting without which a section is about nothing, and goes with its secrets."""
_FILE: Final = "file://"
_Variant: TypeAlias = "tuple[str, Any]"
Section: TypeAlias = dict[str, tuple[str, Any]]
"""Keys with their values, each with its D-Bus type."""


@attrs.frozen
class _Codec:
    """How one setting is written: its keys on D-Bus, the first being ours, and its value."""

    keys: tuple[str, ...]
    signature: str
    write: Callable[[Any], Any]
    read: Mapping[str, Callable[[Any], Setting]]


def addresses_in(data: list[dict[str, _Variant]]) -> tuple[str, ...]:
    return tuple(f"{_same_address(each['address'][1])}/{each['prefix'][1]}" for each in data)


def _same_address(text: str) -> str:
    """Return *text* in Harmony's own notation of an address: ``::ffff:192.0.2.1`` has several notations."""
    try:
        return str(ip_address(text))
    except ValueError:
        return text  # a name server's may have its name beside it


def _same_addresses(texts: list[str]) -> tuple[str, ...]:
    return tuple(map(_same_address, texts))


def _address_data(addresses: tuple[str, ...]) -> list[dict[str, _Variant]]:
    parts = (each.split("/") for each in addresses)
    return [{"address": ("s", address), "prefix": ("u", int(size))} for address, size in parts]


def _routes(data: list[dict[str, _Variant]]) -> tuple[str, ...]:
    return tuple(" ".join(_route(each)) for each in data)


def _route(route: dict[str, _Variant]) -> Iterator[str]:
    yield f"{_same_address(route['dest'][1])}/{route['prefix'][1]}"
    if "next-hop" in route:
        yield _same_address(route["next-hop"][1])
    if "metric" in route:
        yield str(route["metric"][1])


def _route_data(routes: tuple[str, ...]) -> list[dict[str, _Variant]]:
    return [_route_entry(*route.split(" ")) for route in routes]


def _route_entry(network: str, *rest: str) -> dict[str, _Variant]:
    dest, size = network.split("/")
    entry: dict[str, _Variant] = {"dest": ("s", dest), "prefix": ("u", int(size))}
    for word in rest:
        if word.isdigit():
            entry["metric"] = ("u", int(word))
        else:
            entry["next-hop"] = ("s", word)
    return entry


def _dns4(addresses: tuple[str, ...]) -> list[int]:
    """Return numbers whose bytes in memory are in network order."""
    return [int.from_bytes(IPv4Address(each).packed, sys.byteorder) for each in addresses]


def _read_dns4(numbers: list[int]) -> tuple[str, ...]:
    return tuple(str(IPv4Address(each.to_bytes(4, sys.byteorder))) for each in numbers)


def _dns6(addresses: tuple[str, ...]) -> list[bytes]:
    return [IPv6Address(each).packed for each in addresses]


def _read_dns6(packed: list[bytes]) -> tuple[str, ...]:
    return tuple(str(IPv6Address(bytes(each))) for each in packed)


def _ssid(name: str) -> bytes:
    return name.encode()


def _read_ssid(raw: bytes) -> str:
    return bytes(raw).decode(errors="replace")


def _mac(address: str) -> bytes:
    return bytes.fromhex(address.replace(":", ""))


def _read_mac(raw: bytes) -> str:
    return bytes(raw).hex(":").upper()


def _path(path: str) -> bytes:
    return f"{_FILE}{path}\0".encode()


def _read_path(raw: bytes) -> str:
    """Return the path; "a copy" where somebody has put the file itself into the profile."""
    text = bytes(raw).decode(errors="replace").removesuffix("\0")
    return text.removeprefix(_FILE) if text.startswith(_FILE) else "a copy"


def _options(words: tuple[str, ...]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in words)


def _read_options(options: dict[str, str]) -> tuple[str, ...]:
    return tuple(sorted(f"{name}={value}" for name, value in options.items()))


def _same(value: Any) -> Any:
    return value


def _plain(signature: str, *keys: str) -> _Codec:
    return _Codec(keys, signature, _same, dict.fromkeys(keys, _same))


def _words(key: str) -> _Codec:
    return _Codec((key,), "as", list, {key: tuple})


def _file(key: str) -> _Codec:
    return _Codec((key,), "ay", _path, {key: _read_path})


_MAC: Final = _Codec(("mac-address",), "ay", _mac, {"mac-address": _read_mac})


def _ip(family: str, dns: _Codec) -> dict[str, _Codec]:
    addresses = _Codec(
        ("address-data", "addresses"), "aa{sv}", _address_data, {"address-data": addresses_in}
    )
    routes = _Codec(("route-data", "routes"), "aa{sv}", _route_data, {"route-data": _routes})
    return {
        f"{family}.method": _plain("s", "method"),
        f"{family}.addresses": addresses,
        f"{family}.gateway": _Codec(("gateway",), "s", _same, {"gateway": _same_address}),
        f"{family}.routes": routes,
        f"{family}.dns": dns,
        f"{family}.dns-search": _words("dns-search"),
        f"{family}.route-metric": _plain("x", "route-metric"),
        f"{family}.never-default": _plain("b", "never-default"),
        f"{family}.ignore-auto-dns": _plain("b", "ignore-auto-dns"),
    }


_CODECS: Final[Mapping[str, _Codec]] = MappingProxyType(
    {
        "connection.type": _plain("s", "type"),
        "connection.interface-name": _plain("s", "interface-name"),
        "connection.autoconnect": _plain("b", "autoconnect"),
        "connection.autoconnect-priority": _plain("i", "autoconnect-priority"),
        # Since 1.46 these have other names too; the old ones are understood by all.
        "connection.controller": _plain("s", "master", "controller"),
        "connection.port-type": _plain("s", "slave-type", "port-type"),
        "802-3-ethernet.mac-address": _MAC,
        "802-3-ethernet.mtu": _plain("u", "mtu"),
        "vlan.parent": _plain("s", "parent"),
        "vlan.id": _plain("u", "id"),
        "bridge.stp": _plain("b", "stp"),
        "bond.options": _Codec(("options",), "a{ss}", _options, {"options": _read_options}),
        "802-11-wireless.ssid": _Codec(("ssid",), "ay", _ssid, {"ssid": _read_ssid}),
        "802-11-wireless.mode": _plain("s", "mode"),
        "802-11-wireless.band": _plain("s", "band"),
        "802-11-wireless.channel": _plain("u", "channel"),
        "802-11-wireless.hidden": _plain("b", "hidden"),
        "802-11-wireless.mac-address": _MAC,
        "802-11-wireless.powersave": _plain("u", "powersave"),
        "802-11-wireless-security.key-mgmt": _plain("s", "key-mgmt"),
        "802-11-wireless-security.proto": _words("proto"),
        "802-11-wireless-security.pairwise": _words("pairwise"),
        "802-11-wireless-security.group": _words("group"),
        "802-1x.eap": _words("eap"),
        "802-1x.identity": _plain("s", "identity"),
        "802-1x.anonymous-identity": _plain("s", "anonymous-identity"),
        "802-1x.ca-cert": _file("ca-cert"),
        "802-1x.domain-suffix-match": _plain("s", "domain-suffix-match"),
        "802-1x.system-ca-certs": _plain("b", "system-ca-certs"),
        "802-1x.domain-match": _plain("s", "domain-match"),
        "802-1x.altsubject-matches": _words("altsubject-matches"),
        "802-1x.phase2-auth": _plain("s", "phase2-auth"),
        "802-1x.client-cert": _file("client-cert"),
        "802-1x.private-key": _file("private-key"),
        "802-1x.private-key-password-flags": _plain("u", "private-key-password-flags"),
        "wireguard.listen-port": _plain("u", "listen-port"),
        "wireguard.mtu": _plain("u", "mtu"),
        "wireguard.peers": _Codec(("peers",), "aa{sv}", write_peers, {"peers": peers_in}),
        **_ip(
            "ipv4",
            _Codec(
                ("dns", "dns-data"), "au", _dns4, {"dns-data": _same_addresses, "dns": _read_dns4}
            ),
        ),
        **_ip(
            "ipv6",
            _Codec(
                ("dns", "dns-data"), "aay", _dns6, {"dns-data": _same_addresses, "dns": _read_dns6}
            ),
        ),
    }
)


def read_known(raw: RawSettings) -> Settings:
    """Return those settings of *raw* that are in `DEFAULTS`."""
    found: dict[str, Setting] = {}
    for name, codec in _CODECS.items():
        section = raw.get(name.rpartition(".")[0], {})
        for key, read in codec.read.items():
            if key in section:
                found[name] = read(section[key][1])
                break
    return found


def read_secrets(raw: RawSettings) -> Mapping[str, str]:
    """Return the secrets in *raw*; none when it was read without them."""
    found = dict[str, str]()
    for name in SECRETS:
        section, _, key = name.rpartition(".")
        if key in raw.get(section, {}):
            found[name] = str(raw[section][key][1])
    return found | _preshared_keys(raw)


def put_secrets(section: Section, secrets: Section) -> None:
    """Put the *secrets* of a section, which are read apart from the rest, into it."""
    rest = {key: value for key, value in secrets.items() if key != "peers"}
    section.update(rest)
    keys = {each["public-key"][1]: each for each in secrets.get("peers", ("", []))[1]}
    for peer in section.get("peers", ("", []))[1]:
        peer.update(keys.get(peer["public-key"][1], {}))


def _preshared_keys(raw: RawSettings) -> dict[str, str]:
    return {
        preshared_key_of(peer["public-key"][1]): str(peer["preshared-key"][1])
        for peer in _peers(raw)
        if "preshared-key" in peer
    }


def _peers(raw: RawSettings) -> list[Section]:
    peers: list[Section] = raw.get("wireguard", {}).get("peers", ("aa{sv}", []))[1]
    return peers


def label_of(raw: RawSettings) -> str:
    """Return the id of the resource for which the profile was made; empty for one that Harmony did not
    make."""
    data: dict[str, str] = raw.get("user", {}).get("data", ("a{ss}", {}))[1]
    return data.get(LABEL, "")


def merge(
    raw: RawSettings,
    settings: Settings,
    secrets: Secrets,
    *,
    name: str | None = None,
    uuid: str = "",
) -> RawSettings:
    """Return *raw* with these settings and secrets. *name* and *uuid* make it a new profile."""
    result = {section: dict(values) for section, values in raw.items()}
    if "wireguard.peers" in settings:
        # They are written anew: their preshared keys stay unless others are given.
        secrets = {**_preshared_keys(raw), **secrets}
    for setting, value in settings.items():
        _put(result, setting, value)
    if settings.get("connection.controller"):
        for family in ("ipv4", "ipv6"):
            result.pop(family, None)  # a port has no addresses
    for section, about in _ABOUT.items():
        if about in settings and settings[about] == DEFAULTS[about]:
            result.pop(section, None)
    for secret, content in secrets.items():
        _put_secret(result, secret, content)
    if name is not None:
        label = resource_id(NetworkProfile.resource_type, name)
        result.setdefault("connection", {}).update(id=("s", name), uuid=("s", uuid))
        result["user"] = {"data": ("a{ss}", {LABEL: label})}
    return result


def _put(raw: RawSettings, setting: str, value: Setting) -> None:
    codec, section = _CODECS[setting], setting.rpartition(".")[0]
    keys = raw.setdefault(section, {})
    for key in codec.keys:
        keys.pop(key, None)
    if value != DEFAULTS[setting] or setting.endswith(".method"):
        keys[codec.keys[0]] = (codec.signature, codec.write(value))
    elif not keys:
        del raw[section]


def _put_secret(raw: RawSettings, name: str, content: str | None) -> None:
    section, _, key = name.rpartition(".")
    if key == "preshared-key":
        _put_preshared_key(raw, name, content)
    elif content is not None:
        keys = raw.setdefault(section, {})
        keys[key] = ("s", content)
        # Somebody may have said that each user has one of their own, and then it is kept nowhere.
        if f"{key}-flags" in keys:
            keys[f"{key}-flags"] = ("u", 0)
    elif section in raw:
        raw[section].pop(key, None)


def _put_preshared_key(raw: RawSettings, name: str, content: str | None) -> None:
    """Set the preshared key of the peer in *name*, or, with None, delete it. Do nothing where there is no
    such peer."""
    given: Section = {}
    if content is not None:
        given = {"preshared-key": ("s", content), "preshared-key-flags": ("u", 0)}
    peers = [
        {**_without_preshared_key(peer), **given}
        if preshared_key_of(peer["public-key"][1]) == name
        else peer
        for peer in _peers(raw)
    ]
    if peers:
        raw["wireguard"]["peers"] = ("aa{sv}", peers)


def _without_preshared_key(peer: Section) -> Section:
    return {key: value for key, value in peer.items() if not key.startswith("preshared-key")}


def to_bytes(raw: RawSettings) -> bytes:
    """Return a whole profile as bytes, to be stored."""
    return json.dumps(_plainly(raw)).encode()


def from_bytes(data: bytes) -> RawSettings:
    """Return the profile that `to_bytes` turned into *data*."""
    raw: RawSettings = _exactly(json.loads(data))
    return raw


def _plainly(value: Any) -> Any:
    """Return *value* for JSON, which has neither bytes nor tuples."""
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if _is_tuple(value):
        return {"tuple": [_plainly(each) for each in value]}
    if _is_list(value):
        return [_plainly(each) for each in value]
    if _is_dict(value):
        return {"dict": {key: _plainly(each) for key, each in value.items()}}
    return value


def _exactly(value: Any) -> Any:
    if _is_list(value):
        return [_exactly(each) for each in value]
    if not _is_dict(value):
        return value
    ((kind, content),) = value.items()
    match kind:
        case "bytes":
            return base64.b64decode(content)
        case "tuple":
            return tuple(_exactly(each) for each in content)
        case _:
            return {key: _exactly(each) for key, each in content.items()}


def _is_tuple(value: Any) -> TypeGuard[tuple[Any, ...]]:
    return isinstance(value, tuple)


def _is_list(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _is_dict(value: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)
