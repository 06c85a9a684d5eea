"""Answers devices that come with an invitation, or ask for another JWT, for as long as the server runs.

What becomes of a request is decided by `harmony_control.invitations`, on the disk of the server's home; here
is only the way there and back. Nothing that a stranger sends ends it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from harmony_control.bus.connection import bus_errors
from harmony_control.invitations import admit, renew
from harmony_control.store.home import Home
from harmony_core.errors import HarmonyError
from harmony_core.wire.enrolment import EnrolAnswer
from harmony_core.wire.names import ENROL_SUBJECT, RENEW_SUBJECT

from .beside import running_beside

__all__ = ["keeping_the_door"]

log = logging.getLogger(__name__)

_WAITING_MOST = 64
_WAITING_BYTES = 1024 * 1024


class _Queue:
    """Who waits for an answer, in turn by subject, which is an invitation's or a device's own: however many
    come on one, each other has its turn.

    Those on one subject that are more than can wait are forgotten; who is not answered asks again.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Msg]] = {}
        self._is_any = asyncio.Event()

    def put(self, message: Msg) -> None:
        waiting = self._waiting.setdefault(message.subject, deque(maxlen=_WAITING_MOST))
        waiting.append(message)
        self._is_any.set()

    async def get(self) -> Msg:
        await self._is_any.wait()
        subject, waiting = next(iter(self._waiting.items()))
        message = waiting.popleft()
        # To the end of the row, if there is more.
        del self._waiting[subject]
        if waiting:
            self._waiting[subject] = waiting
        elif not self._waiting:
            self._is_any.clear()
        return message


@asynccontextmanager
async def keeping_the_door(home: Home, client: Client) -> AsyncGenerator[None]:
    """Answer, within the block, those who ask to be enrolled."""
    requests = _Queue()
    await _subscribe(client, requests)
    async with running_beside(_answer_all(home, requests), name="door"):
        yield


async def _subscribe(client: Client, requests: _Queue) -> None:
    async def note(message: Msg) -> None:
        requests.put(message)

    with bus_errors("waiting for devices that want to be let in"):
        for subject in (ENROL_SUBJECT, RENEW_SUBJECT):
            await client.subscribe(  # pyright: ignore[reportUnknownMemberType] - nats-py's own
                f"{subject}.*", cb=note, pending_bytes_limit=_WAITING_BYTES
            )
        await client.flush()


async def _answer_all(home: Home, requests: _Queue) -> None:
    while True:
        message = await requests.get()
        try:
            answer = await asyncio.to_thread(_answer, home, message)
        except HarmonyError as error:
            log.error("a device could not be let in: %s", error.message)  # noqa: TRY400 - it says it all
            answer = EnrolAnswer(
                status="refused", message="the server could not do it; its log says why"
            )
        except Exception:
            log.exception("a defect: a device could not be let in")
            answer = EnrolAnswer(
                status="refused", message="the server has met a defect; see its log"
            )
        with suppress(NatsError, OSError):
            await message.respond(answer.to_json())


def _answer(home: Home, message: Msg) -> EnrolAnswer:
    asked, _, who = message.subject.rpartition(".")
    return renew(home, who) if asked == RENEW_SUBJECT else admit(home, who, message.data)
