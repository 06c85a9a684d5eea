"""Waiting for Outcomes: watching one device's `actual-state`, from before the push until it is settled.

By an ordered consumer, which begins with the newest value and then tells every write that was accepted.
A plain subscription to the subject would also show writes that the compare-and-swap refused.
"""

# nats-py's own signatures are partly untyped; what crosses this seam is typed below.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager

import attrs
from nats.aio.client import Client
from nats.js.api import ConsumerConfig, DeliverPolicy
from nats.js.client import JetStreamContext

from harmony_core.actual_state import ActualState, ScoreState, from_json
from harmony_core.manifest import SerializedScore
from harmony_core.outcome import Failure, Noop, Running, Success

from ._nats import bus_errors

__all__ = ["Wanted", "awaited_with", "watching"]


@attrs.frozen(kw_only=True)
class Wanted:
    """What is waited for: these Scores looked at, and those gone, since *generation*."""

    generation: int
    present: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()

    def pages(self, state: ActualState | None) -> Mapping[str, ScoreState]:
        """What is known of the Scores waited for, as of this generation."""
        if state is None:
            return {}
        return {
            name: page
            for name, page in state.scores.items()
            if name in self.present | self.absent and page.observed_generation >= self.generation
        }

    def is_settled(self, state: ActualState | None) -> bool:
        """Whether nothing of it is under way any more. A failure settles, even if it is tried again:
        whoever waits wants to know now."""
        if state is None or state.generation < self.generation:
            return False
        pages = self.pages(state)
        if self.absent & state.scores.keys():
            return False
        if failed := {n for n, page in pages.items() if isinstance(page.outcome, Failure)}:
            return all(n in failed or _settled_or_blocked(pages.get(n)) for n in self.present)
        return all(
            n in pages and isinstance(pages[n].outcome, Success | Noop) for n in self.present
        )


def _settled_or_blocked(page: ScoreState | None) -> bool:
    if page is None:
        return False
    outcome = page.outcome
    return not isinstance(outcome, Running) or outcome.reason == "Blocked"


def awaited_with(ids: Collection[str], entries: Mapping[str, SerializedScore]) -> frozenset[str]:
    """*ids* and everything that they wait for, directly or not."""
    found: set[str] = set()
    left = list(ids)
    while left:
        name = left.pop()
        if name in entries and name not in found:
            found.add(name)
            left += entries[name].after
    return frozenset(found)


@asynccontextmanager
async def watching(client: Client, agent_id: str) -> AsyncGenerator[AsyncIterator[ActualState]]:
    """Every state that the device reports (``*`` for all devices), the newest first of all."""
    with bus_errors(f"watching actual-state.{agent_id}"):
        subscription = await JetStreamContext(client).subscribe(
            f"$KV.actual-state.{agent_id}",
            stream="KV_actual-state",
            ordered_consumer=True,
            config=ConsumerConfig(deliver_policy=DeliverPolicy.LAST_PER_SUBJECT),
        )

    async def states() -> AsyncIterator[ActualState]:
        async for message in subscription.messages:
            if message.data:
                yield from_json(message.data, ActualState)

    try:
        yield states()
    finally:
        with bus_errors("ending the watch"):
            if not client.is_closed:
                await subscription.unsubscribe()
