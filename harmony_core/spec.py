"""Spec: what a field of a Score is made of when it has fields of its own.

::

    class Route(Spec):
        path: str
        port: int

    class ProxyScore(Score[HasContainers]):
        routes: tuple[Route, ...]
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["Spec"]


class Spec(BaseModel):
    """A part of a Score's fields. Refuses a field that it does not know, and cannot be changed once made."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)
