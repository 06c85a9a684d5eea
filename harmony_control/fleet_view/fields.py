"""What of a row can be asked for by name: in ``--where``, in ``--sort``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Literal, TypeAlias

import attrs

from harmony_core.wire.vitals import Vitals

from .row import DEVICE_STATES, UPDATE_STATES, WORKLOADS_STATES, DeviceRow

__all__ = ["ALIASES", "FIELDS", "LABEL_PREFIX", "Field", "Kind", "Value", "label_field"]

Kind: TypeAlias = Literal["text", "flag", "count", "bytes", "seconds", "percent", "celsius"]
Value: TypeAlias = str | bool | float | None
LABEL_PREFIX = "labels."


@attrs.frozen(kw_only=True)
class Field:
    """One thing that every row has; None of a row where it is not known."""

    kind: Kind
    read: Callable[[DeviceRow], Value]
    choices: tuple[str, ...] = ()
    """All that it can be; empty for any text."""


def label_field(name: str) -> Field:
    """Return the field that is the label of that *name*."""
    return Field(kind="text", read=lambda row: row.labels.get(name))


def _vital(kind: Kind, read: Callable[[Vitals], Value]) -> Field:
    return Field(kind=kind, read=lambda row: read(row.vitals) if row.vitals else None)


def _since_s(row: DeviceRow) -> float | None:
    return None if row.last_seen is None else (datetime.now(UTC) - row.last_seen).total_seconds()


FIELDS: Mapping[str, Field] = {
    "id": Field(kind="text", read=lambda row: row.id),
    "device": Field(kind="text", read=lambda row: row.device, choices=DEVICE_STATES),
    "update": Field(kind="text", read=lambda row: row.update, choices=UPDATE_STATES),
    "workloads": Field(kind="text", read=lambda row: row.workloads, choices=WORKLOADS_STATES),
    "reason": Field(kind="text", read=lambda row: row.reason),
    "last_seen": Field(kind="seconds", read=_since_s),
    "wanted_generation": Field(kind="count", read=lambda row: row.wanted_generation),
    "observed_generation": Field(kind="count", read=lambda row: row.observed_generation),
    "agent_version": Field(kind="text", read=lambda row: row.agent_version or None),
    "scores": Field(kind="count", read=lambda row: row.scores),
    "scores_failed": Field(kind="count", read=lambda row: row.scores_failed),
    "uptime": _vital("seconds", lambda vitals: vitals.uptime_s),
    "temperature": _vital("celsius", lambda vitals: vitals.temperature_c),
    "under_voltage": _vital("flag", lambda vitals: vitals.under_voltage),
    "under_voltage_since_boot": _vital("flag", lambda vitals: vitals.under_voltage_since_boot),
    "throttled": _vital("flag", lambda vitals: vitals.is_throttled),
    "throttled_since_boot": _vital("flag", lambda vitals: vitals.throttled_since_boot),
    "disk_free": _vital("bytes", lambda vitals: vitals.disk_free_bytes),
    "state_free": _vital("bytes", lambda vitals: vitals.state_free_bytes),
    "disk_life_used": _vital("percent", lambda vitals: vitals.disk_life_used_percent),
    "memory_available": _vital("bytes", lambda vitals: vitals.memory_available_bytes),
    "clock_synchronised": _vital("flag", lambda vitals: vitals.clock_synchronised),
    "clock_offset": Field(kind="seconds", read=lambda row: row.clock_offset_s),
}

ALIASES: Mapping[str, str] = {
    "agent": "id",
    "generation": "observed_generation",
    "version": "agent_version",
    "heat": "temperature",
    "disk": "disk_free",
    "memory": "memory_available",
    "memory_free": "memory_available",
    "up": "uptime",
    "clock": "clock_offset",
}
"""What the same is called over a column, or where all of a device is told: that is a name of it, too."""
