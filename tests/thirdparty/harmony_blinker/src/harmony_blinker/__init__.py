"""A Score that makes an LED blink, registered with Harmony through the entry point ``harmony``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from harmony_core import Score, impl

from .blinker import BlinkerHost, BlinkerScore

__all__ = ["BlinkerHost", "BlinkerScore"]


@impl
def harmony_scores() -> Iterable[type[Score[Any]]]:
    """Harmony's hook: the kinds that this package adds."""
    return [BlinkerScore]
