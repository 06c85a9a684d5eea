"""The hooks that a package may implement, and the marker with which it does."""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from harmony_core.score import AnyScore

__all__ = ["ENTRY_POINT_GROUP", "harmony_scores", "impl"]

ENTRY_POINT_GROUP = "harmony"

impl = pluggy.HookimplMarker(ENTRY_POINT_GROUP)
"""``@impl`` marks a function in the module that the entry point names."""

_spec = pluggy.HookspecMarker(ENTRY_POINT_GROUP)


@_spec
def harmony_scores() -> Iterable[type[AnyScore]]:
    """Return the Score classes that this package provides.

    Called once, when a control plane or an agent starts. A class that does not import, or a kind that
    another package has claimed already, is listed as an error by ``harmony kinds`` and
    ``harmony-agent check``; everything else goes on.
    """
    return ()
