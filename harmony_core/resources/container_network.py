"""A network between containers, kept by podman; and how a container is attached to one."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from itertools import combinations
from typing import Annotated, ClassVar, Self

import attrs
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from ._base import Privilege, Resource, State, in_words
from .volume import ObjectLabels

__all__ = [
    "CONTAINERS_INTERFACES",
    "ContainerNetwork",
    "ContainerNetworkName",
    "ContainerNetworkPresent",
    "NetworkAttachment",
    "Subnet",
]

CONTAINERS_INTERFACES = ("podman", "veth", "cni-", "docker")
"""What the names of interfaces begin with that lead to containers."""

ContainerNetworkName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$"),
    in_words("write a name of letters, digits and _.-, as in web-net"),
]
_LABEL = r"[a-zA-Z0-9_](?:[a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?"
HostAlias = Annotated[
    str,
    StringConstraints(pattern=rf"^{_LABEL}(?:\.{_LABEL})*$", max_length=253),
    in_words(
        "write a name that others can look up, of letters, digits and _.-, as in db, with no more than 63 "
        "characters between dots"
    ),
]

_RESERVED = frozenset(
    {"podman", "host", "none", "bridge", "private", "default", "container", "ns", "pasta"}
    | {"slirp4netns"}
)
"""podman's own network, and the words that its option --network understands."""


def _not_reserved(name: str) -> str:
    if name in _RESERVED:
        raise ValueError(f"{name} has a meaning of its own for podman; choose another name")
    return name


def _plain_subnet(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError:
        raise ValueError(
            "write a network's address and its length, as in 10.90.0.0/24 or fd00:1::/64"
        ) from None


def _plain_address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise ValueError("write an address, as in 10.90.0.5") from None


Subnet = Annotated[str, AfterValidator(_plain_subnet)]
"""A network's address and length: ``10.90.0.0/24``."""


class NetworkAttachment(BaseModel):
    """A network that a container is on."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    network: ContainerNetworkName
    """The network's name. It has to be there: a ContainerNetworkScore before this one makes it, or
    anybody."""
    aliases: tuple[HostAlias, ...] = ()
    """Names by which others on this network find it, beside its own."""
    address: Annotated[str, AfterValidator(_plain_address)] | None = None
    """Its address on this network; podman chooses one unless it is set."""


class ContainerNetwork(Resource):
    """There is a network of this name, on which containers find each other by name and aliases.

    One that is to be otherwise is made anew, and so are the containers on it.
    """

    resource_type: ClassVar[str] = "container-network"

    name: Annotated[ContainerNetworkName, AfterValidator(_not_reserved)]
    """Its name, which podman shows."""
    subnets: tuple[Subnet, ...] = ()
    """Its subnets; podman chooses one that is free unless there are any."""
    internal: bool = False
    """Whether nothing leads out of it, so that containers on it reach each other alone."""
    ipv6: bool = False
    """Whether it has IPv6, too, as it has with a subnet of IPv6."""
    labels: ObjectLabels = Field(default_factory=dict)
    """Labels that it is made with."""

    @property
    def key(self) -> str:
        return self.name

    @property
    def has_ipv6(self) -> bool:
        return self.ipv6 or any(":" in each for each in self.subnets)

    @classmethod
    def paths_of(cls, key: str) -> tuple[str, ...]:  # noqa: ARG003 - none that a Score could name
        return ()

    @classmethod
    def units_of(cls, key: str) -> tuple[str, ...]:  # noqa: ARG003 - it has none
        return ()

    @property
    def privileges(self) -> frozenset[Privilege]:
        return frozenset()

    @classmethod
    def survives_reboot(cls, key: str) -> bool:  # noqa: ARG003 - all do
        return True

    @model_validator(mode="after")
    def _subnets_are_distinct(self) -> Self:
        for one, other in combinations([ip_network(each) for each in self.subnets], 2):
            if overlap(one, other):
                raise ValueError(f"subnets: {one} and {other} overlap; leave out one of them")
        return self


def overlap(one: IPv4Network | IPv6Network, other: IPv4Network | IPv6Network) -> bool:
    """Return whether the two subnets have an address in common."""
    if isinstance(one, IPv4Network) and isinstance(other, IPv4Network):
        return one.overlaps(other)
    if isinstance(one, IPv6Network) and isinstance(other, IPv6Network):
        return one.overlaps(other)
    return False


@attrs.frozen(kw_only=True)
class ContainerNetworkPresent(State):
    """It is there, as podman says."""

    subnets: tuple[str, ...]
    internal: bool

    @property
    def is_ready(self) -> bool:
        return True
