"""A row as JSON and YAML have it: for programs."""

from __future__ import annotations

import attrs

from harmony_core.wire.times import rfc3339
from harmony_core.wire.vitals import vitals_to_fields

from .row import DeviceRow

__all__ = ["row_to_document"]


def row_to_document(row: DeviceRow) -> dict[str, object]:
    """Return every field by its name; of the vitals, those that are known."""
    return {
        **attrs.asdict(row, recurse=False),
        "last_seen": rfc3339(row.last_seen) if row.last_seen else None,
        "labels": dict(row.labels),
        "outcomes": dict(row.outcomes),
        "conditions": dict(row.conditions),
        "vitals": vitals_to_fields(row.vitals) if row.vitals else None,
    }
