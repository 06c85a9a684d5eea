"""WireGuard's keys, and its peers as a setting: one line each, in an order that says nothing.

    WireguardPeer                    -> "KEY endpoint=vpn.example.org:51820 allowed-ips=10.8.0.0/24 …"
    as NetworkManager has it on D-Bus <-> the same

What NetworkManager may write in two ways, such as an IPv6 address or a list's order, is compared by what it
means. Preshared keys are no part of it: they are secrets.
"""

from __future__ import annotations

import secrets
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv6Address, ip_network
from typing import Any

from harmony_core.resources import WireguardPeer

__all__ = [
    "find_public_key",
    "make_private_key",
    "peers_in",
    "preshared_key_of",
    "write_peers",
    "write_wireguard_peer",
]


def make_private_key() -> str:
    """Return a new private key, in base64."""
    key = bytearray(secrets.token_bytes(32))
    key[0] &= 0b1111_1000
    key[31] = key[31] & 0b0111_1111 | 0b0100_0000
    return b64encode(key).decode()


def find_public_key(private_key: str) -> str:
    """Return the public key of that private key, both in base64."""
    from nacl.bindings import crypto_scalarmult_base  # noqa: PLC0415 - few have a WireGuard link

    return b64encode(crypto_scalarmult_base(b64decode(private_key))).decode()


def preshared_key_of(public_key: str) -> str:
    """Return NetworkManager's name for the preshared key of that peer."""
    return f"wireguard.peers.{public_key}.preshared-key"


def write_wireguard_peer(peer: WireguardPeer) -> str:
    """Return the line of *peer*."""
    return _line(
        peer.public_key,
        peer.endpoint or "",
        peer.allowed_ips,
        peer.persistent_keepalive_s or 0,
    )


def peers_in(raw: Iterable[Mapping[str, tuple[str, Any]]]) -> tuple[str, ...]:
    """Return the lines of peers in NetworkManager's form."""
    return tuple(sorted(_read_peer(each) for each in raw))


def write_peers(lines: Iterable[str]) -> list[dict[str, tuple[str, Any]]]:
    """Return peers in NetworkManager's form, without their preshared keys."""
    return [dict(_write_peer(*line.split(" "))) for line in lines]


def _line(public_key: str, endpoint: str, allowed_ips: Iterable[str], keepalive_s: int) -> str:
    words = [public_key]
    if endpoint:
        words.append(f"endpoint={endpoint}")
    words.append(f"allowed-ips={','.join(sorted(allowed_ips))}")
    if keepalive_s:
        words.append(f"persistent-keepalive={keepalive_s}")
    return " ".join(words)


def _read_peer(raw: Mapping[str, tuple[str, Any]]) -> str:
    return _line(
        str(raw["public-key"][1]),
        _same_endpoint(str(raw.get("endpoint", ("s", ""))[1])),
        (_same_network(each) for each in raw.get("allowed-ips", ("as", []))[1]),
        int(raw.get("persistent-keepalive", ("u", 0))[1]),
    )


def _write_peer(public_key: str, *words: str) -> Iterator[tuple[str, tuple[str, Any]]]:
    yield "public-key", ("s", public_key)
    for word in words:
        key, _, value = word.partition("=")
        match key:
            case "allowed-ips":
                yield key, ("as", [each for each in value.split(",") if each])
            case "persistent-keepalive":
                yield key, ("u", int(value))
            case _:
                yield key, ("s", value)


def _same_endpoint(text: str) -> str:
    host, _, port = text.rpartition(":")
    try:
        return f"[{IPv6Address(host.strip('[]'))}]:{port}"
    except ValueError:
        return text


def _same_network(text: str) -> str:
    try:
        return str(ip_network(text, strict=False))
    except ValueError:
        return text
