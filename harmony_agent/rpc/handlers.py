"""What a device answers when it is asked: one verb after the other, each a stream of items.

Nothing here changes the device but `Reconcile`, which only has the queue do what it does anyway, `Release`,
`Reboot`, and `VolumeLoad`, which replaces data and no configuration. Each stream may be closed at any item;
one that is followed has no end of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Protocol, assert_never

import attrs

from harmony_agent.plan.run_result import ScorePlan
from harmony_agent.store.desired import Desired
from harmony_core.change import Change
from harmony_core.outcome import Failure
from harmony_core.wire.actual_state import ScoreStatus, optional_state_to_json, score_to_json
from harmony_core.wire.manifest import SerializedScore
from harmony_core.wire.ordering import graph_faults
from harmony_core.wire.replies import (
    ChainedEvent,
    JsonItem,
    Planned,
    PlannedChange,
    RebootAsked,
    Reconciled,
    cut_for_wire,
    to_item,
)
from harmony_core.wire.requests import (
    Ask,
    Audit,
    Diff,
    Events,
    Logs,
    Reboot,
    Reconcile,
    Release,
    VolumeEnd,
    VolumeLoad,
    VolumeRead,
    Volumes,
    VolumeSave,
    VolumeWrite,
)
from harmony_core.wire.times import rfc3339

from .logs import ScoreLogs, unknown_score
from .transfers import VolumeTransfers
from .volumes import DeviceVolumes

__all__ = ["Answers", "EventSource", "Holds", "PreviewSource", "Statuses"]

_DIFF_MOST_BYTES = 40 * 1024
_AUDIT_BYTES = 4 * 1024 * 1024
"""An answer ends at the first event beyond this: half of what it may have, since it is more as JSON."""


class EventSource(Protocol):
    """What was changed here: `harmony_agent.store.events.Events`."""

    async def recent(
        self, *, score: str | None = None, since: str | None = None
    ) -> Sequence[Mapping[str, Any]]: ...

    def follow(self) -> AsyncGenerator[Mapping[str, Any]]: ...


class Chain(Protocol):
    """The same, as it is stored: `harmony_agent.store.event_chain.EventChain`."""

    def read(self, *, after: int | None = None) -> AsyncGenerator[ChainedEvent]: ...


class PreviewSource(Protocol):
    """What would be changed: `harmony_agent.apply.preview.Preview`."""

    async def preview(self, entries: Sequence[SerializedScore]) -> Sequence[ScorePlan]: ...


class Statuses(Protocol):
    """What is known of each Score: `harmony_agent.store.status.StatusStore`."""

    def status_of(self, score: str) -> ScoreStatus | None: ...


class Insistence(Protocol):
    """Who puts off repairs: `harmony_agent.drift.detector.DriftDetector`."""

    def insist(self, score: str, *, enforce: bool) -> None:
        """Let the next repair of *score* begin without a wait; with *enforce*, also where drift is only
        reported."""


class Holds(Protocol):
    """What applications have asked to put off: `harmony_agent.apply.holds.AppHolds`."""

    async def release(self, score: str) -> None:
        """Release the hold on changes of *score*. Raise `NotHeld` where there is none."""


class Rebooter(Protocol):
    """Who boots the device: `harmony_agent.apply.reboots.Reboots`."""

    def answer(
        self, boot_id: str, signed_by: Sequence[str], *, if_needed: bool
    ) -> AsyncGenerator[RebootAsked]: ...


@attrs.frozen(kw_only=True)
class Answers:
    """Answers by asking those who know."""

    desired: Desired
    statuses: Statuses
    events: EventSource
    chain: Chain
    preview_source: PreviewSource
    logs: ScoreLogs
    reconcile_now: Callable[[Collection[str]], AsyncGenerator[str]]
    """Have these Scores looked at now; yields each as soon as it was."""
    look: Callable[[str], None]
    """Have a Score looked at, sooner or later."""
    holds: Holds
    insistence: Insistence
    rebooter: Rebooter
    volumes: DeviceVolumes
    transfers: VolumeTransfers

    def of(self, ask: Ask, keyids: Sequence[str]) -> AsyncGenerator[JsonItem]:
        """Yield the items of the answer to *ask*, signed by *keyids*. Raise `RequestError`s, and what the
        device itself raises."""
        match ask:
            case Reconcile():
                answer = self._reconcile(ask)
            case Logs():
                answer = self._logs(ask)
            case Events():
                answer = self._events(ask)
            case Audit():
                answer = self._audit(ask)
            case Diff():
                answer = self._diff(ask)
            case Release():
                answer = self._release(ask)
            case Reboot():
                answer = self._reboot(ask, keyids)
            case Volumes():
                answer = self._volumes()
            case VolumeSave() | VolumeRead() | VolumeWrite() | VolumeLoad() | VolumeEnd():
                answer = self.transfers.of(ask, keyids)
            case _:
                assert_never(ask)
        return answer

    async def _reconcile(self, ask: Reconcile) -> AsyncGenerator[JsonItem]:
        scores = self.logs.known()
        if ask.score is not None:
            if ask.score not in scores:
                raise unknown_score(ask.score, scores)
            scores = [ask.score]
        for score in scores:
            self.insistence.insist(score, enforce=ask.enforce)
        async with aclosing(self.reconcile_now(scores)) as reconciled:
            async for score in reconciled:
                yield to_item(Reconciled(score=score, state=self._status_to_json(score)))

    def _status_to_json(self, score: str) -> JsonItem | None:
        """Return what is known of *score*, without its resources, which may be many."""
        status = self.statuses.status_of(score)
        return None if status is None else score_to_json(attrs.evolve(status, resources={}))

    async def _logs(self, ask: Logs) -> AsyncGenerator[JsonItem]:
        async with aclosing(self.logs.read(ask)) as lines:
            async for line in lines:
                yield to_item(line)

    async def _events(self, ask: Events) -> AsyncGenerator[JsonItem]:
        live = self.events.follow()
        # Begun before the past is read, so that nothing falls in between.
        upcoming = asyncio.ensure_future(anext(live)) if ask.follow else None
        await asyncio.sleep(0)
        try:
            last = -1 if ask.after is None else ask.after
            for event in await self._past(ask):
                last = event["seq"]
                yield event
            while upcoming is not None:
                event = await upcoming
                upcoming = asyncio.ensure_future(anext(live))
                if event["seq"] > last and ask.score in {None, event["score"]}:
                    yield event
        finally:
            if upcoming is not None:
                upcoming.cancel()
                await asyncio.wait({upcoming})
            await live.aclose()

    async def _past(self, ask: Events) -> Sequence[Mapping[str, Any]]:
        since = rfc3339(ask.since) if ask.since else None
        kept = await self.events.recent(score=ask.score, since=since)
        if ask.after is None:
            return kept[-ask.lines :]
        return [event for event in kept if event["seq"] > ask.after]

    async def _audit(self, ask: Audit) -> AsyncGenerator[JsonItem]:
        told_bytes = 0
        async with aclosing(self.chain.read(after=ask.after)) as events:
            async for event in events:
                yield to_item(event)
                told_bytes += len(event.text.encode())
                if told_bytes > _AUDIT_BYTES:
                    return  # whoever reads asks again from here on

    async def _diff(self, ask: Diff) -> AsyncGenerator[JsonItem]:
        wanted = {} if ask.whole else dict(self.desired.entries)
        wanted |= {entry.id: entry for entry in ask.entries}
        entries = list(wanted.values())
        for fault in graph_faults(entries).values():
            raise fault
        for plan in await self.preview_source.preview(entries):
            yield to_item(_to_planned(plan))
            changes = plan.planned.changes if plan.planned else ()
            for change, removed in [
                *((each, False) for each in changes),
                *((each, True) for each in plan.removals),
            ]:
                if change.changed:
                    yield to_item(_change_to_plan(plan.score, change, removed=removed))

    async def _release(self, ask: Release) -> AsyncGenerator[JsonItem]:
        if ask.score not in (known := self.logs.known()):
            raise unknown_score(ask.score, known)
        await self.holds.release(ask.score)
        self.look(ask.score)
        nothing: Sequence[JsonItem] = ()
        for item in nothing:  # what has no items is a stream all the same
            yield item

    async def _reboot(self, ask: Reboot, keyids: Sequence[str]) -> AsyncGenerator[JsonItem]:
        answer = self.rebooter.answer(ask.boot_id, keyids, if_needed=ask.if_needed)
        async with aclosing(answer) as told:
            async for each in told:
                yield to_item(each)

    async def _volumes(self) -> AsyncGenerator[JsonItem]:
        for each in await self.volumes.read():
            yield to_item(each)


def _to_planned(plan: ScorePlan) -> Planned:
    if plan.planned is None:
        return Planned(score=plan.score, status="GONE", held=plan.held)
    outcome = plan.planned.verdict.outcome
    return Planned(
        score=plan.score,
        status=outcome.status,
        message=outcome.message,
        error=outcome.error if isinstance(outcome, Failure) else None,
        held=plan.held,
    )


def _change_to_plan(score: str, change: Change, *, removed: bool) -> PlannedChange:
    return PlannedChange(
        score=score,
        resource=change.resource,
        actions=change.actions,
        removed=removed,
        before=optional_state_to_json(change.before),
        after=optional_state_to_json(change.after),
        diff=None if change.diff is None else cut_for_wire(change.diff, _DIFF_MOST_BYTES),
    )
