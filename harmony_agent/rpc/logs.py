"""What a Score has logged: of its units and containers, found by what the ledger says it has made.

Followed by asking again, every second or so, from where each log was read to last. So nobody's daemon
holds a stream open for us, and a reader that comes back goes on from the very line that it had last.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime

import attrs

from harmony_agent.plan.device import find_reconciler
from harmony_agent.store.ledger import Ledger
from harmony_core.close_names import did_you_mean
from harmony_core.errors import NothingLogged, UnknownScore
from harmony_core.logs import Logged, LogLine
from harmony_core.reconciler import Offers
from harmony_core.resources import ResourceId
from harmony_core.wire.replies import LoggedLine
from harmony_core.wire.requests import LINES_MOST, Logs
from harmony_core.wire.times import rfc3339

__all__ = ["ScoreLogs"]

_LOOK_AGAIN_S = 1.0


@attrs.frozen
class _Source:
    """One log."""

    resource: str
    logged: Logged

    async def read(
        self, *, lines: int, since: datetime | None, after: Mapping[str, str]
    ) -> list[LoggedLine]:
        key = ResourceId.parse(self.resource).key
        cursor = after.get(self.resource)
        told = await self.logged.logs(key, lines=lines, since=since, after=cursor)
        return [_to_logged_line(self.resource, line) for line in told]


@attrs.frozen(kw_only=True)
class ScoreLogs:
    """Reads them."""

    offers: Offers
    ledger: Ledger
    known: Callable[[], Collection[str]]
    """The ids of all Scores here."""

    async def read(self, ask: Logs) -> AsyncGenerator[LoggedLine]:
        """Yield what *ask* asks for; without end if it is to be followed. Raise `UnknownScore`,
        `NothingLogged`, and what `Logged.logs` raises."""
        sources = self._sources(ask.score)
        after = dict(ask.after)
        since = ask.since
        lines = ask.lines
        while True:
            began = datetime.now(UTC)
            # What is older than the newest lines that were asked for is not asked for.
            for line in await self._next(sources, after, lines=lines, since=since):
                after[line.resource] = line.cursor
                yield line
            if not ask.follow:
                return
            since, lines = since or began, LINES_MOST
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def _next(
        self,
        sources: Sequence[_Source],
        after: Mapping[str, str],
        *,
        lines: int,
        since: datetime | None,
    ) -> list[LoggedLine]:
        """Return the next lines of all *sources*, in the order of their times."""
        read = await asyncio.gather(
            *(each.read(lines=lines, since=since, after=after) for each in sources)
        )
        merged = sorted((line for told in read for line in told), key=lambda line: line.at)
        return merged if after else merged[-lines:]

    def _sources(self, score: str) -> list[_Source]:
        """Return the sources of logs of *score*, in the order in which they were made."""
        made = self.ledger.owned_by(score)[::-1]
        if not made and score not in (known := self.known()):
            raise unknown_score(score, known)
        found = [_Source(rid, logged) for rid in made if (logged := self._log_of(rid)) is not None]
        if not found:
            raise NothingLogged(
                f"Score {score!r} has no logs: services and containers have. What a job wrote last is told "
                "by `harmony status` where it has failed; what was changed, by `harmony events`"
            )
        return found

    def _log_of(self, resource: str) -> Logged | None:
        reconciler: object = find_reconciler(self.offers, ResourceId.parse(resource).resource_type)
        return reconciler if isinstance(reconciler, Logged) else None


def unknown_score(score: str, known: Collection[str]) -> UnknownScore:
    """Return the error that says there is no *score* among *known*, and which there are."""
    there = ", ".join(sorted(known)) or "none"
    return UnknownScore(
        f"there is no Score {score!r} on this device; there are: {there}{did_you_mean(score, known)}"
    )


def _to_logged_line(resource: str, line: LogLine) -> LoggedLine:
    return LoggedLine(
        resource=resource,
        at=rfc3339(line.at),
        stream=line.stream,
        text=line.text,
        cursor=line.cursor,
    )
