"""The seam through which Scores come in: one hook, one entry-point group, ours like anybody else's."""

from __future__ import annotations

from harmony_core.kind_error import KindError

from .registry import Registry, load
from .spec import ENTRY_POINT_GROUP, harmony_scores, impl

__all__ = ["ENTRY_POINT_GROUP", "KindError", "Registry", "harmony_scores", "impl", "load"]
