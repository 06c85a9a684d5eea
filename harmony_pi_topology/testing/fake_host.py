"""Settings of the host in memory."""

from __future__ import annotations

from collections.abc import Sequence

from harmony_core.change import Change
from harmony_core.errors import InvalidResource
from harmony_core.reconciler import MemoryRecords
from harmony_core.resources import HostSetting, HostSettingAt
from harmony_pi_topology.host.reconciler import HostSettings

from .fake_reconciler import FakeReconciler

__all__ = ["FakeHost"]


class FakeHost(FakeReconciler):
    """A `HostConfigurator`'s reconciler. ``zones`` and ``locales`` are those that this host has."""

    def __init__(self) -> None:
        super().__init__()
        self.zones = {"UTC", "Europe/Berlin", "Europe/London", "Asia/Tokyo"}
        self.locales = {"C.UTF-8", "en_GB.UTF-8", "de_DE.UTF-8"}
        self.values = {
            "hostname": "raspberrypi",
            "timezone": "Europe/London",
            "locale": "en_GB.UTF-8",
            "keyboard": "gb",
        }
        self.in_force = dict(self.values)
        self._settings = HostSettings(self, MemoryRecords())

    @property
    def resource_class(self) -> type[HostSetting]:
        return HostSetting

    async def converge(
        self, resources: Sequence[HostSetting], *, apply: bool
    ) -> Sequence[Change | Exception]:
        return await self._settings.converge(resources, apply=apply)

    async def observe(self, key: str) -> HostSettingAt | None:
        return await self.look(key, anew=True)

    async def remove(self, keys: Sequence[str], *, apply: bool) -> Sequence[Change | Exception]:
        return await self._settings.remove(keys, apply=apply)

    async def look(self, name: str, *, anew: bool) -> HostSettingAt:  # noqa: ARG002 - it remembers nothing
        return HostSettingAt(value=self.values[name], in_force=self.in_force[name])

    async def set(self, name: str, value: str, *, was_there: bool = False) -> None:
        """Set the value, as `HostDaemons.set` does; a bystander does the same."""
        if name == "timezone" and value not in self.zones:
            raise InvalidResource(f"{value} is no time zone of this host; write one that it has")
        if name == "locale" and value not in self.locales and not was_there:
            raise InvalidResource(f"{value} is no locale of this host; write one that it has")
        self.values[name] = self.in_force[name] = value
        self._watch.tell(name)

    def value(self, name: str) -> str:
        """Return what a bystander sees."""
        return self.values[name]
