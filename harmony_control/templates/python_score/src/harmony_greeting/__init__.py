"""Greetings for Harmony."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from harmony_core import Score, impl

from .greeting import GreetingScore

__all__ = ["GreetingScore"]


@impl
def harmony_scores() -> Iterable[type[Score[Any]]]:
    """Return the kinds of this package."""
    return [GreetingScore]
