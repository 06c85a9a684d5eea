"""What is found of a network profile at one moment, and what is remembered of it in between.

Shared by every reconciler of profiles, so that all of them remember, and judge, alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self, TypeAlias, cast

import attrs

from harmony_core.reconciler import JsonRecord
from harmony_core.resources import Connected, Connecting, Disconnected, NetworkState

from .settings import PRIVATE_KEY, Setting, Settings, read_settings
from .wireguard import find_public_key

__all__ = [
    "TAKING_AWAY",
    "FoundInterface",
    "FoundNetwork",
    "FoundProfile",
    "NetworkRecord",
    "Trial",
    "Use",
]

Use: TypeAlias = Literal["up", "coming", "going", "down"]

TAKING_AWAY = "removal"
"""Stands for the specification of a profile that is to go."""


@attrs.frozen(kw_only=True)
class FoundInterface:
    """The interface that a profile names; one of no name is always ready."""

    name: str = ""
    """As the kernel has it; of one that is not there, what the profile says."""
    readiness: Literal["ready", "no carrier", "unmanaged", "absent"] = "ready"
    uses: str = ""
    """The name of the profile that is in use there."""


@attrs.frozen(kw_only=True)
class FoundProfile:
    """A profile, and how it is used."""

    uuid: str
    settings: Settings
    """Those of `DEFAULTS` that it says."""
    secrets: Mapping[str, str] = attrs.field(factory=dict[str, str], repr=False)
    """Those of `SECRETS` that it has."""
    label: str = ""
    """The id of the resource that it was made for; empty for a stranger's."""
    saved: bool = True
    """Whether it outlives a reboot as it is."""
    use: Use = "down"
    interface: str = ""
    """The one that it is in use on."""
    applied: Settings = attrs.field(factory=dict[str, Setting])
    """What that interface has taken on of it."""
    addresses: tuple[str, ...] = ()
    """What that interface has, of both families."""
    gateway: str | None = None
    reason: str = ""
    """Why it is not in use, where that is known."""

    @property
    def state(self) -> NetworkState:
        match self.use:
            case "up":
                own = self.own_addresses
                told = (each for each in self.addresses if ":" not in each or each in own)
                return Connected(
                    interface=self.interface,
                    addresses=tuple(told),
                    gateway=self.gateway,
                    public_key=self.public_key,
                )
            case "down":
                return Disconnected(reason=self.reason, public_key=self.public_key)
            case _:
                return Connecting(interface=self.interface, public_key=self.public_key)

    @property
    def public_key(self) -> str | None:
        """The public key that belongs to the private key of a WireGuard link."""
        private_key = self.secrets.get(PRIVATE_KEY)
        return find_public_key(private_key) if private_key is not None else None

    @property
    def own_addresses(self) -> frozenset[str]:
        """The addresses that the profile itself states."""
        found = [self.settings.get(f"{family}.addresses", ()) for family in ("ipv4", "ipv6")]
        return frozenset(each for some in found if isinstance(some, tuple) for each in some)

    @property
    def missing_addresses(self) -> frozenset[str]:
        """The own addresses of the profile that its interface does not have, or not yet."""
        return self.own_addresses - frozenset(self.addresses)


@attrs.frozen(kw_only=True)
class FoundNetwork:
    """One look: the profile under one UUID, others of the same name, and the interface."""

    profile: FoundProfile | None
    namesakes: tuple[str, ...] = ()
    """The UUIDs of other profiles of this name."""
    interface: FoundInterface = FoundInterface()
    settling: bool = False
    """The daemon has just been started, and still brings up what it does by itself."""


@attrs.frozen(kw_only=True)
class Trial:
    """A change that waits to be confirmed."""

    checkpoint: str = ""
    spec: str = ""
    """What of: the hash of the wish, its secrets included by their marks, or `TAKING_AWAY`."""
    fresh: bool = False
    """The profile was made for it."""
    saved: bool = True
    """What was there before was on disk."""
    was_up: bool = False
    """It was in use."""


@attrs.frozen(kw_only=True)
class NetworkRecord:
    """What must be remembered of a profile, whatever becomes of the agent. No secrets."""

    uuid: str
    made: bool
    """By us; else it was taken over."""
    was_up: bool = False
    """Whether one that was taken over was in use."""
    wrote: Settings = attrs.field(factory=dict[str, Setting])
    """The settings that we gave it."""
    confirmed: str = ""
    """The specification under which the control plane was last reached anew."""
    refused: str = ""
    """What was taken back, as `Trial.spec`."""
    refusal: str = ""
    """What was told of that."""
    trial: Trial | None = None
    within_s: int = 60
    """How long a change may wait to be confirmed."""
    left: bool = False
    """It was removed, and stays because it had been there before."""

    @classmethod
    def read(cls, record: JsonRecord) -> Self:
        """Return the record from its form in `written`. Ignore fields that a newer agent wrote."""
        fields: dict[str, Any] = _select_known(cls, record)
        fields["wrote"] = read_settings(record.get("wrote", {}))
        trial = record.get("trial")
        fields["trial"] = Trial(**_select_known(Trial, trial)) if trial is not None else None
        return cls(**fields)

    @property
    def written(self) -> JsonRecord:
        return cast("JsonRecord", attrs.asdict(self))

    @property
    def over(self) -> Self:
        """The same record without its trial, which has ended."""
        return attrs.evolve(self, trial=None)

    def record_rollback(self, spec: str, told: str) -> Self:
        """Return the record after a trial of *spec* that failed."""
        return attrs.evolve(self.over, refused=spec, refusal=told)

    def record_proof(self, spec: str) -> Self:
        """Return the record after a trial of *spec* that succeeded."""
        return attrs.evolve(self.over, confirmed=spec, refused="", refusal="")


def _select_known(cls: type[attrs.AttrsInstance], fields: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in attrs.fields(cls)}
    return {name: value for name, value in fields.items() if name in names}
