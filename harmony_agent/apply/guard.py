"""Turn whatever one Score's turn raises into that Score's FAILURE, which is reported and tried again.

    work(score) -> raised, whatever it was -> InternalError (or what Harmony calls it) -> its status -> Retry

What is expected has its Outcome long before this (`.controller`, `.removal`). This is for what nobody
expected, on whatever path: no status keeps telling of the past because something went past it, and
nothing is left alone because it failed once.
"""

from __future__ import annotations

import asyncio
import logging

import attrs

from harmony_agent.clock import timestamp
from harmony_agent.store.desired import Desired
from harmony_agent.store.status import StatusStore
from harmony_core.interpretation import failure_of
from harmony_core.outcome import Failure
from harmony_core.unexpected import as_harmony_error, is_cancelled_by_others

from .queue import Next, Retry, Work, WorkQueue

__all__ = ["Guarded"]

log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class Guarded:
    """*do*, as the queue calls it, which now raises nothing but a cancellation that somebody asked for."""

    do: Work
    desired: Desired
    statuses: StatusStore

    async def work(self, score: str, queue: WorkQueue) -> Next:
        """Take one turn for *score*."""
        try:
            return await self.do(score, queue)
        except asyncio.CancelledError as error:
            if is_cancelled_by_others():
                raise
            return self._fail(score, error, queue)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - that is what this is for
            return self._fail(score, error, queue)

    def _fail(self, score: str, raised: BaseException, queue: WorkQueue) -> Next:
        """Enter the FAILURE of *score*, wanted or not, and say when it is tried again."""
        log.error("looking at %s failed", score, exc_info=raised)
        wait_s = queue.next_backoff_s(score)
        outcome = failure_of(as_harmony_error(raised)).outcome
        assert isinstance(outcome, Failure)
        retry_at = timestamp(in_s=wait_s)
        outcome = attrs.evolve(outcome, error=attrs.evolve(outcome.error, retry_at=retry_at))
        entry = self.desired.entries.get(score)
        if entry is None:
            self.statuses.enter_removal_failure(score, outcome)
        else:
            self.statuses.enter(
                entry,
                outcome,
                generation=self.desired.generation_of(score),
                attempts=queue.attempts(score) + 1,
                states=None,
            )
        return Retry(wait_s)
