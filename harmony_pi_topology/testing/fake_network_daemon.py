"""A daemon that keeps network profiles in a dictionary, and uses them on interfaces that are not there.

    profiles (those on disk outlive a reboot) -> interfaces (what each has taken on)
    a checkpoint puts its interfaces, and what was in use there, back when its time has come

It does what NetworkManager was seen to do: profiles that were not in use are not put back, and new ones stay.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from ipaddress import ip_address, ip_interface
from typing import Any

import attrs

from harmony_core.errors import NetworkFailed
from harmony_core.resources import NetworkProfile, resource_id
from harmony_pi_topology.network.daemon import CheckpointTaken
from harmony_pi_topology.network.link_settings import MADE
from harmony_pi_topology.network.records import FoundInterface, FoundNetwork, FoundProfile
from harmony_pi_topology.network.settings import (
    LIVE,
    Secrets,
    Setting,
    Settings,
    read_settings,
)

__all__ = ["FakeNetworkDaemon"]


@attrs.define(kw_only=True)
class Kept:
    """A profile."""

    uuid: str
    name: str
    settings: dict[str, Setting] = attrs.Factory(dict[str, Setting])
    others: dict[str, str] = attrs.Factory(dict[str, str])
    """Settings that are none of ours."""
    secrets: dict[str, str] = attrs.Factory(dict[str, str])
    label: str = ""

    @property
    def interface(self) -> str:
        return str(self.settings.get("connection.interface-name", ""))

    @property
    def mac(self) -> str:
        return str(self.settings.get(f"{self.type}.mac-address", ""))

    @property
    def type(self) -> str:
        return str(self.settings.get("connection.type", ""))

    @property
    def rank(self) -> tuple[bool, Setting]:
        """By which of several is brought up by itself."""
        auto = bool(self.settings.get("connection.autoconnect", True))
        return auto, self.settings.get("connection.autoconnect-priority", 0)

    def addresses(self) -> tuple[str, ...]:
        found = [self.settings.get(f"{family}.addresses", ()) for family in ("ipv4", "ipv6")]
        return tuple(each for some in found if isinstance(some, tuple) for each in some)


@attrs.define(kw_only=True)
class Interface:
    """One interface, and what it has taken on."""

    name: str
    mac: str = ""
    carrier: bool = True
    made: bool = False
    uses: str = ""
    """The UUID of a profile."""
    activation: int = 0
    up_at_s: float = 0.0
    applied: dict[str, Setting] = attrs.Factory(dict[str, Setting])
    addresses: tuple[str, ...] = ()

    def release(self) -> None:
        self.uses, self.applied, self.addresses = "", {}, ()


@attrs.frozen(kw_only=True)
class _Checkpoint:
    ends_s: float
    profiles: Mapping[str, Kept]
    on_disk: Mapping[str, Kept]
    interfaces: Mapping[str, Interface]


class FakeNetworkDaemon:
    """A `NetworkDaemon`. Its clock stands still but for `pass_time`."""

    def __init__(self, interfaces: Iterable[str], *, changed: Callable[[], None]) -> None:
        self.profiles: dict[str, Kept] = {}
        self.on_disk: dict[str, Kept] = {}
        self.interfaces = {
            name: Interface(name=name, mac=f"02:00:00:00:00:{number:02X}")
            for number, name in enumerate(interfaces)
        }
        self.leases: dict[str, str] = {}
        """What a DHCP server gives on an interface."""
        self.forgets = set[str]()
        """Settings that it takes and does not keep."""
        self.comes_up_after_s = 0.0
        self.now_s = 0.0
        self._changed = changed
        self._checkpoints: dict[str, _Checkpoint] = {}
        self._count = 0

    async def look(self, name: str, uuid: str, interface: str | None) -> FoundNetwork:
        kept = self.profiles.get(uuid)
        namesakes = [each.uuid for each in self.profiles.values() if each.name == name]
        return FoundNetwork(
            profile=self._to_found(kept) if kept is not None else None,
            namesakes=tuple(each for each in namesakes if each != uuid),
            interface=self._readiness(interface),
        )

    async def add(
        self, uuid: str, name: str, settings: Settings, secrets: Secrets, *, keep: bool
    ) -> None:
        label = resource_id(NetworkProfile.resource_type, name)
        self.profiles[uuid] = Kept(uuid=uuid, name=name, label=label)
        await self.change(uuid, settings, secrets, keep=keep)

    async def change(self, uuid: str, settings: Settings, secrets: Secrets, *, keep: bool) -> None:
        kept = self.profiles[uuid]
        kept.settings.update(self._without_forgotten(settings))
        both = {**kept.secrets, **secrets}
        kept.secrets = {name: content for name, content in both.items() if content is not None}
        if keep:
            self.on_disk[uuid] = copy.deepcopy(kept)
        self._changed()

    async def delete(self, uuid: str) -> None:
        self.on_disk.pop(uuid, None)
        if self.profiles.pop(uuid, None) is not None:
            self._take_down(uuid)
            self._autoconnect()
            self._changed()

    async def activate(self, uuid: str, interface: str | None) -> None:
        kept = self.profiles[uuid]
        there = self._interface(kept, interface)
        self._take_down(uuid)
        self._count += 1
        there.uses, there.activation = uuid, self._count
        there.up_at_s = self.now_s + self.comes_up_after_s
        self._take_on(there, kept)

    async def apply(self, uuid: str) -> bool:
        profile_on = self.profile_on(uuid)
        kept = self.profiles[uuid]
        if profile_on is None or not _fits(kept, profile_on):
            return False
        if kept.settings.get("connection.controller", "") != profile_on.applied.get(
            "connection.controller", ""
        ):
            return False
        self._take_on(profile_on, kept)
        return True

    async def deactivate(self, uuid: str) -> None:
        self._take_down(uuid)

    async def snapshot(self, uuid: str) -> bytes:
        return json.dumps(attrs.asdict(self.profiles[uuid])).encode()

    async def restore(self, snapshot: bytes, *, keep: bool) -> None:
        fields: dict[str, Any] = json.loads(snapshot)
        fields["settings"] = self._without_forgotten(read_settings(fields["settings"]))
        kept = Kept(**fields)
        self.profiles[kept.uuid] = kept
        if keep:
            self.on_disk[kept.uuid] = copy.deepcopy(kept)
        self._changed()

    def settings_in(self, snapshot: bytes) -> Settings:
        return read_settings(json.loads(snapshot)["settings"])

    def secrets_in(self, snapshot: bytes) -> Mapping[str, str]:
        secrets: dict[str, str] = json.loads(snapshot)["secrets"]
        return secrets

    async def checkpoint(self, interfaces: Collection[str], *, within_s: int) -> str:
        names = [name for name in interfaces if name in self.interfaces]
        if any(name in other.interfaces for other in self._checkpoints.values() for name in names):
            raise CheckpointTaken
        used = {self.interfaces[name].uses for name in names} - {""}
        self._count += 1
        checkpoint = f"checkpoint {self._count}"
        self._checkpoints[checkpoint] = _Checkpoint(
            ends_s=self.now_s + within_s,
            profiles=copy.deepcopy({uuid: self.profiles[uuid] for uuid in used}),
            on_disk=copy.deepcopy({u: self.on_disk[u] for u in used if u in self.on_disk}),
            interfaces=copy.deepcopy({name: self.interfaces[name] for name in names}),
        )
        return checkpoint

    async def waits(self, checkpoint: str) -> bool:
        return checkpoint in self._checkpoints

    async def commit(self, checkpoint: str) -> bool:
        return self._checkpoints.pop(checkpoint, None) is not None

    async def roll_back(self, checkpoint: str) -> None:
        if checkpoint in self._checkpoints:
            self._put_back(self._checkpoints.pop(checkpoint))

    def pass_time(self, seconds: float) -> None:
        """Let *seconds* go by, and put back whatever was to be confirmed by then."""
        self.now_s += seconds
        for name, checkpoint in list(self._checkpoints.items()):
            if checkpoint.ends_s <= self.now_s:
                self._put_back(self._checkpoints.pop(name))

    def begin_anew(self) -> None:
        """Restart the daemon: it knows no checkpoint, and leaves all as it is."""
        self._checkpoints.clear()

    def reboot(self) -> None:
        """Reboot the device: what was not on disk is gone."""
        self.begin_anew()
        self.profiles = copy.deepcopy(self.on_disk)
        self.interfaces = {
            name: Interface(name=name, mac=each.mac, carrier=each.carrier)
            for name, each in self.interfaces.items()
            if not each.made
        }
        self._autoconnect()

    @property
    def is_on_trial(self) -> bool:
        """Whether something waits to be confirmed."""
        return bool(self._checkpoints)

    def profile_on(self, uuid: str) -> Interface | None:
        """Return the interface that uses this profile."""
        return next((each for each in self.interfaces.values() if each.uses == uuid), None)

    def reaches(self, address: str) -> bool:
        """Return whether there is a way to *address* by any interface."""
        wanted = ip_address(address)
        return any(
            wanted in ip_interface(own).network
            for each in self.interfaces.values()
            if each.uses and self._is_linked(each)
            for own in each.addresses
        )

    def _is_linked(self, interface: Interface) -> bool:
        if not interface.made:
            return interface.carrier
        ports = (
            each
            for each in self.interfaces.values()
            if each.applied.get("connection.controller") == interface.name
        )
        return any(port.carrier for port in ports)

    def _to_found(self, kept: Kept) -> FoundProfile:
        profile_on = self.profile_on(kept.uuid)
        saved = self.on_disk.get(kept.uuid) == kept
        found = FoundProfile(
            uuid=kept.uuid,
            settings=dict(kept.settings),
            secrets=dict(kept.secrets),
            label=kept.label,
            saved=saved,
        )
        if profile_on is None:
            return found
        gateway = profile_on.applied.get("ipv4.gateway", "")
        return attrs.evolve(
            found,
            use="up" if profile_on.up_at_s <= self.now_s else "coming",
            interface=profile_on.name,
            applied=dict(profile_on.applied),
            addresses=profile_on.addresses,
            gateway=str(gateway) or None,
        )

    def _without_forgotten(self, settings: Settings) -> dict[str, Setting]:
        return {name: value for name, value in settings.items() if name not in self.forgets}

    def _readiness(self, interface: str | None) -> FoundInterface:
        if interface is None:
            return FoundInterface()
        there = self._find_interface(interface)
        if there is None:
            return FoundInterface(name=interface, readiness="absent")
        uses = self.profiles[there.uses].name if there.uses else ""
        if there.carrier or there.made:
            return FoundInterface(name=there.name, uses=uses)
        return FoundInterface(name=there.name, readiness="no carrier", uses=uses)

    def _find_interface(self, name_or_mac: str) -> Interface | None:
        macs = {each.mac: each for each in self.interfaces.values()}
        return self.interfaces.get(name_or_mac) or macs.get(name_or_mac)

    def _interface(self, kept: Kept, interface: str | None) -> Interface:
        name = interface or kept.interface
        if name not in self.interfaces:
            if kept.type not in MADE:
                raise NetworkFailed(f"no suitable device found for {kept.name}")
            self.interfaces[name] = Interface(name=name, made=True)
        return self.interfaces[name]

    def _take_on(self, there: Interface, kept: Kept) -> None:
        there.applied = {name: value for name, value in kept.settings.items() if name in LIVE}
        lease = self.leases.get(there.name)
        auto = kept.settings.get("ipv4.method", "auto") == "auto"
        there.addresses = (*([lease] if lease and auto else []), *kept.addresses())
        self._changed()

    def _take_down(self, uuid: str) -> None:
        profile_on = self.profile_on(uuid)
        if profile_on is not None:
            profile_on.release()
            if profile_on.made:
                del self.interfaces[profile_on.name]
            self._changed()

    def _autoconnect(self) -> None:
        """Let idle interfaces use the profiles that they may."""
        for each in self.interfaces.values():
            fitting = [kept for kept in self.profiles.values() if _fits(kept, each)]
            best = max(fitting, key=lambda kept: kept.rank, default=None)
            if not each.uses and each.carrier and best is not None and best.rank[0]:
                self._count += 1
                each.uses, each.activation, each.up_at_s = best.uuid, self._count, self.now_s
                self._take_on(each, best)

    def _put_back(self, checkpoint: _Checkpoint) -> None:
        self.profiles.update(copy.deepcopy(dict(checkpoint.profiles)))
        self.on_disk.update(copy.deepcopy(dict(checkpoint.on_disk)))
        for name, before in checkpoint.interfaces.items():
            self._count += 1
            self.interfaces[name] = attrs.evolve(before, activation=self._count)
        self._changed()


def _fits(kept: Kept, interface: Interface) -> bool:
    return interface.name == kept.interface or bool(kept.mac and kept.mac == interface.mac)
