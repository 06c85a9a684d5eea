"""Remove what nobody wants any more: of a Score that is gone, and of one that names less than before.

    allowed? -> followers gone? -> newest first, from the ledger alone -> released

Only after a run that ended well is anything pruned, never from ignorance, and never very much at once:
what exceeds the manifest's `RemovalBudget` is pending, until a manifest allows the number.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Sequence
from itertools import groupby
from typing import Any

import attrs

from harmony_agent.plan.device import find_reconciler
from harmony_agent.plan.generation import Generations
from harmony_agent.plan.removal_budget import RemovalBudget
from harmony_agent.store.desired import Desired
from harmony_agent.store.events import Events
from harmony_agent.store.ledger import Ledger
from harmony_agent.store.revisions import Revisions
from harmony_agent.store.status import StatusStore
from harmony_core.change import Change, NotReady, Progress
from harmony_core.errors import (
    CapabilityError,
    CapabilityUnavailable,
    InternalError,
    LedgerUnusable,
    NotOurs,
    UnsafePath,
)
from harmony_core.outcome import Running
from harmony_core.reconciler import AnyReconciler, Offers
from harmony_core.resources import ResourceId
from harmony_core.unexpected import as_harmony_error, without_exit

from .holds import AppHolds
from .queue import Forget, Next, RequeueAfter, Retry, WorkQueue

__all__ = ["Removal"]

_LOOK_AT_HOLDS_S = 5.0


@attrs.frozen(kw_only=True)
class Removal:
    """Takes away, as far as the manifest in force allows it."""

    offers: Offers
    holds: AppHolds
    desired: Desired
    ledger: Ledger
    revisions: Revisions
    statuses: StatusStore
    events: Events
    generations: Generations

    def may_remove(self, score_id: str, doomed: Collection[str]) -> Running | None:
        """Allow the removal of *doomed*, if so many are allowed; else return the Outcome to enter."""
        budget = self.generations.current.removals
        if budget.spend(doomed):
            return None
        self.statuses.device.set_pending_removals(len(budget.pending))
        count = len(doomed)
        return Running(
            reason="Held",
            message=(
                f"{count} of {score_id}'s resources would be removed, {len(budget.pending)} in all, "
                f"{self._why_asked(budget)}; see them and allow it with `harmony approve`"
            ),
            progress=Progress(done=0, total=count, unit="resources"),
        )

    def _why_asked(self, budget: RemovalBudget) -> str:
        data = sorted(rid for rid in budget.pending if self.ledger.deletes_data(rid))
        return f"with all data of {', '.join(data)}" if data else "which is very much at once"

    async def take_away(self, score_id: str, queue: WorkQueue) -> Next:
        """Remove all that *score_id* made, newest first. This works without the Score's package."""
        made = self.ledger.owned_by(score_id)
        doomed = [rid for rid in made if not self.ledger.is_shared(rid, score_id)]
        if doomed and (held := self.may_remove(score_id, doomed)) is not None:
            self.statuses.enter_retained(score_id, held)
            return Forget()
        if followers := [each for each in self._followers(score_id) if made]:
            self.statuses.enter_removing(score_id, f"waits until {', '.join(followers)} is gone")
            return Forget()
        if (put_off := await self.holds.find_hold(score_id)) is not None:
            self.statuses.enter_retained(score_id, Running(reason="Held", message=put_off.message))
            # Of what is not wanted nothing is watched any more.
            return RequeueAfter(min(put_off.look_again_s, _LOOK_AT_HOLDS_S))
        if made:
            self.statuses.enter_removing(score_id, f"{len(made)} to remove")
        try:
            await self.remove(score_id, made)
        except InternalError:
            raise  # nobody expected it: `harmony_agent.apply.guard`
        except (CapabilityError, LedgerUnusable) as error:
            self.statuses.enter_removing(score_id, f"{error.code}: {error.message}")
            return Retry(queue.next_backoff_s(score_id))
        except NotReady as signal:
            self.statuses.enter_removing(score_id, signal.message)
            return RequeueAfter(signal.look_again_s)
        for each in self._waiting_for(score_id, made):
            queue.enqueue(each)
        self.statuses.writer.add(self.revisions.forget(score_id))
        self.statuses.remove(score_id)
        return Forget()

    def _waiting_for(self, score_id: str, resource_ids: Sequence[str]) -> set[str]:
        """Return which Scores may have waited for *score_id* to be gone, or wanted what it had."""
        users = {each for rid in resource_ids for each in self.ledger.holders(rid)}
        return {*self.revisions.after(score_id), *users, *self.statuses.find_refused(resource_ids)}

    def _followers(self, score_id: str) -> list[str]:
        """Return which Scores must be gone before *score_id*, because they waited for it. In a circle, return
        none."""
        going = self.ledger.scores() - self.desired.entries.keys()
        awaited: set[str] = set()
        front = {score_id}
        while front:
            front = {name for each in front for name in self.revisions.after(each)} - awaited
            awaited |= front
        return sorted(each for each in going - awaited if score_id in self.revisions.after(each))

    async def remove(self, score_id: str, resource_ids: Sequence[str]) -> list[Change]:
        """Remove these in order, and release them. What another Score wants in the same form is only
        released.

        Raise `CapabilityError` or `NotReady` for what could not be removed (yet); the rest is gone and
        released. Raise `LedgerUnusable` where the removal could not be recorded: the next removal finds it
        gone.
        """
        changes: list[Change] = []
        for resource_type, ids in groupby(resource_ids, key=_type_of):
            await _await_to_its_end(self._remove(score_id, resource_type, list(ids), changes))
        return changes

    async def _remove(
        self, score_id: str, resource_type: str, ids: list[str], changes: list[Change]
    ) -> None:
        # Only what nobody else holds is removed; what another Score made alike is just released. The claim
        # goes after the deed, and only of what is really gone (or was never ours): killed in between, the
        # next process finds the claim, removes once more, and finds nothing to do. What failed keeps its
        # claim and is tried again; a failure is raised before a "not ready", which may hide it for long.
        alone = [rid for rid in ids if not self.ledger.is_shared(rid, score_id)]
        await self.ledger.release(score_id, [rid for rid in ids if rid not in alone])
        reconciler = self._reconciler(resource_type)
        keys = [ResourceId.parse(rid).key for rid in alone]
        results = await without_exit(reconciler.remove, keys, apply=True)
        kept: dict[str, Exception] = {}
        for rid, result in zip(alone, results, strict=True):
            if isinstance(result, Change) and result.changed:
                self.events.of(score_id).record(result)
                changes.append(result)
            if (why_not := self._find_removal_error(rid, result)) is not None:
                kept[rid] = why_not
        await self.ledger.release(score_id, [rid for rid in alone if rid not in kept])
        if kept:
            raise min(kept.values(), key=lambda each: isinstance(each, NotReady))

    async def preview(self, resource_ids: Sequence[str]) -> list[Change]:
        """Return what `remove` would do; change nothing."""
        changes: list[Change] = []
        for resource_type, ids in groupby(resource_ids, key=_type_of):
            reconciler = self._reconciler(resource_type)
            keys = [ResourceId.parse(rid).key for rid in ids]
            results = await reconciler.remove(keys, apply=False)
            changes += [each for each in results if isinstance(each, Change) and each.changed]
        return changes

    def _find_removal_error(self, rid: str, result: Change | Exception) -> Exception | None:
        """Return why *rid* is not removed yet; None where it is, or where it was claimed and never made,
        because something else was in its place."""
        match result:
            case Change(pending=pending):
                return pending
            case NotReady():
                return result
            case NotOurs():
                return None
            case UnsafePath() if self.ledger.get(rid) is None:
                return None
            case _:
                return as_harmony_error(result, resource=rid)

    def _reconciler(self, resource_type: str) -> AnyReconciler:
        if (reconciler := find_reconciler(self.offers, resource_type)) is not None:
            return reconciler
        raise CapabilityUnavailable(
            f"nothing on this device can remove a {resource_type} any more; "
            "bring back what provided it"
        )


def _type_of(resource_id: str) -> str:
    return ResourceId.parse(resource_id).resource_type


async def _await_to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Await *work* to its end, also when cancelled meanwhile, since its effect happens all the same."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    finally:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # whoever cancelled it does not ask
