"""NetworkConfigScore: one network profile."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from harmony_core import HasNetwork, Inventory, NetworkProfile, Outcome, Score, outcome_of
from harmony_core.resources import ConfirmWithin, Ipv4, Ipv6, Link, ProfileName

from ._whole import refused_as_fields

__all__ = ["NetworkConfigScore"]


class NetworkConfigScore(Score[HasNetwork]):
    """The network profile of this name has these settings, and is in use.

    A change that might cut the device off is tried first: it stays when the control plane is reached by a new
    connection, and is taken back by the device itself when it is not. What the profile has beside these
    settings stays as it is.
    """

    name: ProfileName = Field(description="The profile's name, such as office.")
    link: Link = Field(
        description="What it is for: an Ethernet interface, a VLAN, a bridge, a bond, WireGuard, or a Wi-Fi "
        "network, that of others or an access point."
    )
    ipv4: Ipv4 | None = Field(
        default=None, description="Addresses, routes and name servers of IPv4; by DHCP unless set."
    )
    ipv6: Ipv6 | None = Field(
        default=None,
        description="Addresses, routes and name servers of IPv6; as the router says unless set.",
    )
    autoconnect: bool = Field(
        default=True,
        description="Whether it is used by itself, at boot or with a cable put in, once it is proven.",
    )
    priority: Annotated[int, Field(ge=-999, le=999)] = Field(
        default=0, description="Of several that fit one interface, the greatest is used."
    )
    state: Literal["up", "kept"] | None = Field(
        default=None,
        description="Whether it must be in use now (up), or only be there (kept), as a Wi-Fi network of "
        "others always is. Only kept, it takes no other's place by itself until the device was once reached "
        "by it.",
    )
    take_over: bool = Field(
        default=False,
        description="Whether a profile of this name that was there before is changed, "
        "and put back when this Score goes.",
    )
    confirm_within_s: ConfirmWithin = Field(
        default=60,
        description="How long a change may take to prove that the device is still reached, in seconds.",
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        with refused_as_fields():
            self._profile()
        return self

    async def interpret(self, inventory: Inventory, topology: HasNetwork) -> Outcome:  # noqa: ARG002
        return outcome_of(await topology.network.ensure(self._profile()))

    def _profile(self) -> NetworkProfile:
        return NetworkProfile(**{name: getattr(self, name) for name in type(self).model_fields})
