"""Records and backups of one's own: several reconcilers over one ledger, none of which sees another's.

Both are kept by resource id, so two reconcilers that make the same resource in two places would otherwise
give to the one what was there before in the other.
"""

from __future__ import annotations

from .reconciler import Backups, JsonRecord, Records

__all__ = ["ScopedBackups", "ScopedRecords"]


class ScopedRecords:
    """`Records` that keep what belongs to *name* apart within *records*."""

    def __init__(self, records: Records, name: str) -> None:
        self._records = records
        self._prefix = _prefix(name)

    def get(self, resource_id: str) -> JsonRecord | None:
        return self._records.get(f"{self._prefix}{resource_id}")

    async def put(self, resource_id: str, record: JsonRecord) -> None:
        await self._records.put(f"{self._prefix}{resource_id}", record)

    async def forget(self, resource_id: str) -> None:
        await self._records.forget(f"{self._prefix}{resource_id}")


class ScopedBackups:
    """`Backups` that keep what belongs to *name* apart within *originals*."""

    def __init__(self, originals: Backups, name: str) -> None:
        self._originals = originals
        self._prefix = _prefix(name)

    async def keep(self, resource_id: str, content: bytes) -> None:
        await self._originals.keep(f"{self._prefix}{resource_id}", content)

    async def get(self, resource_id: str) -> bytes | None:
        return await self._originals.get(f"{self._prefix}{resource_id}")

    async def forget(self, resource_id: str) -> None:
        await self._originals.forget(f"{self._prefix}{resource_id}")


def _prefix(name: str) -> str:
    # No resource id has a slash before its colon, so nothing that is not scoped is ever met.
    if not name or "/" in name or ":" in name:
        raise ValueError(f"{name!r} cannot name a scope; write a word without / and :")
    return f"{name}/"
