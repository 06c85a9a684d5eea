"""Enabling one unit, and no other: systemd does to all that ``Also=`` names what it does to the unit.

others, before anything is enabled or disabled -> the record -> the deed -> give back

What enabling a unit enables besides stays so while the unit is ours, as its author meant it; it goes with it.
"""

from __future__ import annotations

from collections.abc import Mapping

from harmony_core.unit_install import read_install_words

from .records import FoundUnit
from .sdbus import SystemdBus
from .unit_files import UnitFiles

__all__ = ["Enabling"]


class Enabling:
    """What is enabled of the units that others name in their ``Also=``."""

    def __init__(self, bus: SystemdBus, files: UnitFiles) -> None:
        self._bus = bus
        self._files = files

    async def others(self, name: str, found: FoundUnit, *texts: str) -> dict[str, bool]:
        """Return which units are enabled or disabled with *name*, and whether each is enabled now.

        *texts* are its unit files besides the one that *found* was loaded from. Leave out a unit that names
        *name* in its turn: one of the two cannot be enabled without the other.
        """
        others: dict[str, bool] = {}
        waiting = [*_also(await self._files.text(found.fragment)), *_also("".join(texts))]
        while waiting:
            other = waiting.pop()
            if other == name or other in others:
                continue
            looked_at = await self._bus.look(other)
            named = _also(await self._files.text(looked_at.fragment))
            if name not in named:
                others[other] = looked_at.enabled is True
                waiting += named
        return others

    async def give_back(self, wanted: Mapping[str, bool]) -> None:
        """Enable or disable each unit as *wanted* says. Idempotent."""
        for other, is_wanted in wanted.items():
            is_enabled = (await self._bus.look(other)).enabled
            if is_wanted and is_enabled is False:
                await self._bus.enable(other, anew=False)
            elif not is_wanted and is_enabled is True:
                await self._bus.disable(other)


def _also(text: str) -> list[str]:
    # Specifiers are for instances of templates; what they stand for there, only systemd knows.
    return [name for name in read_install_words(text, "Also") if "%" not in name]
