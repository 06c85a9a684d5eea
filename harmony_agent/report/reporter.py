"""Report every status to the control plane, soon but not often, and make it durable.

A burst of Scores is one report. What matters goes at once; progress at most once a second; counters alone
every five minutes; nothing new, nothing sent. Without a connection each status is only stored, and the
newest is reported once on return. What was changed on the device is durable before it is reported, so
that nothing reported is ever forgotten; where nothing was, the report goes first.
"""

from __future__ import annotations

import logging
import math

import attrs

from harmony_agent.apply.queue import WorkQueue
from harmony_agent.bus.connection import Bus
from harmony_agent.clock import monotonic_s, wait_until
from harmony_agent.store.event_chain import EventChain
from harmony_agent.store.report_due import AT_ONCE_S
from harmony_agent.store.score_status import has_converged, is_ready
from harmony_agent.store.status import StatusStore
from harmony_core.errors import BusUnreachable, LedgerUnusable
from harmony_core.outcome import Failure
from harmony_core.wire.actual_state import ActualState, ScoreStatus, to_json
from harmony_core.wire.replies import cut_for_wire

__all__ = ["Reporter", "fit"]

log = logging.getLogger(__name__)

BURST_S = 0.25
MOST_BYTES = 255 * 1024
"""Below the bucket's 256 KiB, in which the message's headers count too."""
RESOURCES_LISTED = 32
_WORDS_BYTES = 64
_SAVE_AGAIN_S = 1.0
_TELL_AGAIN_S = 1.0


class Reporter:
    """Reports whatever is new in the statuses to the bus."""

    def __init__(
        self, statuses: StatusStore, chain: EventChain, bus: Bus, queue: WorkQueue
    ) -> None:
        self._statuses = statuses
        self._chain = chain
        self._bus = bus
        self._queue = queue
        self._told_at = 0.0
        self._refusal = ""
        """Why the last report was not taken; empty where it was."""

    def tell_again(self) -> None:
        """Report again, because there is a new connection: earlier reports may be lost there, or not have
        arrived."""
        self._statuses.due.mark_again(AT_ONCE_S)

    async def run(self) -> None:
        """Report until cancelled; then store what was not stored yet."""
        try:
            while True:
                await self._until_news()
                await self._queue.wait_idle(within_s=BURST_S)
                await self._report()
        finally:
            await self._save()

    async def _until_news(self) -> None:
        while True:
            due_s = self._told_at + self._statuses.due.gap_s
            if due_s <= monotonic_s():
                return
            marked = self._statuses.due.marked
            marked.clear()
            if not await wait_until(marked, latest_s=None if math.isinf(due_s) else due_s):
                return

    async def _report(self) -> None:
        self._told_at = monotonic_s()
        state = self._statuses.compose()
        if self._statuses.writer.is_saved_first:
            await self._save()
            await self._tell(state)
        else:
            await self._tell(state)
            await self._save()

    async def _tell(self, state: ActualState) -> None:
        if not self._bus.up:
            return
        try:
            # Not before: what was saved for this report is told by it.
            await self._bus.tell(fit(attrs.evolve(state, audit=self._chain.durable)))
        except BusUnreachable as error:
            if error.message != self._refusal:
                log.warning("%s", error.message)
            self._refusal = error.message
            self._statuses.due.mark_again(_TELL_AGAIN_S)
        else:
            self._refusal = ""

    async def _save(self) -> None:
        try:
            await self._statuses.writer.save()
        except LedgerUnusable as error:
            if self._statuses.device.set_unwritable(error):
                log.error("%s", error.message)  # noqa: TRY400 - the message says it all
            self._statuses.due.mark_again(_SAVE_AGAIN_S)
        else:
            self._statuses.device.set_unwritable(None)


def fit(state: ActualState) -> bytes:
    """Return *state* as JSON, small enough for the bucket.

    A Score with many resources lists those that are not as desired; if that is not enough, leave out the
    resources of converged Scores, then those of all, and then all but a few words of each message;
    ``truncated`` says so.
    """
    scores = {name: _list_unready(status) for name, status in state.scores.items()}
    data = to_json(attrs.evolve(state, scores=scores))
    for shorter in (_without_resources_if_converged, _without_resources, _shorten):
        if len(data) <= MOST_BYTES:
            break
        scores = {name: shorter(status) for name, status in scores.items()}
        data = to_json(attrs.evolve(state, scores=scores, truncated=True))
    return data


def _list_unready(status: ScoreStatus) -> ScoreStatus:
    if status.resources_total <= RESOURCES_LISTED:
        return status
    if has_converged(status.outcome):
        return _without_resources(status)
    # What the failure names may look well by itself, and be otherwise than wanted.
    named = status.outcome.error.resource if isinstance(status.outcome, Failure) else None
    left = {
        rid: told for rid, told in status.resources.items() if rid == named or not is_ready(told)
    }
    return attrs.evolve(status, resources=left)


def _without_resources_if_converged(status: ScoreStatus) -> ScoreStatus:
    return _without_resources(status) if has_converged(status.outcome) else status


def _without_resources(status: ScoreStatus) -> ScoreStatus:
    return attrs.evolve(status, resources={})


def _shorten(status: ScoreStatus) -> ScoreStatus:
    """Return *status* in so few bytes that one message has room for as many as a manifest may have."""
    outcome = attrs.evolve(
        status.outcome, message=cut_for_wire(status.outcome.message, _WORDS_BYTES)
    )
    if isinstance(outcome, Failure):
        error = outcome.error
        message = cut_for_wire(error.message, _WORDS_BYTES)
        error = attrs.evolve(error, message=message, resource=None)
        outcome = attrs.evolve(outcome, error=error, message="")
    return attrs.evolve(status, outcome=outcome, last_drift=None, looked_at=None)
