"""How the device itself is, beside what it runs: heat, power, room, memory, clock. Part of a heartbeat.

Each is None where the device cannot tell, and where what it tells cannot be: a fault in a sensor is no reason
to take a device for silent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import attrs

__all__ = ["Vitals", "vitals_from_fields", "vitals_to_fields"]

_MOST_BYTES = 2**53 - 1
_UNDER_VOLTAGE, _FREQUENCY_CAPPED, _THROTTLED, _SOFT_LIMIT = 1, 2, 4, 8
_SINCE_BOOT = 16


@attrs.frozen(kw_only=True)
class Vitals:
    """How a device is, as it measured itself for one heartbeat."""

    uptime_s: int | None = None
    temperature_c: float | None = None
    """The hottest of what it measures."""
    throttled: int | None = None
    """The bits of a Raspberry Pi's firmware (`get_throttled`); None on other machines."""
    disk_free_bytes: int | None = None
    """On the file system of ``/``, for who is not root."""
    state_free_bytes: int | None = None
    """On that of the agent's state directory; None where it is the same."""
    disk_life_used_percent: int | None = None
    """How much of its eMMC's or card's life is used up, in steps of 10, as that tells itself."""
    memory_available_bytes: int | None = None
    clock_synchronised: bool | None = None
    clock_offset_s: float | None = None
    """By how much the kernel still has to correct the clock."""

    @property
    def under_voltage(self) -> bool | None:
        """Whether the supply is too weak now."""
        return self._bit(_UNDER_VOLTAGE)

    @property
    def under_voltage_since_boot(self) -> bool | None:
        return self._bit(_UNDER_VOLTAGE << _SINCE_BOOT)

    @property
    def is_throttled(self) -> bool | None:
        """Whether the processor is slowed down now, for heat or for want of power."""
        return self._bit(_FREQUENCY_CAPPED | _THROTTLED | _SOFT_LIMIT)

    @property
    def throttled_since_boot(self) -> bool | None:
        return self._bit((_FREQUENCY_CAPPED | _THROTTLED | _SOFT_LIMIT) << _SINCE_BOOT)

    def _bit(self, mask: int) -> bool | None:
        return None if self.throttled is None else bool(self.throttled & mask)


def _whole(least: int, most: int) -> Callable[[Any], int | None]:
    def read(value: Any) -> int | None:
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        return value if is_whole and least <= value <= most else None

    return read


def _number(least: float, most: float) -> Callable[[Any], float | None]:
    def read(value: Any) -> float | None:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return None
        # Compared first: a whole number can be too large to be converted.
        return float(value) if least <= value <= most and math.isfinite(value) else None

    return read


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "uptime_s": _whole(0, 10**10),
    "temperature_c": _number(-100, 200),
    "throttled": _whole(0, 2**32 - 1),
    "disk_free_bytes": _whole(0, _MOST_BYTES),
    "state_free_bytes": _whole(0, _MOST_BYTES),
    "disk_life_used_percent": _whole(0, 110),
    "memory_available_bytes": _whole(0, _MOST_BYTES),
    "clock_synchronised": _flag,
    "clock_offset_s": _number(-1e9, 1e9),
}


def vitals_from_fields(value: Any) -> Vitals | None:
    """Return the vitals that stand in a heartbeat; None where there are none. Raises nothing."""
    if not isinstance(value, dict):
        return None
    given = cast("Mapping[str, Any]", value)
    return Vitals(**{name: read(given.get(name)) for name, read in _READERS.items()})


def vitals_to_fields(vitals: Vitals) -> dict[str, Any]:
    """Return what is known of them, as it stands in a heartbeat: what is not known takes no room there."""
    return {name: value for name in _READERS if (value := getattr(vitals, name)) is not None}
