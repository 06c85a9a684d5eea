"""What all fakes have in common: whether they are available, and who is told of what they change.

Told at once, in the midst of whatever changes it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from harmony_core.reconciler import Availability, OnChange

__all__ = ["FakeReconciler", "FakeWatch"]


class FakeWatch:
    """What `Reconciler.watch` and `close` do, over nothing but memory."""

    def __init__(self) -> None:
        self._keys: frozenset[str] = frozenset()
        self._on_change: OnChange | None = None

    def watch(self, keys: Collection[str], on_change: OnChange) -> None:
        self._keys, self._on_change = frozenset(keys), on_change

    def close(self) -> None:
        self._on_change = None

    def tell(self, *keys: str) -> None:
        """Tell that each of *keys* that is watched has changed."""
        for key in keys:
            if key in self._keys and self._on_change is not None:
                self._on_change(key)

    def tell_at(self, path: str) -> None:
        """Tell that the path, or what is below it, has changed."""
        self.tell(*(key for key in sorted(self._keys) if key == path or key.startswith(f"{path}/")))

    def tell_where(self, is_it: Callable[[str], bool]) -> None:
        """Tell that each watched key of which *is_it* is true has changed."""
        self.tell(*filter(is_it, sorted(self._keys)))

    def tell_all(self) -> None:
        """Tell that whatever is watched may have changed."""
        self.tell(*sorted(self._keys))

    def lose_events(self) -> None:
        """Tell that changes were missed, and not which."""
        if self._on_change is not None:
            self._on_change(None)


class FakeReconciler:
    """The verbs of a `Reconciler` that are the same in each fake."""

    def __init__(self) -> None:
        self.availability_now = Availability(available=True)
        self._watch = FakeWatch()

    async def availability(self) -> Availability:
        """Return ``availability_now``."""
        return self.availability_now

    async def watch(self, keys: Collection[str], on_change: OnChange) -> None:
        """Watch *keys*; tell changes at once."""
        self._watch.watch(keys, on_change)

    async def close(self) -> None:
        self._watch.close()

    def lose_events(self) -> None:
        """Lose events, as when too much happens or the bus hangs up: only that is told."""
        self._watch.lose_events()
