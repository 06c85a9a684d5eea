"""What a network profile is for: a cable, a radio, or an interface that is made."""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeAlias

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
    """A wireless network. NetworkManager uses it when it is in range; without *psk* it is an open one."""

    type: Literal["wifi"] = "wifi"
    """Which kind of link it is."""
    ssid: Annotated[str, Field(min_length=1, max_length=32)]
    """The network's name."""
    psk: SecretRef | None = None
    """The password, as a secret of the device; none for an open network."""
    security: Literal["wpa-psk", "sae"] = "wpa-psk"
    """``wpa-psk`` is WPA2, or WPA3 beside it; ``sae`` is WPA3 alone."""
    hidden: bool = False
    """Whether the network does not tell its name."""
    interface: InterfaceName | None = None
    """None is any that can."""
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


Link: TypeAlias = Annotated[Ethernet | Vlan | Bridge | Wifi, Field(discriminator="type")]


def _refuse_both(interface: str | None, mac: str | None) -> None:
    if interface is not None and mac is not None:
        raise ValueError("mac: names an interface, as interface does; leave one of them out")
