"""What a network profile is for: a cable, a radio, or an interface that is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from harmony_core.paths import AbsolutePath

from ._base import in_words
from ._secret_text import Secret, has_secret

__all__ = [
    "CHANNELS",
    "Bond",
    "BondMode",
    "Bridge",
    "DomainName",
    "Enterprise",
    "Ethernet",
    "InterfaceName",
    "MacAddress",
    "Mtu",
    "NetworkPart",
    "Vlan",
    "Wifi",
    "refuse_scope",
]

InterfaceName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,14}$")]
"""As the kernel names them: ``eth0``, ``wlan0``, ``eth0.7``."""

MacAddress = Annotated[
    str,
    StringConstraints(pattern=r"^([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}$"),
    AfterValidator(str.upper),
    in_words("write six bytes in hexadecimal, as in D8:3A:DD:01:02:03"),
]
"""The address that an interface was made with: ``D8:3A:DD:01:02:03``."""

DomainName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_~]([a-zA-Z0-9_.-]{0,252})$")]
LoginText = Annotated[
    str,
    StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,253}$"),
    in_words("write one line, as in pi-7@example.org"),
]
Mtu = Annotated[int, Field(ge=576, le=65_535)]

CHANNELS: Final[Mapping[str, Sequence[int]]] = MappingProxyType(
    {
        "2.4GHz": range(1, 15),
        "5GHz": (*range(36, 65, 4), *range(100, 141, 4), *range(149, 166, 4)),
    }
)
"""By band, as NetworkManager knows them."""


class NetworkPart(BaseModel):
    """A part of a network profile: it knows its fields and no others."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    secret_fields: ClassVar[frozenset[str]] = frozenset()
    """Its fields that are a `Secret`."""

    @model_validator(mode="after")
    def _has_no_other_secrets(self) -> Self:
        for name, value in self:
            if name not in self.secret_fields and isinstance(value, str) and has_secret(value):
                raise ValueError(f"{name}: it cannot be a secret; write the text itself")
        return self


class Ethernet(NetworkPart):
    """A wired interface; with a *bridge* or a *bond*, a port of it, which has no addresses of its own."""

    type: Literal["ethernet"] = "ethernet"
    """Which kind of link it is."""
    interface: InterfaceName | None = None
    """The interface; needed, unless its MAC address is given."""
    mac: MacAddress | None = None
    """The interface with this MAC address, which it was made with, whatever its name."""
    bridge: InterfaceName | None = None
    """The bridge of which it is a port; none for no bridge."""
    bond: InterfaceName | None = None
    """The bond of which it is a port; none for no bond."""
    mtu: Mtu | None = None
    """The largest packet, in bytes; none leaves it."""

    @model_validator(mode="after")
    def _names_one_interface(self) -> Self:
        _refuse_both(self.interface, self.mac)
        if self.interface is None and self.mac is None:
            raise ValueError(
                "interface: is needed, as in eth0; or mac, the interface's MAC address"
            )
        return self

    @model_validator(mode="after")
    def _is_a_port_of_one(self) -> Self:
        if self.bridge is not None and self.bond is not None:
            raise ValueError("bond: it is a port of a bridge already; leave one of them out")
        return self

    @property
    def controller(self) -> str | None:
        """The interface of which it is a port."""
        return self.bridge or self.bond


class Vlan(NetworkPart):
    """A virtual network of a wired one. Its interface is made, and goes with the profile."""

    type: Literal["vlan"] = "vlan"
    """Which kind of link it is."""
    interface: InterfaceName
    """The interface that is made."""
    parent: InterfaceName
    """The interface it stands on."""
    id: Annotated[int, Field(ge=1, le=4094)]
    """The number of the VLAN."""


class Bridge(NetworkPart):
    """A switch in software. Its interface is made, and goes with the profile."""

    type: Literal["bridge"] = "bridge"
    """Which kind of link it is."""
    interface: InterfaceName
    """The interface that is made."""
    stp: bool = True
    """The spanning tree protocol, which keeps loops from forming; ports then take half a minute to open."""


BondMode = Literal[
    "active-backup",
    "balance-rr",
    "balance-xor",
    "broadcast",
    "802.3ad",
    "balance-tlb",
    "balance-alb",
]


class Bond(NetworkPart):
    """Several cables as one. Its interface is made, and goes with the profile."""

    type: Literal["bond"] = "bond"
    """Which kind of link it is."""
    interface: InterfaceName
    """The interface that is made."""
    mode: BondMode = "active-backup"
    """What the cables are for: one at a time, or all; ``802.3ad`` needs a switch that speaks LACP."""
    miimon_ms: Annotated[int, Field(ge=1, le=60_000)] = 100
    """How often it is looked whether each cable carries, in milliseconds."""
    primary: InterfaceName | None = None
    """The port that is used whenever it carries; none for whichever does."""
    lacp_rate: Literal["slow", "fast"] | None = None
    """How often the switch is to speak, with 802.3ad; none is slow."""
    xmit_hash_policy: Literal["layer2", "layer2+3", "layer3+4", "encap2+3", "encap3+4"] | None = (
        None
    )
    """By what a packet's cable is chosen; none leaves it to the kernel."""

    @model_validator(mode="after")
    def _has_what_its_mode_knows(self) -> Self:
        for field, modes in _ONLY_IN.items():
            if getattr(self, field) is not None and self.mode not in modes:
                raise ValueError(f"{field}: goes with {', '.join(modes)}, and not with {self.mode}")
        return self


_ONLY_IN: Final[Mapping[str, Sequence[str]]] = MappingProxyType(
    {
        "primary": ("active-backup", "balance-tlb", "balance-alb"),
        "lacp_rate": ("802.3ad",),
        "xmit_hash_policy": ("802.3ad", "balance-xor", "balance-tlb"),
    }
)
"""What the kernel takes in some modes alone."""


class Enterprise(NetworkPart):
    """A login at a Wi-Fi network where everybody has one of their own (WPA-Enterprise, 802.1X).

    The server proves itself by a certificate that *ca_certificate* stands behind; files are on the device.
    """

    secret_fields: ClassVar[frozenset[str]] = frozenset({"password", "private_key_password"})

    eap: Literal["peap", "ttls", "tls"]
    """The way in: ``peap`` and ``ttls`` by a password, ``tls`` by a certificate."""
    identity: LoginText
    """The name by which the device logs in."""
    anonymous_identity: LoginText | None = None
    """The name that everybody on the air may read; with peap and ttls, the identity itself unless set."""
    password: Secret | None = None
    """The password, for peap and ttls: ``${secret.NAME}``, or a secret that is on the device."""
    phase2: Literal["mschapv2", "mschap", "chap", "pap", "gtc", "md5"] | None = None
    """How the password is given to the server, once it has proven itself; mschapv2 unless set."""
    ca_certificate: AbsolutePath | None = None
    """Who stands behind the server, as a file in PEM: its own CA, or /etc/ssl/certs/ca-certificates.crt."""
    allow_any_server: bool = False
    """Have no server prove itself: whoever makes a network of this name may ask for the password."""
    domain_suffix_match: DomainName | None = None
    """The end of the server's name, as in radius.example.org; without it, any that the CA stands behind."""
    client_certificate: AbsolutePath | None = None
    """The device's certificate, for tls."""
    private_key: AbsolutePath | None = None
    """The key of that certificate, for tls."""
    private_key_password: Secret | None = None
    """What unlocks the key: ``${secret.NAME}``, or a secret that is on the device; none for one that is not
    locked."""

    @property
    def phase2_auth(self) -> str:
        """How the password is given; empty where there is none."""
        return "" if self.eap == "tls" else self.phase2 or "mschapv2"

    @property
    def files(self) -> tuple[str, ...]:
        """The files that have to be on the device."""
        named = (self.ca_certificate, self.client_certificate, self.private_key)
        return tuple(path for path in named if path is not None)

    @model_validator(mode="after")
    def _knows_its_server(self) -> Self:
        if self.allow_any_server and (self.ca_certificate or self.domain_suffix_match):
            field = "ca_certificate" if self.ca_certificate else "domain_suffix_match"
            raise ValueError(f"{field}: is not looked at while allow_any_server is true")
        if self.ca_certificate is None and not self.allow_any_server:
            raise ValueError(
                "ca_certificate: is needed, or anybody who makes a network of this name is logged in to; "
                "if that is what you want, say allow_any_server: true"
            )
        return self

    @model_validator(mode="after")
    def _has_what_it_logs_in_by(self) -> Self:
        by_certificate = ("client_certificate", "private_key")
        by_password = ("password",)
        needed = by_certificate if self.eap == "tls" else by_password
        of_no_use = (
            (*by_password, "phase2")
            if self.eap == "tls"
            else (*by_certificate, "private_key_password")
        )
        for field in needed:
            if getattr(self, field) is None:
                raise ValueError(f"{field}: eap {self.eap} needs it")
        for field in of_no_use:
            if getattr(self, field) is not None:
                raise ValueError(f"{field}: eap {self.eap} has none")
        if self.eap == "peap" and self.phase2 in {"mschap", "chap", "pap"}:
            raise ValueError(f"phase2: peap has mschapv2, gtc and md5, and no {self.phase2}")
        return self


class Wifi(NetworkPart):
    """A wireless network, that of an access point or one of the device's own.

    NetworkManager uses another's when it is in range, and one without *psk* is an open network. With the mode
    ``ap`` the device is the access point: for whom it is also the way to elsewhere, says ``ipv4``.
    """

    secret_fields: ClassVar[frozenset[str]] = frozenset({"psk"})

    type: Literal["wifi"] = "wifi"
    """Which kind of link it is."""
    ssid: Annotated[str, Field(min_length=1, max_length=32)]
    """The network's name."""
    mode: Literal["infrastructure", "ap"] = "infrastructure"
    """``infrastructure`` joins a network, ``ap`` makes one."""
    psk: Secret | None = None
    """The password: ``${secret.NAME}``, or a secret that is on the device; none for an open network."""
    security: Literal["wpa-psk", "sae", "wpa-eap", "none"] = "wpa-psk"
    """``wpa-psk`` is WPA2, or WPA3 beside it; ``sae`` is WPA3 alone; ``wpa-eap`` is by a login of one's own;
    ``none`` says that anybody may join."""
    enterprise: Enterprise | None = None
    """The login of one's own, with ``wpa-eap``."""
    hidden: bool = False
    """Whether the network does not tell its name."""
    band: Literal["2.4GHz", "5GHz"] | None = None
    """The band; none leaves it to NetworkManager."""
    channel: int | None = None
    """The channel in the band, as in 6 or 36; none leaves it to NetworkManager."""
    interface: InterfaceName | None = None
    """None is any that can; an access point needs it, or the MAC address."""
    mac: MacAddress | None = None
    """The interface with this MAC address, which it was made with, whatever its name."""
    powersave: bool | None = None
    """Whether the radio sleeps in between, which costs it answers; none leaves it to NetworkManager."""

    @model_validator(mode="after")
    def _fits_into_a_beacon(self) -> Self:
        if len(self.ssid.encode(errors="replace")) > 32:
            raise ValueError("ssid: is longer than 32 bytes")
        _refuse_both(self.interface, self.mac)
        return self

    @model_validator(mode="after")
    def _is_secured_as_it_says(self) -> Self:
        if self.security in {"none", "wpa-eap"} and self.psk is not None:
            raise ValueError(f'psk: security "{self.security}" has none; leave one of them out')
        if self.security == "wpa-eap" and self.enterprise is None:
            raise ValueError('enterprise: security "wpa-eap" needs it, with eap and identity')
        if self.security != "wpa-eap" and self.enterprise is not None:
            raise ValueError('enterprise: is of no use without security: "wpa-eap"')
        return self

    @model_validator(mode="after")
    def _has_its_channel(self) -> Self:
        if self.channel is None:
            return self
        if self.band is None:
            raise ValueError("channel: needs its band beside it, 2.4GHz or 5GHz")
        if self.channel not in CHANNELS[self.band]:
            known = ", ".join(map(str, CHANNELS[self.band]))
            raise ValueError(f"channel: {self.band} has {known}, and no {self.channel}")
        return self

    @model_validator(mode="after")
    def _can_be_an_access_point(self) -> Self:
        if self.mode != "ap":
            return self
        if self.interface is None and self.mac is None:
            raise ValueError("interface: an access point needs it, as in wlan0; or mac")
        if self.security == "wpa-eap":
            raise ValueError('security: an access point is "wpa-psk", "sae" or "none"')
        if self.security != "none" and self.psk is None:
            raise ValueError(
                'psk: an access point needs a password; for one that anybody may join, say security "none"'
            )
        return self

    @property
    def may_be_out_of_range(self) -> bool:
        """Whether it can be used in some places alone."""
        return self.mode == "infrastructure"


def refuse_scope(text: str) -> str:
    """Return *text*, an address. Raise ValueError where it names its interface, as in ``fe80::1%eth0``."""
    if "%" in text:
        raise ValueError(f"{text!r} names an interface behind %; write the address alone")
    return text


def _refuse_both(interface: str | None, mac: str | None) -> None:
    if interface is not None and mac is not None:
        raise ValueError("mac: names an interface, as interface does; leave one of them out")
