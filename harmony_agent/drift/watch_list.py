"""What is to be watched for whom: written where Scores run, read where their resources are watched."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator

__all__ = ["WatchList"]


class WatchList:
    """The resources that each Score has touched. `changed` is set whenever they are others than before."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self._touched: dict[str, frozenset[str]] = {}
        self._not_watched_yet: set[str] = set()
        """Scores that touched something before it was watched."""

    @property
    def scores(self) -> Collection[str]:
        return self._touched.keys()

    def update(self, score: str, resource_ids: Collection[str]) -> None:
        """Watch what *score* has touched, and nothing else for it."""
        ids = frozenset(resource_ids)
        before = self._touched.get(score, frozenset())
        if ids == before:
            return
        self._touched[score] = ids
        if ids - before:
            self._not_watched_yet.add(score)
        self.changed.set()

    def forget(self, score: str) -> None:
        """Watch nothing for *score* any more."""
        if self._touched.pop(score, None):
            self.changed.set()

    def pop_not_watched_yet(self) -> set[str]:
        """Return, once, the Scores that touched something before it was watched."""
        scores, self._not_watched_yet = self._not_watched_yet, set()
        return scores

    def keys_of(self, resource_type: str) -> Iterator[str]:
        """Yield the key of each resource of this type that is to be watched."""
        prefix = f"{resource_type}:"
        start = len(prefix)
        for ids in self._touched.values():
            yield from [rid[start:] for rid in ids if rid.startswith(prefix)]

    def touching(self, resource_id: str) -> list[str]:
        """Return the Scores that have touched this resource."""
        return [score for score, ids in self._touched.items() if resource_id in ids]
