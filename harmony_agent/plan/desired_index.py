"""The index of what is desired: which resources the newest plan of each Score names, and under which names.

It lives as long as one manifest. Of a plan that broke off, what it has not come to is *open*: it may be
desired or not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping

import attrs

from harmony_core.claims import collide, names_of, slot_of
from harmony_core.resources import Resource
from harmony_core.wire.manifest import SerializedScore

__all__ = ["DesiredIndex"]


@attrs.frozen
class _PlannedResources:
    """What one plan names, what of it it wants and does not only look at, and whether that is all."""

    ids: Collection[str]
    wanted: Mapping[str, Resource]
    completed: bool


class DesiredIndex:
    """Whatever is asked of a Score that the manifest does not have, it wants nothing."""

    def __init__(self, entries: Iterable[SerializedScore] = ()) -> None:
        self._entries = {entry.id: entry for entry in entries}
        self._places = {score: place for place, score in enumerate(self._entries)}
        self._named: dict[str, _PlannedResources] = {}
        self._identities: defaultdict[str, dict[str, frozenset[str]]] = defaultdict(dict)
        """The other names by which the device knows what a Score wants, by resource id."""
        self._known_as: defaultdict[str, set[tuple[str, str, str]]] = defaultdict(set)
        """The same from the other side: Score, resource id and name, by the slot of each such name."""

    def note(
        self,
        score: str,
        ids: Collection[str],
        wanted: Mapping[str, Resource],
        identities: Mapping[str, frozenset[str]],
        *,
        completed: bool,
    ) -> None:
        """Note what *score* was found to name, and what of it to want; *completed*: and nothing else."""
        if score in self._entries:
            self._named[score] = _PlannedResources(ids, wanted, completed)
            for gone in self._identities[score].keys() - wanted.keys():
                self.identify(score, {gone: frozenset()})
            self.identify(score, identities)

    def identify(self, score: str, identities: Mapping[str, frozenset[str]]) -> None:
        """Note by which other names the device knows what *score* wants, by resource id."""
        known = self._identities[score]
        for rid, keys in identities.items():
            for key in known.pop(rid, frozenset()):
                self._known_as[slot_of(key)].discard((score, rid, key))
            for key in keys:
                self._known_as[slot_of(key)].add((score, rid, key))
            if keys:
                known[rid] = keys

    def place(self, score: str) -> int:
        """Return the position of *score* in the manifest; Scores that are not in it come last."""
        return self._places.get(score, len(self._places))

    def after(self, score: str) -> Collection[str]:
        """Return the Scores for which it waits."""
        entry = self._entries.get(score)
        return entry.after if entry is not None else ()

    def is_open(self, score: str, rid: str) -> bool:
        """Return whether it is not known yet if *score* names this."""
        named = self._named.get(score)
        if named is None:
            return score in self._entries
        return not named.completed and rid not in named.ids

    def names(self, score: str, rid: str) -> bool:
        """Return whether *score* wants this, or looks at it."""
        named = self._named.get(score)
        return named is not None and rid in named.ids

    def of(self, score: str, rid: str) -> Resource | None:
        """Return the resource that *score* wants under this id; None where it does not want it, or only looks
        at it."""
        named = self._named.get(score)
        return named.wanted.get(rid) if named is not None else None

    def wanting(self, rid: str) -> set[str]:
        """Return every Score that wants this."""
        return {score for score, named in self._named.items() if rid in named.wanted}

    def keys(self, score: str) -> Iterator[tuple[str, str]]:
        """Yield all that *score* claims, such as a port, each with the id of what claims it."""
        if (named := self._named.get(score)) is not None:
            for rid, resource in named.wanted.items():
                for key in self.keys_of(score, resource):
                    yield rid, key

    def keys_of(self, score: str, resource: Resource) -> frozenset[str]:
        """Return all that *resource* claims when *score* wants it: its id, its keys and its other names."""
        others = self._identities.get(score, {}).get(resource.id, frozenset())
        return frozenset(names_of(resource.id)) | resource.exclusive | others

    def identities(self, score: str) -> Mapping[str, frozenset[str]]:
        """Return the other names by which the device knows what *score* wants, by resource id."""
        return self._identities.get(score, {})

    def known_as(self, key: str) -> Collection[tuple[str, str]]:
        """Return Score and resource id of all that are wanted and that the device knows by a name that
        conflicts with *key*."""
        known = self._known_as.get(slot_of(key), ())
        return {(score, rid) for score, rid, other in known if collide(key, other)}
