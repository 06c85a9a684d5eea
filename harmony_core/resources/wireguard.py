"""A WireGuard link, and who is at its other ends."""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from ipaddress import IPv6Address, ip_network
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from ._secret_text import Secret
from .network_link import InterfaceName, Mtu, NetworkPart, refuse_scope

__all__ = ["Wireguard", "WireguardPeer", "check_wireguard_key"]

_KEY_BYTES = 32
_HOST_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_")


def check_wireguard_key(text: str) -> str:
    """Return *text*, which is a key as ``wg`` writes it. Raise ValueError if it is none."""
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        content = b""
    if len(content) != _KEY_BYTES:
        raise ValueError("a key has 32 bytes in base64, 44 characters, as wg pubkey prints it")
    return base64.b64encode(content).decode()


def _check_endpoint(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise ValueError("write a host and its port, as in vpn.example.org:51820")
    if host.startswith("[") and host.endswith("]"):
        return f"[{IPv6Address(refuse_scope(host[1:-1]))}]:{int(port)}"
    if ":" in host:
        raise ValueError("put an IPv6 address in brackets, as in [2001:db8::1]:51820")
    if not 0 < len(host) < 254 or not _HOST_CHARACTERS.issuperset(host):
        raise ValueError("write a host and its port, as in vpn.example.org:51820")
    return f"{host}:{int(port)}"


def _check_network(text: str) -> str:
    if "/" not in text:
        raise ValueError(f"{text} has no prefix length; add one, as in 10.8.0.0/24 or 10.8.0.2/32")
    return str(ip_network(refuse_scope(text)))


WireguardKey = Annotated[str, AfterValidator(check_wireguard_key)]
Endpoint = Annotated[str, AfterValidator(_check_endpoint)]
AllowedIp = Annotated[str, AfterValidator(_check_network)]


class WireguardPeer(NetworkPart):
    """Who is at another end."""

    secret_fields: ClassVar[frozenset[str]] = frozenset({"preshared_key"})

    public_key: WireguardKey
    """Its public key, in base64."""
    endpoint: Endpoint | None = None
    """Where it is reached, as in vpn.example.org:51820; none for one that always begins itself."""
    allowed_ips: Annotated[tuple[AllowedIp, ...], Field(min_length=1)]
    """What is sent to it, and taken from it; 0.0.0.0/0 and ::/0 are everything."""
    preshared_key: Secret | None = None
    """A key that both ends know beside theirs: ``${secret.NAME}``, or a secret that is on the device."""
    persistent_keepalive_s: Annotated[int, Field(ge=1, le=65_535)] | None = None
    """How often a packet is sent so that a router between keeps the way open, in seconds; none for never."""


class Wireguard(NetworkPart):
    """An encrypted way to others. Its interface is made, and goes with the profile.

    Its private key never leaves the device. Unless *private_key* names one, the device makes it, and tells
    the public key in its state, for the other ends; it goes with the profile.
    """

    secret_fields: ClassVar[frozenset[str]] = frozenset({"private_key"})

    type: Literal["wireguard"] = "wireguard"
    """Which kind of link it is."""
    interface: InterfaceName
    """The interface that is made."""
    private_key: Secret | None = None
    """The private key: ``${secret.NAME}``, or a secret that is on the device; none for one that the device
    makes itself."""
    listen_port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    """The port of UDP at which it listens; none for any, where only the device itself begins."""
    mtu: Mtu | None = None
    """The largest packet, in bytes; none leaves it."""
    peers: tuple[WireguardPeer, ...] = ()
    """Who is at the other ends; they replace the profile's."""

    @model_validator(mode="after")
    def _tells_its_peers_apart(self) -> Self:
        for field, values in (
            ("public_key", [peer.public_key for peer in self.peers]),
            ("allowed_ips", [ip for peer in self.peers for ip in peer.allowed_ips]),
        ):
            for value, count in Counter(values).items():
                if count > 1:
                    raise ValueError(f"peers: {value} is there {count} times as {field}; leave one")
        return self
