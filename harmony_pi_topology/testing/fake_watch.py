"""Who is to be told of what, in a fake. Told at once, in the midst of whatever changes it."""

from __future__ import annotations

from collections.abc import Collection

from harmony_core.reconciler import OnChange

__all__ = ["FakeWatch"]


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
        """Each of *keys* that is watched has changed."""
        for key in keys:
            if key in self._keys and self._on_change is not None:
                self._on_change(key)

    def tell_at(self, path: str) -> None:
        """The path, or what is below it, has changed."""
        self.tell(*(key for key in sorted(self._keys) if key == path or key.startswith(f"{path}/")))

    def tell_all(self) -> None:
        """Whatever is watched may have changed."""
        self.tell(*sorted(self._keys))

    def lose_events(self) -> None:
        """Nobody knows what has changed."""
        if self._on_change is not None:
            self._on_change(None)
