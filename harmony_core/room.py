"""Room on disks: how much of one stays free, whatever is written to it that is large."""

from __future__ import annotations

from typing import Final

__all__ = ["ROOM_KEPT_BYTES"]

ROOM_KEPT_BYTES: Final = 64 * 1024 * 1024
"""So much of a disk is left free: a device whose disk is full is worse than one without a backup or swap."""
