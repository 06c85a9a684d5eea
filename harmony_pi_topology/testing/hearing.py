"""Somebody who is told of changes: what a test of `Reconciler.watch` listens with."""

from __future__ import annotations

import asyncio

__all__ = ["Hearer"]

_WITHIN_S = 20.0
_TURNS = 20


class Hearer:
    """Give it to `Reconciler.watch`. Remembers what it was told, in order, until it is asked."""

    def __init__(self, *, within_s: float = _WITHIN_S) -> None:
        self._within_s = within_s
        self.heard: list[str | None] = []
        self._news = asyncio.Event()

    def __call__(self, key: str | None) -> None:
        self.heard.append(key)
        self._news.set()

    async def hears(self, key: str, *, never: str | None = None) -> None:
        """Wait until told of *key*, or that everything may have changed; then remember nothing more.

        Raises AssertionError when it is not told, or told of *never* before.
        """
        try:
            async with asyncio.timeout(self._within_s):
                while not {key, None}.intersection(self.heard):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"not told of {key}, only of {self.heard}") from None
        assert never is None or never not in self.heard
        self.heard.clear()

    async def is_at_rest(self) -> None:
        """Let the loop turn often enough that all that can be told by now has been."""
        for _ in range(_TURNS):
            await asyncio.sleep(0)
