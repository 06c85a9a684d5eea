"""A network profile: one way of using one interface, with its addresses, as NetworkManager keeps them."""

from __future__ import annotations

from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from typing import Annotated, ClassVar, Literal, Self, TypeAlias

import attrs
from pydantic import (
    AfterValidator,
    Field,
    StringConstraints,
    model_validator,
)

from harmony_core.secret_values import find_words_within

from ._base import ConfirmWithin, Privilege, Resource, State
from .network_link import (
    Bond,
    Bridge,
    DomainName,
    Enterprise,
    Ethernet,
    NetworkPart,
    Vlan,
    Wifi,
    refuse_scope,
)
from .wireguard import Wireguard

__all__ = [
    "Connected",
    "Connecting",
    "Disconnected",
    "Ipv4",
    "Ipv4Route",
    "Ipv6",
    "Ipv6Route",
    "Link",
    "NetworkProfile",
    "NetworkState",
    "ProfileName",
]

ProfileName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9 ._-]{0,62}[A-Za-z0-9])?$")
]
"""What NetworkManager calls a connection's id: ``office``, ``Wired connection 1``."""

Metric = Annotated[int, Field(ge=0, le=4_294_967_295)]


def _ipv4_address(text: str) -> str:
    return str(IPv4Address(text))


def _ipv4_interface(text: str) -> str:
    return _with_prefix(text, IPv4Interface(text))


def _ipv4_network(text: str) -> str:
    return _with_prefix(text, IPv4Network(text))


def _ipv6_address(text: str) -> str:
    return str(IPv6Address(refuse_scope(text)))


def _ipv6_interface(text: str) -> str:
    return _with_prefix(text, IPv6Interface(refuse_scope(text)))


def _ipv6_network(text: str) -> str:
    return _with_prefix(text, IPv6Network(refuse_scope(text)))


def _with_prefix(text: str, value: object) -> str:
    if "/" not in text:
        raise ValueError(f"{text} has no prefix length; add one, as in {text}/24")
    return str(value)


Ipv4Address = Annotated[str, AfterValidator(_ipv4_address)]
Ipv4Interface = Annotated[str, AfterValidator(_ipv4_interface)]
"""An address with the length of its prefix: ``192.168.7.20/24``."""
Ipv4Network = Annotated[str, AfterValidator(_ipv4_network)]
Ipv6Address = Annotated[str, AfterValidator(_ipv6_address)]
Ipv6Interface = Annotated[str, AfterValidator(_ipv6_interface)]
Ipv6Network = Annotated[str, AfterValidator(_ipv6_network)]


class Ipv4Route(NetworkPart):
    """Where packets for *to* go: by way of *via*, or straight out of the interface."""

    to: Ipv4Network
    """The network it leads to."""
    via: Ipv4Address | None = None
    """The next host; none for straight out of the interface."""
    metric: Metric | None = None
    """Of several ways the one with the lowest is taken; none leaves it to NetworkManager."""


class Ipv6Route(NetworkPart):
    """Where packets for *to* go: by way of *via*, or straight out of the interface."""

    to: Ipv6Network
    """The network it leads to."""
    via: Ipv6Address | None = None
    """The next host; none for straight out of the interface."""
    metric: Metric | None = None
    """Of several ways the one with the lowest is taken; none leaves it to NetworkManager."""


class _Ip(NetworkPart):
    """What is None is left as it is in the profile."""

    method: Literal["auto", "manual", "link-local", "shared", "disabled"] = "auto"
    """How addresses are found; ``shared`` gives others theirs, and is their way to everywhere else."""
    dns_search: tuple[DomainName, ...] | None = None
    """Domains in which short names are looked up."""
    metric: Metric | None = None
    """Of its routes: the least wins where several interfaces lead somewhere."""
    default_route: bool | None = None
    """False never makes it the way to everywhere else."""
    ignore_auto_dns: bool | None = None
    """Whether the name servers that DHCP, or the router, tells are left out."""

    def _check(
        self,
        addresses: tuple[str, ...] | None,
        gateway: str | None,
        dns: tuple[str, ...] | None,
    ) -> None:
        if self.method == "shared":
            self._check_shared(addresses, gateway, dns)
        if self.method == "manual" and not addresses:
            raise ValueError('addresses: method "manual" needs at least one')
        if addresses and self.method in {"disabled", "link-local"}:
            raise ValueError(f'addresses: method "{self.method}" takes none')
        if gateway is not None and not addresses:
            raise ValueError("gateway: needs an address of our own beside it, in addresses")
        if gateway is not None and self.default_route is False:
            raise ValueError("gateway: is of no use while default_route is false")

    def _check_shared(
        self,
        addresses: tuple[str, ...] | None,
        gateway: str | None,
        dns: tuple[str, ...] | None,
    ) -> None:
        if addresses is not None and len(addresses) > 1:
            raise ValueError(
                'addresses: method "shared" takes one, which others have as their gateway'
            )
        if gateway is not None:
            raise ValueError(
                'gateway: method "shared" takes none: the device is that of the others'
            )
        if dns or self.dns_search:
            field = "dns" if dns else "dns_search"
            raise ValueError(f'{field}: method "shared" takes none; give them to the way out')


class Ipv4(_Ip):
    """IPv4 of one profile. Lists replace the profile's; what is None is left as it is."""

    addresses: tuple[Ipv4Interface, ...] | None = None
    """Addresses with the length of their prefix, as in 192.168.7.20/24."""
    gateway: Ipv4Address | None = None
    """Where everything else is sent."""
    routes: tuple[Ipv4Route, ...] | None = None
    """Further ways."""
    dns: tuple[Ipv4Address, ...] | None = None
    """Name servers."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        self._check(self.addresses, self.gateway, self.dns)
        return self


class Ipv6(_Ip):
    """IPv6 of one profile. Lists replace the profile's; what is None is left as it is."""

    addresses: tuple[Ipv6Interface, ...] | None = None
    """Addresses with the length of their prefix, as in fd00::20/64."""
    gateway: Ipv6Address | None = None
    """Where everything else is sent."""
    routes: tuple[Ipv6Route, ...] | None = None
    """Further ways."""
    dns: tuple[Ipv6Address, ...] | None = None
    """Name servers."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        self._check(self.addresses, self.gateway, self.dns)
        return self


Link: TypeAlias = Annotated[
    Ethernet | Vlan | Bridge | Bond | Wifi | Wireguard, Field(discriminator="type")
]


class NetworkProfile(Resource):
    """The profile *name* has these settings, and is in use or only kept.

    What of it is not said here is left as it is, or as NetworkManager has it by default. A change that
    might cut the device off stays only when the control plane is reached by a new connection made after
    it, within *confirm_within_s*; else it is taken back, by NetworkManager itself, and fails. What was not
    yet proven so takes no other's place by itself: *autoconnect* is off until it is, and a Wi-Fi network's
    *priority* the least.
    """

    resource_type: ClassVar[str] = "network"
    secret_fields: ClassVar[frozenset[str]] = frozenset({"link"})

    name: ProfileName
    """What NetworkManager calls it."""
    link: Link
    """The interface, and how it is connected."""
    ipv4: Ipv4 | None = None
    """Its IPv4 addresses; none leaves them as they are."""
    ipv6: Ipv6 | None = None
    """Its IPv6 addresses; none leaves them as they are."""
    autoconnect: bool = True
    """Whether NetworkManager uses it by itself, at boot or when a cable is plugged in, once it is proven."""
    priority: Annotated[int, Field(ge=-999, le=999)] = 0
    """Of several proven profiles that fit one interface, the greatest is used."""
    state: Literal["up", "kept"] | None = None
    """Whether it must be in use now; None: ``up``, but ``kept`` for the Wi-Fi of others, which may be out of
    range."""
    take_over: bool = False
    """Whether a profile of this name that somebody else made is changed, and put back in the end."""
    confirm_within_s: ConfirmWithin = 60
    """How long a change may take to prove that the device is still reached, in seconds."""

    @property
    def key(self) -> str:
        return self.name

    def find_secret_words(self) -> frozenset[str]:
        return find_words_within(self.link)

    @classmethod
    def paths_of(cls, key: str) -> tuple[str, ...]:  # noqa: ARG003 - it has none
        return ()

    @classmethod
    def units_of(cls, key: str) -> tuple[str, ...]:  # noqa: ARG003 - it has none
        return ()

    @property
    def privileges(self) -> frozenset[Privilege]:
        return frozenset()

    @property
    def interface(self) -> str | None:
        """Which interface it is for, by its name or its MAC address; None for any that can."""
        match self.link:
            case Ethernet(mac=mac, interface=name) | Wifi(mac=mac, interface=name):
                return name or mac
            case _:
                return self.link.interface

    @property
    def is_to_be_up(self) -> bool:
        return (self.state or ("kept" if self.may_be_out_of_range else "up")) == "up"

    @property
    def may_be_out_of_range(self) -> bool:
        """Whether it can be used in some places alone."""
        return isinstance(self.link, Wifi) and self.link.may_be_out_of_range

    @property
    def login(self) -> Enterprise | None:
        """The login of its own that the device has at this network."""
        return self.link.enterprise if isinstance(self.link, Wifi) else None

    @property
    def read_files(self) -> tuple[str, ...]:
        """The files of the device that are read when it is used."""
        return self.login.files if self.login is not None else ()

    @property
    def shares(self) -> bool:
        """Whether others get their addresses from it."""
        return "shared" in {ip.method for ip in (self.ipv4, self.ipv6) if ip is not None}

    @model_validator(mode="after")
    def _can_be(self) -> Self:
        match self.link:
            case Wifi(may_be_out_of_range=True) if self.state == "up":
                raise ValueError(
                    "state: a Wi-Fi network may be out of range, so its profile is only kept; leave it out"
                )
            case Ethernet(controller=str() as controller) if self.ipv4 or self.ipv6:
                raise ValueError(
                    f"ipv4, ipv6: a port of {controller} has none; give them to {controller}"
                )
            case Wireguard():
                return self._asks_nobody()
            case _:
                return self

    def _asks_nobody(self) -> Self:
        for family, ip, others in (
            ("ipv4", self.ipv4, frozenset[str]()),
            ("ipv6", self.ipv6, frozenset({"link-local"})),
        ):
            if ip is not None and ip.method not in {"manual", "disabled"} | others:
                raise ValueError(
                    f'{family}: method: WireGuard gives no addresses; say "manual", with addresses'
                )
        return self


@attrs.frozen(kw_only=True)
class Connected(State):
    """In use on *interface*.

    ``addresses`` are all of IPv4, and of IPv6 those in the profile: others come and go by themselves. The
    ``public_key`` is that of a WireGuard link, for the other ends.
    """

    interface: str
    addresses: tuple[str, ...]
    gateway: str | None
    public_key: str | None = None

    @property
    def is_ready(self) -> bool:
        return True


@attrs.frozen(kw_only=True)
class Connecting(State):
    """On its way to be in use, or out of it."""

    interface: str
    public_key: str | None = None


@attrs.frozen(kw_only=True)
class Disconnected(State):
    """Kept, and not in use; ``reason`` says why, where that is known."""

    reason: str
    public_key: str | None = None


NetworkState = Connected | Connecting | Disconnected
