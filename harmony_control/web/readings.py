"""All that is known of the fleet, for metrics and alerts; and the root document, read again and again.

By one task for whoever asks, and only where somebody may: with metrics or alerts. Devices and rollouts are
followed anyway (`.live`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import attrs

from harmony_control.fleet import DeviceRow, Fleet
from harmony_core.errors import HarmonyError

from .live import Live

if TYPE_CHECKING:
    from harmony_control.rollout.state import Look
    from harmony_core.wire.root import Root

__all__ = ["Overview", "Readings"]

READ_AGAIN_S = 15.0
_LOG = logging.getLogger("harmony.web")


class Readings:
    """The root document. Made for one fleet; `run` keeps it up to date."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.root: Root | None = None
        self.read_at: datetime | None = None
        """When it was read last; None before it was."""

    async def run(self) -> None:
        """Read it again and again, until cancelled."""
        told = ""
        while True:
            try:
                await self.read()
                told = ""
            except HarmonyError as error:
                if error.message != told:
                    told = error.message
                    _LOG.warning("the root document cannot be read: %s", told)
            except Exception:  # noqa: BLE001 - see below
                # A defect there must not end what else is told: ``read_at`` says that it is old.
                _LOG.exception("the root document cannot be read")
            await asyncio.sleep(READ_AGAIN_S)

    async def read(self) -> None:
        """Read it once. Raises what `RootDocuments.read_newest` raises."""
        self.root = await self._fleet.roots.read_newest()
        self.read_at = datetime.now(UTC)


@attrs.frozen
class Overview:
    """All that is known of the fleet, for alerts."""

    live: Live
    readings: Readings

    @property
    def is_current(self) -> bool:
        """Whether what is known of devices is what the fleet says now."""
        return self.live.read_at is not None and not self.live.problem

    def rows(self) -> Sequence[DeviceRow]:
        """Return every device."""
        return self.live.board.rows()

    @property
    def has_documents(self) -> bool:
        """Whether rollouts and the root document were ever read."""
        return self.readings.read_at is not None and self.live.rollouts.read_at is not None

    @property
    def rollouts(self) -> Mapping[str, Look]:
        """Return how each rollout stood when all could be read last."""
        return self.live.rollouts.looks

    @property
    def root(self) -> Root | None:
        """Return the newest root document."""
        return self.readings.root
