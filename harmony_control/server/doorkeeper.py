"""Answers devices that come with an invitation, for as long as the server runs.

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
from harmony_control.invitations import admit
from harmony_control.store.home import Home
from harmony_core.errors import HarmonyError
from harmony_core.wire.enrolment import EnrolAnswer
from harmony_core.wire.names import ENROL_SUBJECT

from .beside import running_beside

__all__ = ["keeping_the_door"]

log = logging.getLogger(__name__)

_WAITING_MOST = 64
_WAITING_BYTES = 1024 * 1024


class _Queue:
    """Who waits for an answer, in turn by invitation: however many come with one, each other has its turn.

    Those with one invitation that are more than can wait are forgotten; who is not answered asks again.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Msg]] = {}
        self._is_any = asyncio.Event()

    def put(self, invitation: str, message: Msg) -> None:
        waiting = self._waiting.setdefault(invitation, deque(maxlen=_WAITING_MOST))
        waiting.append(message)
        self._is_any.set()

    async def get(self) -> tuple[str, Msg]:
        await self._is_any.wait()
        invitation, waiting = next(iter(self._waiting.items()))
        message = waiting.popleft()
        # To the end of the row, if there is more.
        del self._waiting[invitation]
        if waiting:
            self._waiting[invitation] = waiting
        elif not self._waiting:
            self._is_any.clear()
        return invitation, message


@asynccontextmanager
async def keeping_the_door(home: Home, client: Client) -> AsyncGenerator[None]:
    """Answer, within the block, who asks to be let in."""
    requests = _Queue()
    await _subscribe(client, requests)
    async with running_beside(_answer_all(home, requests), name="door"):
        yield


async def _subscribe(client: Client, requests: _Queue) -> None:
    async def note(message: Msg) -> None:
        requests.put(message.subject.rpartition(".")[2], message)

    with bus_errors("waiting for devices that want to be let in"):
        await client.subscribe(  # pyright: ignore[reportUnknownMemberType] - nats-py's own
            f"{ENROL_SUBJECT}.*", cb=note, pending_bytes_limit=_WAITING_BYTES
        )
        await client.flush()


async def _answer_all(home: Home, requests: _Queue) -> None:
    while True:
        invitation, message = await requests.get()
        try:
            answer = await asyncio.to_thread(admit, home, invitation, message.data)
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
