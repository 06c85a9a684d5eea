"""The root documents of a fleet, as whoever is connected reads and publishes them.

What they say is proposed and signed off line: see `harmony_control.trust`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nats.aio.client import Client

from .bus.reports import Reports
from .bus.roots import Taken, look_who_has, publish, refresh
from .store.home import Home

if TYPE_CHECKING:
    from harmony_core.wire.root import Root  # a fleet without one needs no model of it

__all__ = ["RootDocuments", "Taken"]


class RootDocuments:
    """Made by `Fleet.roots`."""

    def __init__(self, home: Home, client: Client, reports: Reports) -> None:
        self._home = home
        self._client = client
        self._reports = reports

    async def read_newest(self) -> Root | None:
        """Keep here what was published since, and return the newest; None for a fleet without.

        Raise `StoreError`s.
        """
        return await refresh(self._home, self._client)

    async def publish(self, envelope: bytes, *, replaces: str | None = None) -> Root:
        """Publish *envelope* as the newest one, and hint it to every device; see `bus.roots.publish`."""
        return await publish(self._home, self._client, envelope, replaces=replaces)

    async def look_who_has(self, version: int, *, within_s: float = 0.0) -> Taken:
        """Return on which devices *version*, or a later one, counts, according to their reports.

        Wait, at most *within_s* seconds, for those who are heard and do not have it yet.
        """
        return await look_who_has(self._reports, version, within_s=within_s)
