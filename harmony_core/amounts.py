"""Numbers with their units, for people."""

from __future__ import annotations

__all__ = ["amount"]


def amount(count: int, unit: str) -> str:
    """Return a number with its unit, such as ``12.3 MB`` and ``7 files``."""
    if unit != "bytes":
        return f"{count} {unit}"
    for name, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {name}"
    return f"{count} B"
