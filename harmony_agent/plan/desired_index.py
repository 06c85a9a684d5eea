"""Wishes: what the newest plan of each Score of the manifest in force names.

Forgotten with the manifest. What a plan that broke off has not come to is *open*: it may be wanted or not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import attrs

from harmony_core.resources import Resource
from harmony_core.wire.manifest import SerializedScore

__all__ = ["Wishes"]


@attrs.frozen
class _Named:
    """What one plan names, what of it it wants and does not only look at, and whether that is all."""

    ids: Collection[str]
    wanted: Mapping[str, Resource]
    whole: bool


class Wishes:
    """Whatever is asked of a Score that the manifest does not have, it wants nothing."""

    def __init__(self) -> None:
        self._entries: dict[str, SerializedScore] = {}
        self._places: dict[str, int] = {}
        self._named: dict[str, _Named] = {}

    def begin(self, entries: Iterable[SerializedScore]) -> None:
        """A manifest of these *entries* is in force, and none of them was planned yet."""
        self._entries = {entry.id: entry for entry in entries}
        self._places = {score: place for place, score in enumerate(self._entries)}
        self._named.clear()

    def note(
        self, score: str, ids: Collection[str], wanted: Mapping[str, Resource], *, whole: bool
    ) -> None:
        """What *score* was found to name, and what of it to want; *whole*: and nothing else."""
        if score in self._entries:
            self._named[score] = _Named(ids, wanted, whole)

    def place(self, score: str) -> int:
        """Where it stands in the manifest; last what does not."""
        return self._places.get(score, len(self._places))

    def after(self, score: str) -> Collection[str]:
        """Whom it waits for."""
        entry = self._entries.get(score)
        return entry.after if entry is not None else ()

    def is_open(self, score: str, rid: str) -> bool:
        """Whether it cannot be told yet if *score* names this."""
        named = self._named.get(score)
        if named is None:
            return score in self._entries
        return not named.whole and rid not in named.ids

    def names(self, score: str, rid: str) -> bool:
        """Whether *score* wants this, or looks at it."""
        named = self._named.get(score)
        return named is not None and rid in named.ids

    def of(self, score: str, rid: str) -> Resource | None:
        """As what *score* wants this; None where it does not, or only looks at it."""
        named = self._named.get(score)
        return named.wanted.get(rid) if named is not None else None

    def wanting(self, rid: str) -> set[str]:
        """Every Score that wants this."""
        return {score for score, named in self._named.items() if rid in named.wanted}

    def keys(self, score: str) -> frozenset[str]:
        """Every exclusive key, such as a port, that *score* wants."""
        named = self._named.get(score)
        wanted = named.wanted.values() if named is not None else ()
        return frozenset(key for each in wanted for key in each.exclusive)
