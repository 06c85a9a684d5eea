"""A network in memory: what a Score sees of one, and what happens behind its back.

Passes the same `NetworkConfiguratorContract` as the real one, by the very same reconciler: only the daemon
that keeps the profiles is another. Beside the reconciler's verbs stand those of a `NetworkBystander`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import attrs

from harmony_core.change import Change
from harmony_core.errors import CapabilityError, SecretMissing
from harmony_core.reconciler import MemoryBackups, MemoryRecords
from harmony_core.resources import Enterprise, NetworkProfile, NetworkState, resource_id
from harmony_core.secret_values import SecretValues
from harmony_pi_topology.network.reconciler import NetworkReconciler
from harmony_pi_topology.network.settings import DEFAULTS, SECRETS, Setting

from .fake_network_daemon import FakeNetworkDaemon, Kept
from .fake_reconciler import FakeReconciler

__all__ = ["FakeNetwork"]

_LOOKS = 1000
_NMCLI: Final[Mapping[tuple[str, Setting], str]] = MappingProxyType(
    {("802-11-wireless.powersave", 2): "disable", ("802-11-wireless.powersave", 3): "enable"}
)
"""The words of nmcli for numbers."""


class FakeNetwork(FakeReconciler):
    """A `NetworkConfigurator`'s reconciler over a dictionary.

    ``faults[name]`` is an error with which everything about that profile is answered. The control plane is
    reached when *bus*, if any, is in the network of an address that some interface has, and ``silent`` is
    not set. Unless *patient*, profiles come up, and changes prove themselves, in `pass_time` only.
    """

    def __init__(
        self,
        *,
        interfaces: Iterable[str] = ("eth0", "wlan0"),
        bus: str | None = None,
        patient: bool = True,
    ) -> None:
        super().__init__()
        self.faults: dict[str, Exception] = {}
        self.silent = False
        """The control plane answers nobody."""
        self.connecting_takes_s = 0.0
        """To the control plane, or until that is given up."""
        self.silent_after_changes = False
        """Every change of what is in use cuts the device off."""
        self._bus = bus
        self._patient = patient
        self.forgets = set[str]()
        """Settings that the daemon takes and does not keep."""
        self.lacks = set[str]()
        self.broken = set[str]()
        """The paths of certificates and keys that are none."""
        """Files that are not on the device; all others are."""
        self.gives_none = set[str]()
        """Interfaces on which others should be given addresses, and are not."""
        self._secrets = _FakeSecrets()
        self._secret_values = SecretValues()
        self._daemon = FakeNetworkDaemon(interfaces, changed=self._watch.tell_all)
        self._daemon.forgets = self.forgets
        self._records, self._backups = MemoryRecords(), MemoryBackups()
        self._reconciler = self._open()

    @property
    def secret_values(self) -> SecretValues:
        """What the words stand for that are in profiles in place of secrets."""
        return self._secret_values

    @secret_values.setter
    def secret_values(self, values: SecretValues) -> None:
        self._secret_values = values
        self.reopen()

    @property
    def resource_class(self) -> type[NetworkProfile]:
        return NetworkProfile

    async def converge(
        self, resources: Sequence[NetworkProfile], *, apply: bool
    ) -> Sequence[Change | Exception]:
        return await self._answer_one(
            [each.name for each in resources],
            lambda numbers: self._converge_one([resources[n] for n in numbers], apply=apply),
        )

    async def observe(self, key: str) -> NetworkState | None:
        if key in self.faults:
            raise self.faults[key]
        return await self._reconciler.observe(key)

    async def remove(self, keys: Sequence[str], *, apply: bool) -> Sequence[Change | Exception]:
        return await self._answer_one(
            keys, lambda numbers: self._remove_one([keys[n] for n in numbers], apply=apply)
        )

    async def reachable(self) -> bool:
        self._daemon.pass_time(self.connecting_takes_s)
        if self.silent or (self.silent_after_changes and self._daemon.is_on_trial):
            return False
        return self._bus is None or self._daemon.reaches(self._bus)

    def reopen(self) -> FakeNetwork:
        """Return another agent on the same device, which remembers what is on disk, and nothing else."""
        self._reconciler = self._open()
        return self

    async def pass_time(self, seconds: float) -> None:
        """Let *seconds* go by, for the network."""
        self._daemon.pass_time(seconds)

    async def silence(self, silent: bool) -> None:
        """Let the control plane answer nobody any more, or answer again."""
        self.silent = silent

    async def reboot(self) -> None:
        """Reboot the device: what was written for this boot only is gone."""
        self._daemon.reboot()
        self.reopen()

    async def begin_anew(self) -> None:
        """Restart the daemon: checkpoints are forgotten, and what is in use stays so."""
        self._daemon.begin_anew()

    async def make_strange(self, name: str, interface: str, address: str) -> None:
        """Make a profile and use it, as a bystander would."""
        uuid = f"strange-{name}"
        self._daemon.profiles[uuid] = Kept(uuid=uuid, name=name)
        settings: dict[str, Setting] = {
            "connection.type": "802-3-ethernet",
            "connection.interface-name": interface,
            "ipv4.method": "manual",
            "ipv4.addresses": (address,),
        }
        await self._daemon.change(uuid, settings, {}, keep=True)
        await self._daemon.activate(uuid, interface)

    async def modify(self, name: str, setting: str, value: str) -> None:
        """Change a setting of a profile, as a bystander would, and do not apply it."""
        kept = self._find_kept(name)
        if setting in SECRETS:
            await self._daemon.change(kept.uuid, {}, {setting: value}, keep=True)
        elif setting in DEFAULTS:
            await self._daemon.change(kept.uuid, {setting: _parse(setting, value)}, {}, keep=True)
        else:
            kept.others[setting] = value
            await self._daemon.change(kept.uuid, {}, {}, keep=True)

    async def read(self, name: str, setting: str) -> tuple[str, ...]:
        """Return what a profile has there, as a list of words."""
        kept = self._find_kept(name)
        value = kept.settings.get(setting, kept.others.get(setting, DEFAULTS.get(setting, "")))
        if isinstance(value, tuple):
            return value
        return () if value in {"", -1} else (_word(setting, value),)

    async def profiles(self) -> set[str]:
        """Return the names of all profiles."""
        return {kept.name for kept in self._daemon.profiles.values()}

    async def in_use(self, interface: str) -> str | None:
        """Return the name of the profile that an interface uses."""
        there = self._daemon.interfaces.get(interface)
        return self._daemon.profiles[there.uses].name if there is not None and there.uses else None

    async def identity(self, name: str) -> tuple[str, str]:
        """Return the profile's UUID and by which activation it is in use: both stay when nothing is done."""
        uuid = self._find_kept(name).uuid
        profile_on = self._daemon.profile_on(uuid)
        return uuid, str(profile_on.activation) if profile_on is not None else ""

    async def is_on_disk(self, name: str) -> bool:
        """Return whether the profile would be there after a reboot, as it is now."""
        kept = self._find_kept(name)
        return self._daemon.on_disk.get(kept.uuid) == kept

    async def take_down(self, name: str) -> None:
        """Take a profile out of use, as a bystander would."""
        await self._daemon.deactivate(self._find_kept(name).uuid)

    async def bring_up(self, name: str) -> None:
        """Bring a profile into use, as a bystander would."""
        await self._daemon.activate(self._find_kept(name).uuid, None)

    async def delete(self, name: str) -> None:
        """Remove a profile, as a bystander would."""
        await self._daemon.delete(self._find_kept(name).uuid)

    async def mac(self, interface: str) -> str:
        """Return the MAC address of an interface."""
        return self._daemon.interfaces[interface].mac

    async def addresses(self, interface: str) -> set[str]:
        """Return the addresses of an interface, as the kernel says them."""
        there = self._daemon.interfaces.get(interface)
        return set(there.addresses) if there is not None else set()

    async def drop_address(self, interface: str, address: str) -> None:
        """Take an address off an interface, as a bystander would, without the daemon."""
        there = self._daemon.interfaces[interface]
        there.addresses = tuple(each for each in there.addresses if each != address)
        self._watch.tell_all()

    def put_secret(self, name: str, content: bytes) -> None:
        """Put a secret in its place, as the device's owner would."""
        self._secrets.contents[name] = content

    def put_value(self, word: str, value: str) -> None:
        """Have *word*, which stands in profiles, stand for *value*."""
        self._secret_values.put(word, value)

    def _open(self) -> NetworkReconciler:
        return NetworkReconciler(
            self._daemon,
            records=self._records,
            backups=self._backups,
            reachability=self,
            secrets=self._secrets,
            secret_values=self._secret_values,
            find_file=self._find_file,
            find_login_problem=lambda login, _: self._find_login_problem(login),
            gives_addresses=self._gives_addresses,
            monotonic_s=lambda: self._daemon.now_s,
        )

    async def _converge_one(
        self, profiles: Sequence[NetworkProfile], *, apply: bool
    ) -> Sequence[Change | Exception]:
        results = await self._reconciler.converge(profiles, apply=apply)
        if not (self._patient and apply):
            return results
        return await self._wait_until_done(
            results, lambda: self._reconciler.converge(profiles, apply=apply)
        )

    async def _remove_one(
        self, keys: Sequence[str], *, apply: bool
    ) -> Sequence[Change | Exception]:
        results = await self._reconciler.remove(keys, apply=apply)
        if not (self._patient and apply):
            return results
        return await self._wait_until_done(
            results, lambda: self._reconciler.remove(keys, apply=apply)
        )

    async def _wait_until_done(
        self,
        results: Sequence[Change | Exception],
        look: Callable[[], Awaitable[Sequence[Change | Exception]]],
    ) -> Sequence[Change | Exception]:
        """Look again until nothing is waited for, and tell of all that was done meanwhile."""
        for _ in range(_LOOKS):
            waits_s = [
                each.pending.look_again_s
                for each in results
                if isinstance(each, Change) and each.pending is not None
            ]
            if not waits_s:
                return results
            await self.pass_time(min(waits_s))
            again = await look()
            results = [_join(one, two) for one, two in zip(results, again, strict=True)]
        return results

    async def _answer_one(
        self,
        names: Sequence[str],
        ask: Callable[[Sequence[int]], Awaitable[Sequence[Change | Exception]]],
    ) -> Sequence[Change | Exception]:
        """Return what *ask* answers for those *names* that have no fault of their own, and the faults of the
        others."""
        sound = [n for n, name in enumerate(names) if name not in self.faults]
        answers = dict(zip(sound, await ask(sound), strict=True))
        return [answers[n] if n in answers else self._fault(name) for n, name in enumerate(names)]

    def _fault(self, name: str) -> Exception:
        fault = self.faults[name]
        if isinstance(fault, CapabilityError) and fault.resource is None:
            fault.resource = resource_id(NetworkProfile.resource_type, name)
        return fault

    def _find_kept(self, name: str) -> Kept:
        (kept,) = (each for each in self._daemon.profiles.values() if each.name == name)
        return kept

    async def _find_file(self, path: str) -> bool:
        return path not in self.lacks

    async def _find_login_problem(self, login: Enterprise) -> str | None:
        return next((f"{each} is broken" for each in login.files if each in self.broken), None)

    async def _gives_addresses(self, interface: str) -> bool:
        return interface not in self.gives_none

    def read_secrets(self, name: str) -> Mapping[str, str]:
        """Return the secrets of a profile, by NetworkManager's names."""
        return dict(self._find_kept(name).secrets)

    def own_secrets(self) -> Mapping[str, bytes]:
        """Return the secrets that the device has made itself, by their names."""
        return dict(self._secrets.own)


class _FakeSecrets:
    """`SecretFiles` in a dictionary."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}
        self.own: dict[str, bytes] = {}

    async def read(self, name: str) -> bytes:
        try:
            return self.contents[name]
        except KeyError:
            raise SecretMissing(
                f"this device holds no secret {name!r}; put it into its secrets directory"
            ) from None

    async def find_own(self, name: str) -> bytes | None:
        return self.own.get(name)

    async def keep_own(self, name: str, content: bytes) -> None:
        self.own[name] = content

    async def forget_own(self, name: str) -> None:
        self.own.pop(name, None)


def _join(before: Change | Exception, after: Change | Exception) -> Change | Exception:
    if isinstance(before, Exception) or isinstance(after, Exception):
        return after
    steps = (*before.steps, *after.steps)
    diff = before.diff if after.diff is None else after.diff
    return attrs.evolve(after, steps=steps, before=before.before, diff=diff)


def _parse(setting: str, value: str) -> Setting:
    match DEFAULTS[setting]:
        case bool():
            return value == "yes"
        case int():
            return int(value)
        case tuple():
            return tuple(each.strip() for each in value.split(",") if each.strip())
        case _:
            return value


def _word(setting: str, value: Setting) -> str:
    if isinstance(value, bool):
        return {True: "yes", False: "no"}[value]
    return _NMCLI.get((setting, value), str(value))
