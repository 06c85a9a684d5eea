"""A device in memory that can be asked to boot anew."""

from __future__ import annotations

from collections.abc import Collection

from harmony_core.errors import CapabilityUnavailable
from harmony_core.reconciler import MemoryRecords, Records
from harmony_pi_topology.reboots.reconciler import Reboots

from .fake_reconciler import FakeReconciler

__all__ = ["FakeReboots"]


class FakeReboots(Reboots, FakeReconciler):
    """A `RebootHost`'s reconciler. It never boots: ``asked`` counts how often it was to, and ``refused``
    how often it would not."""

    def __init__(self, records: Records | None = None) -> None:
        FakeReconciler.__init__(self)
        Reboots.__init__(self, self, records or MemoryRecords())
        self.asked = self.refused = 0
        self.system_reasons: list[str] = []
        self.obstacles: list[str] = []
        self.refuses = False

    async def find_system_reasons(self) -> Collection[str]:
        return self.system_reasons

    async def find_obstacles(self) -> Collection[str]:
        return self.obstacles

    async def reboot(self) -> None:
        if self.refuses:
            self.refused += 1
            raise CapabilityUnavailable("systemd-logind is stopping; it is tried again")
        self.asked += 1
