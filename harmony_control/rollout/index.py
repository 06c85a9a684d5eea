"""Changes of the fleet index: each on top of what stands there, by compare-and-swap, and told to devices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias

from harmony_control.bus.classes import hint_devices
from harmony_control.bus.reports import Reports
from harmony_core.errors import RevisionConflict, StoreError
from harmony_core.wire.envelope import VerifyKey
from harmony_core.wire.fleet_index import FleetIndex, Freeze

from .documents import ClassDocuments

__all__ = ["IndexChange", "add_gate_key", "change_index", "read_freeze", "write_freeze"]

_TRIES = 20
IndexChange: TypeAlias = Callable[[FleetIndex | None], Mapping[str, object]]
"""From the index that stands there, None for none, to the fields that change and their values."""


async def change_index(documents: ClassDocuments, reports: Reports, change: IndexChange) -> bool:
    """Write the fleet index as *change* returns it, and tell all devices. Return whether it has changed.

    Raise `OutOfScope`, `UntrustedSignature`, `StoreError`s.
    """
    for _ in range(_TRIES):
        before = await documents.read_index()
        known = before.value if before is not None else None
        if not (changes := change(known)):
            return False
        fields: dict[str, Any] = {
            **(dict(known) if known is not None else {}),
            **changes,
            "fleet": documents.fleet,
            "epoch": documents.epoch,
            "generation": known.generation + 1 if known is not None else 1,
            "issued_at": datetime.now(UTC),
        }
        try:
            await documents.write_index(FleetIndex(**fields), before)
        except RevisionConflict:
            continue
        told = [each.agent_id for each in await reports.read_all_seen()]
        await hint_devices(documents.client, told)
        return True
    raise StoreError("others keep writing the fleet index at the same time; try again")


async def add_gate_key(documents: ClassDocuments, reports: Reports, key: VerifyKey) -> None:
    """Name *key* in the fleet index as one for gates. Idempotent. Raise what `change_index` raises."""
    text = key.to_text()

    def change(known: FleetIndex | None) -> Mapping[str, object]:
        keys = known.gate_keys if known is not None else ()
        return {} if text in keys else {"gate_keys": (*keys, text)}

    await change_index(documents, reports, change)


async def read_freeze(documents: ClassDocuments) -> Freeze | None:
    """Return the freeze that holds now; None for none, and for one that is over."""
    index = await documents.read_index()
    freeze = index.value.freeze if index is not None else None
    if freeze is None or (freeze.until is not None and freeze.until <= datetime.now(UTC)):
        return None
    return freeze


async def write_freeze(documents: ClassDocuments, reports: Reports, freeze: Freeze | None) -> bool:
    """Write *freeze* to the fleet index, in place of any before; None is none. No device begins a new
    generation of any class.

    A device that has begun goes on, and an abort brings devices back all the same. Return whether it has
    changed. Raise what `change_index` raises.
    """

    def change(known: FleetIndex | None) -> Mapping[str, object]:
        before = known.freeze if known is not None else None
        return {} if freeze == before else {"freeze": freeze}

    return await change_index(documents, reports, change)
