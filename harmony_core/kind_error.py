"""KindError: why a package provides fewer kinds of Score than it says."""

from __future__ import annotations

import attrs

__all__ = ["KindError"]


@attrs.frozen(kw_only=True)
class KindError:
    """An entry point that provides less than it says, and why."""

    entry_point: str
    reason: str
