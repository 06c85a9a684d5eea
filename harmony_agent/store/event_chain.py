"""The table of events: the newest `EVENTS_KEPT`, each with the hash of the one before.

    note an event -> its number, its text, the hash before -> a row, with whatever is written next -> durable

Each row has the hash before it and not its own: so the rows that are kept can be verified by themselves, and
one that is dropped at the far end leaves nothing to be mended. What an agent without a chain has noted is
chained when this one begins, as it stands.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Self

from harmony_core.errors import LedgerUnusable
from harmony_core.wire.audit import CHAIN_START, EVENTS_KEPT, AuditHead, event_to_text, hash_event
from harmony_core.wire.replies import ChainedEvent

from .database import Database

__all__ = ["EventChain"]

_ROWS_AT_ONCE = 100
# As bytes, since whoever has tampered with a row may have left anything there.
_ROWS = "SELECT seq, CAST(json AS BLOB), lower(hex(prior)) FROM event"
_BEFORE_ALL = -(2**63)


class EventChain:
    """Numbers events, and chains them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._noted = AuditHead(seq=0, head=CHAIN_START)
        self._durable = self._noted

    @classmethod
    async def load(cls, database: Database) -> Self:
        """Continue from the last event that is stored."""
        chain = cls(database)
        last = await database.read(f"{_ROWS} ORDER BY seq DESC LIMIT 1")
        if last and not last[0][2]:
            head = await chain._chain_rest()
        else:
            head = next((hash_event(prior, text) for _, text, prior in last), CHAIN_START)
        if last:
            chain._durable = chain._noted = AuditHead(seq=last[0][0], head=head)
        return chain

    @property
    def durable(self) -> AuditHead | None:
        """How far the chain goes of which nothing can be lost any more; None where that cannot be read."""
        return None if self._database.is_blind else self._durable

    @property
    def last_seq(self) -> int:
        """The number of the last event that was noted, durable or not; 0 for none."""
        return self._noted.seq

    def add(
        self,
        fields: Mapping[str, Any],
        *,
        then: Callable[[Mapping[str, Any]], None],
        skip_to: int = 0,
    ) -> None:
        """Record an event of these *fields* with the next number, but with none up to *skip_to*.

        Once it is durable, call *then* with it, its number included.
        """
        seq = max(self._noted.seq, skip_to) + 1
        event = {"seq": seq, **fields}
        text, prior = event_to_text(event), self._noted.head
        noted = self._noted = AuditHead(seq=seq, head=hash_event(prior, text.encode()))

        def tell() -> None:
            self._durable = noted
            then(event)

        self._database.along(
            (
                "INSERT OR REPLACE INTO event (seq, at, score, json, prior) VALUES (?, ?, ?, ?, ?)",
                (seq, event["at"], event["score"], text, bytes.fromhex(prior)),
            ),
            ("DELETE FROM event WHERE seq <= ?", (seq - EVENTS_KEPT,)),
            then=tell,
        )

    async def read(self, *, after: int | None = None) -> AsyncGenerator[ChainedEvent]:
        """Yield the events that are durable, oldest first, from the one after number *after* on.

        Raise `LedgerUnusable` where they cannot be read.
        """
        if self._database.is_blind:
            raise LedgerUnusable(self._database.trouble)
        last = _BEFORE_ALL if after is None else after
        query = f"{_ROWS} WHERE seq > ? ORDER BY seq LIMIT ?"
        while rows := await self._database.read(query, last, _ROWS_AT_ONCE):
            for last, text, prior in rows:
                yield ChainedEvent(seq=last, prior=prior, text=text.decode(errors="replace"))

    async def _chain_rest(self) -> str:
        """Have the hash before it stored with every event that has none. Return the hash of the last."""
        head = CHAIN_START
        for seq, text, prior in await self._database.read(f"{_ROWS} ORDER BY seq"):
            if not prior:
                self._database.along(
                    ("UPDATE event SET prior = ? WHERE seq = ?", (bytes.fromhex(head), seq))
                )
            head = hash_event(prior or head, text)
        return head
