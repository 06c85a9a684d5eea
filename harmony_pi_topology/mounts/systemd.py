"""Mount points of a real systemd and kernel: the reconciler behind `MountHost`.

What becomes of a mount is heard from systemd, which follows the kernel's table; that a disk is plugged in or
pulled, from its path below /dev.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress

from harmony_core.errors import CapabilityError
from harmony_core.reconciler import Availability, OnChange, Reconciler, Records
from harmony_core.resources import MountPoint, SystemdUnit, UnitState, resource_id
from harmony_core.unit_paths import path_of_unit
from harmony_pi_topology.common.path_calls import PATIENCE_S
from harmony_pi_topology.common.path_watch import PathWatcher

from .kernel import KernelMounts, list_watched
from .reconciler import Mounts

__all__ = ["SystemdMounts"]


class SystemdMounts(Mounts):
    """*units* is of the systemd that mounts; *root* is where the device's / is seen."""

    def __init__(
        self,
        units: Reconciler[SystemdUnit, UnitState],
        root: str = "/",
        *,
        records: Records,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._kernel = KernelMounts(root, patience_s)
        self._has_collected = False
        self._root = root
        super().__init__(units, self._kernel, records)
        self._disks = PathWatcher(
            root, self._find_disks, name="watching disks", patience_s=patience_s
        )

    async def availability(self) -> Availability:
        """Return whether systemd answers."""
        await self._disks.mend()
        availability = await self.units.availability()
        if not self._has_collected:
            with suppress(CapabilityError):
                await self._collect()
                self._has_collected = True
        return availability

    async def watch(self, keys: Collection[str], on_change: OnChange) -> None:
        """Watch *keys*. Options that somebody changes by remounting are not noticed."""

        def hear_unit(name: str | None) -> None:
            on_change(None if name is None else path_of_unit(name))

        await self._disks.watch(keys, on_change)
        names = [name for key in keys for name in MountPoint.units_of(key)]
        await self.units.watch(names, hear_unit)

    async def close(self) -> None:
        await self._disks.close()
        await self.units.close()
        self._kernel.close()

    def _find_disks(self, keys: Collection[str]) -> Mapping[str, Collection[str]]:
        records = {
            key: self.records.get(resource_id(MountPoint.resource_type, key)) for key in keys
        }
        sources = {key: record["source"] for key, record in records.items() if record}
        return list_watched(self._root, {key: each for key, each in sources.items() if each})
