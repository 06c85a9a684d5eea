"""Decode an entry of the manifest into a Score that can be interpreted: once, while it stays the same.

Every manifest repeats every entry, and most of them are what they were; so the Score of each is kept, with
the hash of what it wants, until its entry says something else.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from harmony_core.plugins import Registry
from harmony_core.score import AnyScore
from harmony_core.wire.manifest import SerializedScore, spec_hash

__all__ = ["Decoded", "Decoder"]


@attrs.frozen(kw_only=True)
class Decoded:
    """A Score, and of what it was decoded."""

    entry: SerializedScore
    score: AnyScore
    spec_hash: str


class Decoder:
    """Decodes by *registry*."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._decoded: dict[str, Decoded] = {}

    def decode(self, entry: SerializedScore) -> Decoded:
        """As `Registry.decode`, and as dear only when *entry* is new or another."""
        known = self._decoded.get(entry.id)
        if known is None or known.entry is not entry:
            known = Decoded(
                entry=entry, score=self._registry.decode(entry), spec_hash=spec_hash(entry)
            )
            self._decoded[entry.id] = known
        return known

    def forget_all_but(self, score_ids: Iterable[str]) -> None:
        """Keep nothing of Scores that nobody wants any more."""
        wanted = set(score_ids)
        self._decoded = {key: value for key, value in self._decoded.items() if key in wanted}
