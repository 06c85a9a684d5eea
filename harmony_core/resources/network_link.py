"""What a network profile is for: a cable, a radio, or an interface that is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Final, Literal, Self, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from ._base import in_words
from .file import SecretRef

__all__ = [
    "Bridge",
    "Ethernet",
    "InterfaceName",
    "Link",
    "MacAddress",
    "Vlan",
    "Wifi",
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

Mtu = Annotated[int, Field(ge=576, le=65_535)]

_CHANNELS: Final[Mapping[str, Sequence[int]]] = MappingProxyType(
    {
        "2.4GHz": range(1, 15),
        "5GHz": (*range(36, 65, 4), *range(100, 141, 4), *range(149, 166, 4)),
    }
)
"""By band, as NetworkManager knows them."""


class _Link(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Ethernet(_Link):
    """A wired interface; with a *bridge*, a port of it, which has no addresses of its own."""

    type: Literal["ethernet"] = "ethernet"
    """Which kind of link it is."""
    interface: InterfaceName | None = None
    """The interface; needed, unless its MAC address is given."""
    mac: MacAddress | None = None
    """The interface with this MAC address, which it was made with, whatever its name."""
    bridge: InterfaceName | None = None
    """The bridge of which it is a port; none for no bridge."""
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


class Vlan(_Link):
    """A virtual network of a wired one. Its interface is made, and goes with the profile."""

    type: Literal["vlan"] = "vlan"
    """Which kind of link it is."""
    interface: InterfaceName
    """The interface that is made."""
    parent: InterfaceName
    """The interface it stands on."""
    id: Annotated[int, Field(ge=1, le=4094)]
    """The number of the VLAN."""


class Bridge(_Link):
    """A switch in software. Its interface is made, and goes with the profile."""

    type: Literal["bridge"] = "bridge"
    """Which kind of link it is."""
    interface: InterfaceName
    """The interface that is made."""
    stp: bool = True
    """The spanning tree protocol, which keeps loops from forming; ports then take half a minute to open."""


class Wifi(_Link):
    """A wireless network, that of an access point or one of the device's own.

    NetworkManager uses another's when it is in range, and one without *psk* is an open network. With the mode
    ``ap`` the device is the access point: for whom it is also the way to elsewhere, says ``ipv4``.
    """

    type: Literal["wifi"] = "wifi"
    """Which kind of link it is."""
    ssid: Annotated[str, Field(min_length=1, max_length=32)]
    """The network's name."""
    mode: Literal["infrastructure", "ap"] = "infrastructure"
    """``infrastructure`` joins a network, ``ap`` makes one."""
    psk: SecretRef | None = None
    """The password, as a secret of the device; none for an open network."""
    security: Literal["wpa-psk", "sae", "none"] = "wpa-psk"
    """``wpa-psk`` is WPA2, or WPA3 beside it; ``sae`` is WPA3 alone; ``none`` says that anybody may join."""
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
        if self.security == "none" and self.psk is not None:
            raise ValueError('psk: security "none" has none; leave one of them out')
        return self

    @model_validator(mode="after")
    def _has_its_channel(self) -> Self:
        if self.channel is None:
            return self
        if self.band is None:
            raise ValueError("channel: needs its band beside it, 2.4GHz or 5GHz")
        if self.channel not in _CHANNELS[self.band]:
            known = ", ".join(map(str, _CHANNELS[self.band]))
            raise ValueError(f"channel: {self.band} has {known}, and no {self.channel}")
        return self

    @model_validator(mode="after")
    def _can_be_an_access_point(self) -> Self:
        if self.mode != "ap":
            return self
        if self.interface is None and self.mac is None:
            raise ValueError("interface: an access point needs it, as in wlan0; or mac")
        if self.security != "none" and self.psk is None:
            raise ValueError(
                'psk: an access point needs a password; for one that anybody may join, say security "none"'
            )
        return self

    @property
    def may_be_out_of_range(self) -> bool:
        """Whether it can be used in some places alone."""
        return self.mode == "infrastructure"


Link: TypeAlias = Annotated[Ethernet | Vlan | Bridge | Wifi, Field(discriminator="type")]


def _refuse_both(interface: str | None, mac: str | None) -> None:
    if interface is not None and mac is not None:
        raise ValueError("mac: names an interface, as interface does; leave one of them out")
