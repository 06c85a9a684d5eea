"""Kinds that are known by name before they are imported: a package has many, a device uses few of them."""

from __future__ import annotations

from importlib import import_module

import attrs
from attrs.validators import deep_iterable, instance_of, matches_re

from harmony_core.errors import UnknownKind
from harmony_core.score import AnyScore
from harmony_core.wire.names import KIND_PATTERN

from .usable import is_score, versions_of, why_unusable

__all__ = ["DeferredScore"]


@attrs.frozen(kw_only=True)
class DeferredScore:
    """The Score class *kind* in *module*, imported when the first Score of it is read.

    What it costs in memory, and at the start, is had only where it is used.
    """

    kind: str = attrs.field(validator=matches_re(KIND_PATTERN))
    module: str = attrs.field(validator=instance_of(str))
    versions: tuple[int, ...] = attrs.field(
        default=(1,), validator=deep_iterable(instance_of(int), instance_of(tuple))
    )
    """Of its specification, those that can be read: its formers' and its own."""

    def load(self) -> type[AnyScore]:
        """Import the class. Raise `UnknownKind` if it cannot be imported, or is not what was announced."""
        try:
            score: object = getattr(import_module(self.module), self.kind)
            problem = why_unusable(score)
        except (Exception, SystemExit) as error:
            raise self._unknown(f"{type(error).__name__}: {error}") from error
        if problem is not None or not is_score(score):
            raise self._unknown(problem or f"{score!r} is no Score")
        if (score.kind, versions_of(score)) != (self.kind, self.versions):
            raise self._unknown(f"it is {score.kind} of the versions {versions_of(score)}")
        return score

    def _unknown(self, why: str) -> UnknownKind:
        return UnknownKind(
            f"{self.kind} cannot be loaded from {self.module}: {why}; install its package anew, and restart "
            "what uses it"
        )
