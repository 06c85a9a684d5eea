"""A firewall: what may come in from outside, to the device and to its containers. There is one, or none."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated, ClassVar, Literal, Self, TypeAlias

import attrs
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from ._base import ConfirmWithin, Privilege, Resource, State, in_words

__all__ = ["FIREWALL_UNIT", "Filtering", "Firewall", "FirewallName", "FirewallRule"]

FirewallName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"),
    in_words("use letters, digits, and inner dots, hyphens and underscores, as in base"),
]
Transport: TypeAlias = Literal["tcp", "udp"]

FIREWALL_UNIT = "harmony-firewall.service"
"""Which loads it at boot."""
_RULES_MOST = 200
"""Of one firewall, so that they fit into the file of a unit."""


def _in_network(text: str) -> str:
    try:
        network = ip_network(text)
    except ValueError:
        network = None
    if network is None or "%" in text:  # whatever may stand behind that would be read by nft
        raise ValueError(
            "write an address, or a network with its prefix, the rest of which is 0, as in 192.168.0.0/16 or "
            "2001:db8::/32"
        )
    return str(network)


def _in_order(ports: int | str) -> int | str:
    """Return a port, or the first and the last of several, as in 6000-6010."""
    numbers = [ports] if isinstance(ports, int) else [int(each) for each in ports.split("-")]
    if any(not 1 <= each <= 65_535 for each in numbers) or numbers != sorted(numbers):
        raise ValueError("ports are 1 to 65535, and the first is not above the last")
    return f"{numbers[0]}-{numbers[-1]}" if numbers[0] != numbers[-1] else numbers[0]


Ports = Annotated[
    Annotated[int, Field(strict=True)]
    | Annotated[str, StringConstraints(pattern=r"^[0-9]{1,5}(-[0-9]{1,5})?$")],
    in_words("write a port, as in 80, or the first and the last, as in 6000-6010"),
    AfterValidator(_in_order),
]
SourceNetwork = Annotated[str, AfterValidator(_in_network)]
"""An address, or a network with the length of its prefix: ``192.168.0.0/16``."""
InterfaceNames = Annotated[
    str,
    StringConstraints(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$|^[A-Za-z0-9][A-Za-z0-9_.-]{0,13}\*$"
    ),
    in_words("write an interface's name, as in wlan0, or how names begin, as in wg*"),
]


class FirewallRule(BaseModel):
    """What may come in: all of what it says has to fit."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_by_name=True, serialize_by_alias=True
    )

    port: Ports | None = None
    """The port of the device, or several, as in 6000-6010; none for any, of all protocols."""
    protocol: Transport | None = None
    """tcp or udp; tcp where there is a port."""
    sources: tuple[SourceNetwork, ...] = Field(
        default=(), validation_alias="from", serialization_alias="from"
    )
    """Addresses or networks that it comes from; none for any."""
    interface: InterfaceNames | None = None
    """The interface that it comes in by, or how the names of several begin, as in wg*; none for any."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.port is None and self.protocol is not None:
            raise ValueError(
                f"port: write which one of {self.protocol}, or 1-65535 for all of them"
            )
        if self.port is None and not self.sources and self.interface is None:
            raise ValueError("write a port, from where, or an interface; else all may come in")
        return self

    @property
    def transport(self) -> Transport | None:
        """The protocol of its port; None where it has none."""
        return None if self.port is None else self.protocol or "tcp"


class Firewall(Resource):
    """Of what comes from outside, to the device or to its containers, only this comes in.

    What belongs to a connection that is there, what the device asks itself, what comes from its containers,
    and what IP needs to work (ICMP, neighbour discovery, IGMP, answers of DHCP) always does. A change stays
    only when the control plane is reached by a new connection made after it, within *confirm_within_s*; else
    it is taken back, by systemd itself, and fails.
    """

    resource_type: ClassVar[str] = "firewall"

    name: FirewallName
    """What it is called."""
    input: Literal["drop", "reject"] = "drop"
    """What becomes of all else: it is dropped without a word, or refused with one."""
    allow: tuple[FirewallRule, ...] = ()
    """What may come in."""
    confirm_within_s: ConfirmWithin = 60
    """How long a change may take to prove that the device is still reached, in seconds."""

    @property
    def key(self) -> str:
        """A device has one: what one lets in, another one would drop. So one by another name is a change."""
        return "device"

    @property
    def exclusive(self) -> frozenset[str]:
        return frozenset({f"unit:{FIREWALL_UNIT}", f"path:/etc/systemd/system/{FIREWALL_UNIT}"})

    @classmethod
    def paths_of(cls, key: str) -> tuple[str, ...]:  # noqa: ARG003 - it has none
        return ()

    @classmethod
    def units_of(cls, key: str) -> tuple[str, ...]:  # noqa: ARG003 - but its own, which is no Score's
        return ()

    @property
    def privileges(self) -> frozenset[Privilege]:
        return frozenset()

    @classmethod
    def survives_reboot(cls, key: str) -> bool:  # noqa: ARG003 - there is one
        return True

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if sum(max(1, len(rule.sources)) for rule in self.allow) > _RULES_MOST:
            raise ValueError(
                f"allow: with all their networks these are more than {_RULES_MOST} rules; name wider networks"
            )
        return self


@attrs.frozen(kw_only=True)
class Filtering(State):
    """The kernel filters. ``rules`` is how many it has, and ``sha256`` is of them as it lists them."""

    rules: int
    sha256: str

    @property
    def is_ready(self) -> bool:
        return True
