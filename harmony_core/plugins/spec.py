"""The hooks that a package may implement, and the marker with which it does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import pluggy

from harmony_core.score import AnyScore

from .deferred import DeferredScore

if TYPE_CHECKING:
    from harmony_core.place import Place
    from harmony_core.reconciler import AnyReconciler

__all__ = ["ENTRY_POINT_GROUP", "harmony_capabilities", "harmony_scores", "impl"]

ENTRY_POINT_GROUP = "harmony"

impl = pluggy.HookimplMarker(ENTRY_POINT_GROUP)
"""``@impl`` marks a function in the module that the entry point names."""

_spec = pluggy.HookspecMarker(ENTRY_POINT_GROUP)


@_spec
def harmony_scores() -> Iterable[type[AnyScore] | DeferredScore]:
    """Return the Score classes that this package provides; or where each is, to be imported once it is used.

    Called once, when a control plane or an agent starts. A class that does not import, or a kind that
    another package has claimed already, is listed as an error by ``harmony kinds`` and
    ``harmony-agent check``; everything else goes on.
    """
    return ()


@_spec
def harmony_capabilities(place: Place) -> Mapping[str, AnyReconciler | str]:  # noqa: ARG001 - the hook's
    """Return what this package offers on the device at *place*, by the capability's name.

    A reconciler, or, where it cannot be offered here, the reason in words: what is missing, and what to do.
    Called once, when an agent starts or is checked. Must be quick, start nothing and connect to nothing;
    import what is heavy only where it is offered. What is *root* of the place decides what may be touched.

    A capability that another package offers already is listed as an error by ``harmony-agent check`` and
    in the device's status, and is not taken; Harmony's own come first.
    """
    return {}
