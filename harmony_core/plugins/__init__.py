"""The seam through which Scores and capabilities come in: one entry-point group, ours like anybody else's."""

from __future__ import annotations

from harmony_core.kind_error import KindError

from .deferred import DeferredScore
from .provider import Provider
from .registry import Registry, load
from .spec import ENTRY_POINT_GROUP, harmony_capabilities, harmony_scores, impl

__all__ = [
    "ENTRY_POINT_GROUP",
    "DeferredScore",
    "KindError",
    "Provider",
    "Registry",
    "harmony_capabilities",
    "harmony_scores",
    "impl",
    "load",
]
