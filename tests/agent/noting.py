"""A process that notes events until it is killed, and says of each write how far its chain is durable.

``python -m tests.agent.noting DATABASE``
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harmony_agent.store.database import Database
from harmony_agent.store.event_chain import EventChain

FIELDS = {"at": "2026-01-31T12:00:00.000Z", "score": "motd", "resource": "file:/etc/motd"}


def disregard(_: Mapping[str, Any]) -> None:
    """Nobody follows."""


async def note_until_killed(path: Path) -> None:
    async with await Database.open(path) as database:
        chain = await EventChain.load(database)
        while True:
            for _ in range(3):
                chain.add(FIELDS, then=disregard)
            await database.write()
            head = chain.durable
            assert head is not None
            print(head.seq, head.head, flush=True)


if __name__ == "__main__":
    asyncio.run(note_until_killed(Path(sys.argv[1])))
