"""Volumes of a device, whoever made them: what a reconciler of volumes can list."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol, runtime_checkable

import attrs

__all__ = ["FoundUse", "ListsVolumes"]


@attrs.frozen(kw_only=True)
class FoundUse:
    """A volume, what it takes, and who has it."""

    name: str
    created_at: datetime
    size_bytes: int | None
    """What is in it; None where that could not be counted in time."""
    used_by: tuple[str, ...]
    """The names of the containers that have it, running or not."""


@runtime_checkable
class ListsVolumes(Protocol):
    """A reconciler that knows all volumes of its device."""

    async def list_volumes(self) -> Sequence[FoundUse]:
        """Return all volumes there are, by name. Raises `CapabilityError`; ends within seconds."""
        ...
