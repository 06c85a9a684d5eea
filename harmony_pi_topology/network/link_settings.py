"""A link, such as a Wi-Fi network, as settings by NetworkManager's names, and as the secrets that it names.

A link says all that it is about: what it has no word for is as it is by default, or stays as somebody has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, assert_never

from harmony_core.resources import (
    Bond,
    Bridge,
    Enterprise,
    Ethernet,
    Link,
    SecretRef,
    Vlan,
    Wifi,
    Wireguard,
)

from .settings import EAP_PASSWORD, EAP_PRIVATE_KEY_PASSWORD, PRIVATE_KEY, PSK, Setting
from .wireguard import preshared_key_of, write_wireguard_peer

__all__ = ["MADE", "TYPES", "find_secrets", "makes_its_key", "settings_of_link"]

TYPES: Final = {
    "ethernet": "802-3-ethernet",
    "vlan": "vlan",
    "bridge": "bridge",
    "bond": "bond",
    "wifi": "802-11-wireless",
    "wireguard": "wireguard",
}
"""What NetworkManager calls a type of link."""
MADE: Final = frozenset({"vlan", "bridge", "bond", "wireguard"})
"""The types, ours and NetworkManager's, of links whose interface comes with the profile, and goes with it."""
_BANDS: Final = {"2.4GHz": "bg", "5GHz": "a"}
_POWERSAVE: Final = {False: 2, True: 3}
"""NetworkManager's numbers; 0 is as it has it by default."""
_NOT_REQUIRED: Final = 4
"""Nobody is asked for this secret."""


def settings_of_link(link: Link) -> Iterator[tuple[str, Setting]]:
    """Yield each setting that *link* states."""
    yield "connection.type", TYPES[link.type]
    if link.interface is not None:
        yield "connection.interface-name", link.interface
    if isinstance(link, Ethernet | Wifi) and link.mac is not None:
        yield "connection.interface-name", ""
        yield f"{TYPES[link.type]}.mac-address", link.mac
    match link:
        case Ethernet():
            yield from _of_ethernet(link)
        case Vlan():
            yield "vlan.parent", link.parent
            yield "vlan.id", link.id
        case Bridge():
            yield "bridge.stp", link.stp
        case Bond():
            yield "bond.options", tuple(sorted(_bond_options(link)))
        case Wifi():
            yield from _of_wifi(link)
            yield from _of_security(link)
        case Wireguard():
            yield from _of_wireguard(link)
        case _:
            assert_never(link)


def find_secrets(link: Link) -> Mapping[str, SecretRef | str | None]:
    """Return the secrets of *link*, by NetworkManager's names. A text contains secret words; None is a secret
    that the profile must not have."""
    match link:
        case Wifi(enterprise=None):
            return {PSK: link.psk}
        case Wifi(enterprise=Enterprise() as login):
            return {
                PSK: None,
                EAP_PASSWORD: login.password,
                EAP_PRIVATE_KEY_PASSWORD: login.private_key_password,
            }
        case Wireguard():
            own = {} if link.private_key is None else {PRIVATE_KEY: link.private_key}
            peers = {preshared_key_of(each.public_key): each.preshared_key for each in link.peers}
            return {**own, **peers}
        case _:
            return {}


def makes_its_key(link: Link) -> bool:
    """Return whether *link* has a private key that nobody has given it."""
    return isinstance(link, Wireguard) and link.private_key is None


def _of_ethernet(link: Ethernet) -> Iterator[tuple[str, Setting]]:
    yield "connection.controller", link.controller or ""
    port_type = "bridge" if link.bridge else "bond" if link.bond else ""
    yield "connection.port-type", port_type
    if link.mtu is not None:
        yield "802-3-ethernet.mtu", link.mtu


def _bond_options(link: Bond) -> Iterator[str]:
    """Yield all options: some rule out others."""
    yield f"mode={link.mode}"
    yield f"miimon={link.miimon_ms}"
    for option in ("primary", "lacp_rate", "xmit_hash_policy"):
        value: str | None = getattr(link, option)
        if value is not None:
            yield f"{option}={value}"


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


def _of_security(link: Wifi) -> Iterator[tuple[str, Setting]]:
    is_open = link.psk is None and link.enterprise is None
    yield "802-11-wireless-security.key-mgmt", "" if is_open else link.security
    if link.mode == "ap" and not is_open:
        # Else it would let in by WPA and TKIP, too, which are broken.
        yield "802-11-wireless-security.proto", ("rsn",)
        yield "802-11-wireless-security.pairwise", ("ccmp",)
        yield "802-11-wireless-security.group", ("ccmp",)
    if link.enterprise is not None:
        yield from _of_enterprise(link.enterprise)


def _of_enterprise(login: Enterprise) -> Iterator[tuple[str, Setting]]:
    """Yield every setting of the login, also those that it does not use, so that none of a previous login
    stays."""
    yield "802-1x.eap", (login.eap,)
    yield "802-1x.identity", login.identity
    yield "802-1x.anonymous-identity", login.anonymous_identity or ""
    yield "802-1x.ca-cert", login.ca_certificate or ""
    yield "802-1x.domain-suffix-match", login.domain_suffix_match or ""
    # Each says of which servers it is, too: whom somebody has let in beside ours is let in no more.
    yield "802-1x.system-ca-certs", False
    yield "802-1x.domain-match", ""
    yield "802-1x.altsubject-matches", ()
    yield "802-1x.phase2-auth", login.phase2_auth
    yield "802-1x.client-cert", login.client_certificate or ""
    yield "802-1x.private-key", login.private_key or ""
    is_unlocked = login.private_key is not None and login.private_key_password is None
    yield "802-1x.private-key-password-flags", _NOT_REQUIRED if is_unlocked else 0


def _of_wireguard(link: Wireguard) -> Iterator[tuple[str, Setting]]:
    if link.listen_port is not None:
        yield "wireguard.listen-port", link.listen_port
    if link.mtu is not None:
        yield "wireguard.mtu", link.mtu
    yield "wireguard.peers", tuple(sorted(map(write_wireguard_peer, link.peers)))
