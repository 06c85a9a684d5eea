"""A freeze: while it lasts, no device begins with a new generation of any class. Part of the fleet index.

Who has begun goes on, and an abort brings devices back all the same.
"""

from __future__ import annotations

from datetime import UTC, datetime

from harmony_control.bus.classes import hint_devices
from harmony_control.bus.reports import Reports
from harmony_core.errors import RevisionConflict, StoreError
from harmony_core.wire.fleet_index import FleetIndex, Freeze

from .documents import ClassDocuments

__all__ = ["read_freeze", "write_freeze"]

_TRIES = 20


async def read_freeze(documents: ClassDocuments) -> Freeze | None:
    """Return the freeze that holds now; None for none, and for one that is over."""
    index = await documents.read_index()
    freeze = index.value.freeze if index is not None else None
    if freeze is None or (freeze.until is not None and freeze.until <= datetime.now(UTC)):
        return None
    return freeze


async def write_freeze(documents: ClassDocuments, reports: Reports, freeze: Freeze | None) -> bool:
    """Have the fleet index say *freeze*, in place of any before, or none; and tell all devices.

    Return whether that is another than before. `OutOfScope`, `UntrustedSignature`, `StoreError`s.
    """
    for _ in range(_TRIES):
        before = await documents.read_index()
        known = before.value if before is not None else None
        if freeze == (known.freeze if known is not None else None):
            return False
        index = FleetIndex(
            fleet=documents.fleet,
            epoch=documents.epoch,
            generation=known.generation + 1 if known else 1,
            issued_at=datetime.now(UTC),
            classes=known.classes if known else {},
            gate_keys=known.gate_keys if known else (),
            freeze=freeze,
        )
        try:
            await documents.write_index(index, before)
        except RevisionConflict:
            continue
        told = [each.agent_id for each in await reports.read_all_seen()]
        await hint_devices(documents.client, told)
        return True
    raise StoreError("others keep writing the fleet index at the same time; try again")
