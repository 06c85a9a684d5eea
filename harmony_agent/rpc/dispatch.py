"""Answer one request: from its bytes to the end of its answer.

    envelope -> verify -> (not meant for us: dropped without a word)
             -> accept -> (too late, unknown, too many at once: told)
             -> answer, item by item, in bounded time

Beside the work queue, and never in its way. At most `ANSWERED_AT_ONCE` at a time; what is only followed
makes way for who comes next, since its reader just asks again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta
from functools import partial

import attrs

from harmony_agent.clock import monotonic_s
from harmony_core.errors import (
    BusUnreachable,
    HarmonyError,
    RequestError,
    RequestReplayed,
    TooManyRequests,
    WireError,
)
from harmony_core.wire.replies import JsonItem
from harmony_core.wire.requests import (
    Ask,
    Asked,
    Diff,
    Events,
    Logs,
    Nonces,
    Reconcile,
    accept_request,
    open_request,
)

from .stream import Reply

__all__ = ["ANSWERED_AT_ONCE", "ANSWERED_WITHIN_S", "DONE_WITHIN_S", "FOLLOWED_FOR_S", "Answering"]

log = logging.getLogger(__name__)

ANSWERED_AT_ONCE = 8
FOLLOWED_FOR_S = 30.0
"""Who still reads then asks again; who does not has gone."""
ANSWERED_WITHIN_S = 60.0
DONE_WITHIN_S = 300.0
"""What takes as long as interpreting takes."""


@attrs.define(eq=False)
class _Answer:
    """One that is under way."""

    reply: Reply
    ask: Ask
    keyids: Sequence[str]
    """Who has signed it."""
    deadline: asyncio.Timeout

    @property
    def is_followed(self) -> bool:
        return isinstance(self.ask, Logs | Events) and self.ask.follow

    def make_way(self) -> None:
        """End now, if it has not ended already."""
        with suppress(RuntimeError):
            self.deadline.reschedule(monotonic_s())


class Answering:
    """Answers requests to *agent_id* that one of the keys has signed that are *trusted* now.

    *send* puts a frame of the answer to a nonce on its way, *items* makes the answers, and is told who
    asks. *vouched_for* are times that have certainly passed; *started_s* is when this agent has started, by
    the loop's clock.
    """

    def __init__(
        self,
        *,
        send: Callable[[str, bytes], Awaitable[None]],
        items: Callable[[Ask, Sequence[str]], AsyncGenerator[JsonItem]],
        vouched_for: Callable[[], Sequence[datetime]],
        trusted: Callable[[], Mapping[str, bytes]],
        fleet: str,
        agent_id: str,
        started_s: float,
    ) -> None:
        self._send = send
        self._items = items
        self._vouched_for = vouched_for
        self._trusted = trusted
        self._fleet = fleet
        self._agent_id = agent_id
        self._started_s = started_s
        self._nonces = Nonces()
        self._under_way: list[_Answer] = []

    def take(self, envelope: bytes, tasks: asyncio.TaskGroup) -> bool:
        """Answer *envelope* in one of *tasks*; False if it is no request to this device. Raises nothing."""
        try:
            asked = open_request(
                envelope, trusted=self._trusted(), fleet=self._fleet, agent_id=self._agent_id
            )
        except (WireError, RequestError) as error:
            log.debug("a request is dropped: %s", error.message)
            return False
        reply = Reply(partial(self._send, asked.request.nonce))
        try:
            answer = self._admit(asked, reply)
        except RequestReplayed as error:
            log.debug("a request is dropped: %s", error.message)
            return False
        except RequestError as error:
            tasks.create_task(_refuse(reply, error))
        else:
            tasks.create_task(self._answer(answer), name=f"answer {asked.request.verb}")
        return True

    def _admit(self, asked: Asked, reply: Reply) -> _Answer:
        now = datetime.now(UTC)
        ask = accept_request(
            asked,
            nonces=self._nonces,
            now=now,
            vouched_for=self._vouched_for(),
            # By how long ago it was, since the clock may have been set meanwhile.
            started_at=now - timedelta(seconds=monotonic_s() - self._started_s),
        )
        self._make_way()
        answer = _Answer(reply, ask, asked.keyids, asyncio.timeout(_within_s(ask)))
        self._under_way.append(answer)
        return answer

    def _make_way(self) -> None:
        if len(self._under_way) < ANSWERED_AT_ONCE:
            return
        followed = next((each for each in self._under_way if each.is_followed), None)
        if followed is None:
            raise TooManyRequests(
                f"{ANSWERED_AT_ONCE} requests are being answered; ask again in a moment"
            )
        self._under_way.remove(followed)
        followed.make_way()

    async def _answer(self, answer: _Answer) -> None:
        try:
            await self._answer_one(answer)
        except BusUnreachable as error:
            log.info("an answer ends early: %s", error.message)
        finally:
            if answer in self._under_way:
                self._under_way.remove(answer)

    async def _answer_one(self, answer: _Answer) -> None:
        reply = answer.reply
        try:
            await self._send_items(answer)
        except BusUnreachable:
            raise  # there is nobody to tell
        except HarmonyError as error:
            await reply.refuse(error)
        except Exception as error:
            log.exception("a request could not be answered")
            what = f"{type(error).__name__}: {error}; a defect, see the agent's journal"
            await reply.fail("Defect", what)
        else:
            if answer.deadline.expired() and not answer.is_followed:
                what = f"not answered within {_within_s(answer.ask):g} s; ask for less, or again"
                await reply.fail("TimedOut", what)
            else:
                await reply.end()

    async def _send_items(self, answer: _Answer) -> None:
        """Tell all items; returns early when the time is up."""
        try:
            async with answer.deadline, answer.reply.keep_alive():
                await answer.reply.alive()
                async with aclosing(self._items(answer.ask, answer.keyids)) as items:
                    async for item in items:
                        await answer.reply.item(item)
        except TimeoutError:
            if not answer.deadline.expired():
                raise


async def _refuse(reply: Reply, error: RequestError) -> None:
    try:
        await reply.refuse(error)
    except BusUnreachable as silence:
        log.info("a request is not answered: %s", silence.message)


def _within_s(ask: Ask) -> float:
    match ask:
        case Logs(follow=True) | Events(follow=True):
            return FOLLOWED_FOR_S
        case Reconcile() | Diff():
            return DONE_WITHIN_S
        case _:
            return ANSWERED_WITHIN_S
