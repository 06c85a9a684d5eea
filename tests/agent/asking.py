"""Asking a device by hand: signs and sends, and reads the answer frame by frame."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import attrs
from nats.aio.subscription import Subscription

from harmony_core.change import Change
from harmony_core.errors import WriteFailed
from harmony_core.logs import LogLine
from harmony_core.resources import File
from harmony_core.testing import FakeFiles
from harmony_core.wire.envelope import Signer
from harmony_core.wire.replies import Alive, End, Failed, Frame, Item, from_frame
from harmony_core.wire.requests import Ask, Request, new_request, seal_request
from tests.agent.rig import Rig
from tests.nats import worked_off

__all__ = ["Answer", "Asker", "LoggingFiles", "asker"]

WITHIN_S = 20.0


@attrs.frozen
class Answer:
    """All frames of one answer."""

    frames: Sequence[Frame]

    @property
    def items(self) -> list[Any]:
        """What it tells, if it is complete and in order."""
        assert isinstance(self.frames[-1], End), self.frames[-1]
        return self.told

    @property
    def told(self) -> list[Any]:
        """What it tells, whether that is all or not."""
        assert [frame.seq for frame in self.frames] == list(range(len(self.frames)))
        return [frame.item for frame in self.frames if isinstance(frame, Item)]

    @property
    def code(self) -> str:
        """Why it ends early."""
        assert isinstance(self.frames[-1], Failed), self.frames[-1]
        return self.frames[-1].error.code


@attrs.frozen
class Listening:
    """One answer, while it comes."""

    subscription: Subscription

    async def frame(self, *, within_s: float = WITHIN_S) -> Frame:
        return from_frame((await self.subscription.next_msg(timeout=within_s)).data)

    async def item(self) -> Any:
        """The next item; that somebody is alive is passed over."""
        while isinstance(frame := await self.frame(), Alive):
            pass
        assert isinstance(frame, Item), frame
        return frame.item

    async def rest(self) -> Answer:
        """All frames from here to the end."""
        frames = [await self.frame()]
        while not isinstance(frames[-1], End | Failed):
            frames.append(await self.frame())
        return Answer(frames)


@attrs.frozen
class Asker:
    """The control plane, by hand."""

    rig: Rig
    key: Signer

    def request(self, ask: Ask, **changes: Any) -> Request:
        made = new_request(ask, fleet="home", agent_id="pi-1", now=datetime.now(UTC))
        return made.model_copy(update=changes)

    async def ask(self, ask: Ask, **changes: Any) -> Answer:
        """The whole answer."""
        async with self.listening(ask, **changes) as answer:
            return await answer.rest()

    @asynccontextmanager
    async def listening(self, ask: Ask, **changes: Any) -> AsyncGenerator[Listening]:
        """The answer to *ask*, from its first frame on."""
        request = self.request(ask, **changes)
        async with self.waiting(request.nonce) as answer:
            await self.send(seal_request(request, self.key))
            yield answer

    @asynccontextmanager
    async def waiting(self, nonce: str) -> AsyncGenerator[Listening]:
        """Whatever is answered to *nonce*."""
        admin = self.rig.bus.admin
        subscription = await admin.subscribe(f"harmony.reply.pi-1.{nonce}")  # pyright: ignore[reportUnknownMemberType] - nats-py's own
        await worked_off(admin)
        yield Listening(subscription)
        await subscription.unsubscribe()

    async def send(self, envelope: bytes) -> None:
        await self.rig.bus.admin.publish("harmony.mail.pi-1.request", envelope)


async def asker(rig: Rig) -> Asker:
    """For a rig whose agent has begun: it listens to requests when this returns."""
    async with asyncio.timeout(WITHIN_S):
        while await rig.state() is None:
            await asyncio.sleep(0.01)
    return Asker(rig, rig.key)


class LoggingFiles(FakeFiles):
    """Files that log: what a test says they do."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, list[LogLine]] = {}
        self.error: Exception | None = None
        self.hangs = False
        self.full = False

    async def converge(
        self, resources: Sequence[File], *, apply: bool
    ) -> Sequence[Change | Exception]:
        if self.full:
            return [WriteFailed("no space left", resource=each.id) for each in resources]
        return await super().converge(resources, apply=apply)

    def log(self, key: str, *texts: str, at: datetime | None = None) -> None:
        kept = self.lines.setdefault(key, [])
        for text in texts:
            kept.append(
                LogLine(
                    at=at or datetime.now(UTC), text=text, stream="out", cursor=f"c={len(kept)}"
                )
            )

    async def logs(
        self, key: str, *, lines: int, since: datetime | None = None, after: str | None = None
    ) -> Sequence[LogLine]:
        if self.hangs:
            await asyncio.sleep(3600)
        if self.error is not None:
            raise self.error
        kept = self.lines.get(key, [])
        if after is not None:
            return kept[int(after.removeprefix("c=")) + 1 :][:lines]
        return [each for each in kept if since is None or each.at >= since][-lines:]
