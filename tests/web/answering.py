"""A device that answers requests with what a test says, signed as a device's answers are."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from harmony_core.wire.replies import Alive, End, Item, to_frame
from tests.nats import Device

__all__ = ["answering"]


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
