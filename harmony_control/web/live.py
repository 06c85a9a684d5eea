"""What is sent to who watches: the fleet's changes as server-sent events, at most four times a second, and
how its rollouts stand.

Nobody has a queue. Each watcher remembers the number of the change that it was told last, and is told
whatever has come since: a slow one gets fewer and larger parts, and costs no more memory.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager, aclosing, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol, TypeVar

import attrs

from harmony_control.cancelling import cancel_all
from harmony_control.fleet import DeviceRow
from harmony_control.rollout.all_classes import Rollouts
from harmony_core.errors import HarmonyError

from .board import Board
from .rollout_board import RolloutBoard

__all__ = [
    "Closing",
    "Live",
    "RolloutSource",
    "RowSource",
    "Seats",
    "TooManyWatchers",
    "event",
    "watch_fleet",
]

FRAME_S = 0.25
"""Between two parts that are sent; and how soon it is seen that the bus is away."""
ALIVE_S = 15.0
"""So often something is sent to who watches, or proxies would end what seems to be idle."""
_AGAIN_S = 2.0
LOOK_AGAIN_S = 2.0
"""Between two looks at all rollouts."""
T = TypeVar("T")
_LOG = logging.getLogger("harmony.web")


class RowSource(Protocol):
    """Where rows come from: a `Fleet`, or what stands for one in a test."""

    @property
    def is_connected(self) -> bool: ...
    def watch_rows(self) -> AbstractAsyncContextManager[AsyncIterator[list[DeviceRow]]]: ...


class RolloutSource(Protocol):
    """Where rollouts come from: a `Fleet`."""

    def follow_rollouts(self) -> AsyncGenerator[Rollouts]: ...


class TooManyWatchers(Exception):
    """As many watch as may at once."""


class Closing(Exception):
    """The server is to end."""


@attrs.define
class Seats:
    """How many may watch at once, in all and of one user."""

    most: int
    most_of_one: int
    _taken: dict[str, int] = attrs.field(factory=dict[str, int], init=False)

    @property
    def count(self) -> int:
        """How many are taken."""
        return sum(self._taken.values())

    def refuse_full(self, name: str) -> None:
        """Raise `TooManyWatchers` where there is no place for *name*."""
        if self._taken.get(name, 0) >= self.most_of_one or self.count >= self.most:
            raise TooManyWatchers

    @contextmanager
    def taking(self, name: str) -> Generator[None]:
        """Hold a place for *name* until the end of the block. `TooManyWatchers` where there is none."""
        self.refuse_full(name)
        self._taken[name] = self._taken.get(name, 0) + 1
        try:
            yield
        finally:
            left = self._taken.pop(name) - 1
            if left:
                self._taken[name] = left


class Live:
    """The boards, and the news of them."""

    def __init__(
        self, source: RowSource, board: Board, rollouts: RolloutSource | None = None
    ) -> None:
        """Follow devices, and *rollouts* if given."""
        self.board = board
        self.rollouts = RolloutBoard()
        self.problem = "the fleet is being read"
        """Why what is on the board may not be true any more; empty while it is."""
        self.read_at: datetime | None = None
        """When something was heard of a device last; None before anything was."""
        self._source = source
        self._rollout_source = rollouts
        self._look_again = asyncio.Event()
        self._news = asyncio.Event()
        self._closing = asyncio.Event()

    @property
    def is_closing(self) -> bool:
        """Whether every stream is to end."""
        return self._closing.is_set()

    def notify(self) -> None:
        """Wake everybody who watches."""
        self._news.set()
        self._news = asyncio.Event()

    def close(self) -> None:
        """Have every stream end. Idempotent."""
        self._closing.set()
        self.notify()

    async def unless_closing(self, asked: Coroutine[Any, Any, T]) -> T:
        """Return the result of *asked*. Raise `Closing` if the server is to end before: some devices take
        long."""
        task, closing = asyncio.create_task(asked), asyncio.create_task(self._closing.wait())
        try:
            await asyncio.wait([task, closing], return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Closing
            return task.result()
        finally:
            await cancel_all([task, closing])

    async def wait(self, timeout_s: float) -> None:
        """Return at the next news, or after that time."""
        news = self._news
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await news.wait()

    def look_again(self) -> None:
        """Look at the rollouts now: one of them was just changed."""
        self._look_again.set()

    async def run(self) -> None:
        """Take in what the sources say, until cancelled. Restart what fails."""
        tasks = [
            asyncio.create_task(self._look()),
            asyncio.create_task(self._again(self._follow, self._set_problem)),
        ]
        if (source := self._rollout_source) is not None:
            follow = partial(self._follow_rollouts, source)
            tasks.append(asyncio.create_task(self._again(follow, self._set_rollout_problem)))
        try:
            await asyncio.gather(*tasks)
        finally:
            await cancel_all(tasks)

    async def _again(
        self, follow: Callable[[], Coroutine[Any, Any, None]], tell: Callable[[str], None]
    ) -> None:
        while True:
            try:
                await follow()
                tell("the fleet's news have ended; they are begun again")
            except HarmonyError as error:
                tell(error.message)
            except Exception as error:  # noqa: BLE001 - see below
                # A defect there must not leave a page that looks alive.
                _LOG.exception("the fleet cannot be followed; it is begun again")
                tell(f"a defect in harmony: {type(error).__name__}: {error}")
            await asyncio.sleep(_AGAIN_S)

    async def _follow(self) -> None:
        is_first = True
        async with self._source.watch_rows() as changes:
            async for rows in changes:
                there = [each for each in rows if not each.is_gone]
                gone = {each.id for each in rows if each.is_gone}
                if is_first:
                    # They are all: who is not among them was taken out of the fleet meanwhile.
                    gone = self.board.ids - {each.id for each in there}
                is_first = False
                self.read_at = datetime.now(UTC)
                self._set_problem("")
                if self.board.take(there, gone):
                    self.notify()
                await asyncio.sleep(FRAME_S)

    async def _follow_rollouts(self, source: RolloutSource) -> None:
        async with aclosing(source.follow_rollouts()) as looks:
            async for found in looks:
                self._set_rollout_problem("")
                if self.rollouts.take(found):
                    self.notify()
                self._look_again.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_AGAIN_S):
                        await self._look_again.wait()

    async def _look(self) -> None:
        """Set the problem when the bus is away: then nothing changes any more, whatever happens outside."""
        was = True
        while True:
            now = self._source.is_connected
            if now != was:
                self._set_problem("" if now else "the message server is not reachable")
                was = now
            await asyncio.sleep(FRAME_S)

    def _set_rollout_problem(self, problem: str) -> None:
        if self.rollouts.set_problem(problem):
            self.notify()

    def _set_problem(self, problem: str) -> None:
        if problem != self.problem:
            self.problem = problem
            self.notify()


async def watch_fleet(
    live: Live, last: str | None, is_allowed: Callable[[], bool]
) -> AsyncGenerator[bytes]:
    """Yield the events of one watcher who has been told everything up to the tag *last*.

    ``changes`` with what came after; ``reset`` where that cannot be told: read the whole fleet anew;
    ``rollouts`` with all of them; ``source`` with the problem, or none, of where it comes from; ``alive``
    where there is nothing else.
    Ends when *is_allowed* says so.
    """
    board = live.board
    told = board.number if last is None else board.read_tag(last)
    if told is None:
        told = board.number
        yield event("reset", {}, board.tag)
    problem: str | None = None
    told_rollouts = -1
    while not live.is_closing and is_allowed():
        if live.problem != problem:
            problem = live.problem
            yield event("source", {"problem": problem})
        elif live.rollouts.number > told_rollouts:
            told_rollouts = live.rollouts.number
            yield event_of("rollouts", live.rollouts.to_json())
        elif board.number > told:
            changes = board.changes_since(told)
            told = board.number
            if changes is None:
                yield event("reset", {}, board.tag)
            else:
                yield event_of("changes", changes, board.tag)
        else:
            before = board.number, live.rollouts.number
            await live.wait(ALIVE_S)
            if (board.number, live.rollouts.number) == before and live.problem == problem:
                yield event("alive", {})


def event(name: str, data: object, tag: str | None = None) -> bytes:
    """Return one server-sent event."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    return event_of(name, text, tag)


def event_of(name: str, json_line: str, tag: str | None = None) -> bytes:
    """Return one server-sent event, as `event` does, from JSON text on one line."""
    numbered = f"id: {tag}\n" if tag else ""
    return f"{numbered}event: {name}\ndata: {json_line}\n\n".encode(errors="replace")
