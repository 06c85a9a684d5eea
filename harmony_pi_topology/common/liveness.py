"""Whether what was ready goes on answering: probed now and then, as long as it is watched.

    judged ready          -> probed every 10 s, by TCP or HTTP, past podman and systemd
      no answer, 3 times  -> told: its Score is looked at, and its Outcome says so
    judged not ready      -> probed every 10 s
      an answer           -> told: its Score comes back, whatever its back-off says

Who is told judges by a probe of its own, and says here what came of it. Nothing is written, and no daemon
is asked: a probe costs a connection. What somebody else checks already, as podman does by a command in a
container, is asked for no more often than that is done, and told at its first no.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from functools import partial
from typing import TypeAlias

import attrs

from harmony_core.reconciler import OnChange
from harmony_core.resources import Probe

from .probes import probe

__all__ = ["LIVENESS_EVERY_S", "Liveness"]

LIVENESS_EVERY_S = 10.0
_MISSED_MOST = 3
_SPREAD = 0.1


Ask: TypeAlias = Callable[[], Awaitable[bool]]
"""Asks whether something is still in order."""


@attrs.define
class _Probed:
    ask: Ask
    answers: bool
    missed_most: int = _MISSED_MOST
    every_s: float = 0.0
    """No sooner than after so many seconds."""
    asked_at_s: float = attrs.field(factory=time.monotonic)
    missed: int = 0


class Liveness:
    """The probes of one reconciler, by the keys of its resources."""

    def __init__(self, every_s: float = LIVENESS_EVERY_S) -> None:
        self._every_s = every_s
        self._probed: dict[str, _Probed] = {}
        self._watched: frozenset[str] = frozenset()
        self._on_change: OnChange | None = None
        self._task: asyncio.Task[None] | None = None

    def record_probe(self, key: str, what: Probe | None, *, address: str, answers: bool) -> None:
        """Record what a probe of *key* found just now; *what* is None where there is nothing to probe."""
        if what is None:
            self._probed.pop(key, None)
        else:
            self._probed[key] = _Probed(partial(_answers, what, address), answers)
            self._go_on()

    def record_check(self, key: str, ask: Ask, *, answers: bool, every_s: float) -> None:
        """Record the result of *ask* just now, which somebody else finds out every *every_s* seconds."""
        self._probed[key] = _Probed(ask, answers, missed_most=1, every_s=every_s)
        self._go_on()

    def forget(self, key: str) -> None:
        """Forget *key*, which is gone or being made again."""
        self._probed.pop(key, None)

    def watch(self, keys: Collection[str], on_change: OnChange) -> None:
        self._watched, self._on_change = frozenset(keys), on_change
        self._go_on()

    async def close(self) -> None:
        """Stop probing. Idempotent."""
        self._watched = frozenset()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def _go_on(self) -> None:
        if self._task is None and self._watched & self._probed.keys():
            self._task = asyncio.create_task(self._run(), name="liveness")

    async def _run(self) -> None:
        while keys := self._watched & self._probed.keys():
            await asyncio.sleep(self._every_s * random.uniform(1 - _SPREAD, 1 + _SPREAD))  # noqa: S311 - spreads load
            await asyncio.gather(*map(self._probe, keys))
        self._task = None

    async def _probe(self, key: str) -> None:
        if (this := self._probed.get(key)) is None:
            return
        if time.monotonic() < this.asked_at_s + this.every_s:
            return
        this.asked_at_s = time.monotonic()
        answered = await this.ask()
        if self._probed.get(key) is not this:
            return  # judged anew meanwhile
        this.missed = 0 if answered else this.missed + 1
        changed = answered if not this.answers else this.missed >= this.missed_most
        if changed and self._on_change is not None and key in self._watched:
            this.answers, this.missed = answered, 0
            self._on_change(key)


async def _answers(what: Probe, address: str) -> bool:
    return await probe(what, address=address) is None
