"""The control plane: writing Scores in Python, pushing them, and seeing what became of them.

::

    from harmony_control import Entry, Fleet, ScorePolicy

All are imported when first used, so that the command's ``--help`` need not wait for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harmony_core.wire.manifest import ScorePolicy

    from .fleet import Fleet
    from .plan.typed import Class, DeviceConfig
    from .push.entries import Entry

__all__ = ["Class", "DeviceConfig", "Entry", "Fleet", "ScorePolicy"]


def __getattr__(name: str) -> object:
    if name == "Fleet":
        from .fleet import Fleet

        return Fleet
    if name == "Entry":
        from .push.entries import Entry

        return Entry
    if name in {"Class", "DeviceConfig"}:
        from .plan import typed

        return getattr(typed, name)
    if name == "ScorePolicy":
        from harmony_core.wire.manifest import ScorePolicy

        return ScorePolicy
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
