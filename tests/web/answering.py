"""A device that answers requests with what a test says, signed as a device's answers are."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from harmony_core.wire.replies import Alive, End, Item, LoggedLine, to_frame, to_item
from tests.control.scripted_device import NOON
from tests.nats import Device

__all__ = ["answering", "log_of"]


@asynccontextmanager
async def answering(
    device: Device, answer: Callable[[dict[str, Any]], Sequence[Alive | Item | End]]
) -> AsyncGenerator[None]:
    """Answer each request by the frames that *answer* returns for it, until the end of the block."""
    asked = await device.subscribe(device.mail("request"))

    async def serve() -> None:
        async for message in asked.messages:
            request = json.loads(base64.b64decode(json.loads(message.data)["payload"]))
            for frame in answer(request):
                await device.reply(request["nonce"], to_frame(frame))

    task = asyncio.create_task(serve())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def log_of(text: str) -> Callable[[dict[str, Any]], Sequence[Alive | Item | End]]:
    """Return answers by which a Score has logged a full disk, and *text*; of all else there is nothing."""

    def answer(ask: dict[str, Any]) -> list[Alive | Item | End]:
        if ask["verb"] != "logs" or ask["args"]["after"]:
            return [Alive(seq=0, at=NOON), End(seq=1)]
        line = LoggedLine(
            resource="container:web",
            at=NOON,
            stream="stderr",
            text=f"the disk is full {text}",
            cursor="1",
        )
        return [Alive(seq=0, at=NOON), Item(seq=1, item=to_item(line)), End(seq=2)]

    return answer
