"""Decode, check, interpret: what happens when one Score's turn comes.

    wanted?  -no->  take away what the ledger says it made
       |
      yes -> waits for another? -> Blocked
       |
     decode -> check -> interpret on a Stage -> enter the Outcome -> wake those that waited for it

Whatever goes wrong is that Score's own Outcome. Read anew each time: the manifest in force, the ledger
and the book, so an item of the queue carries nothing but an id.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

import attrs

from harmony_core.change import Change, NotReady
from harmony_core.errors import (
    CapabilityError,
    CapabilityUnavailable,
    HarmonyError,
    MissingCapability,
    NotOurs,
    TimedOut,
    UnsafePath,
)
from harmony_core.interpretation import Verdict, failure_of, interpret
from harmony_core.inventory import Facts, Inventory
from harmony_core.manifest import SerializedScore
from harmony_core.outcome import Failure, Noop, Outcome, Running, Success
from harmony_core.reconciler import AnyReconciler, Offers
from harmony_core.score import AnyScore
from harmony_core.stage import Policy, Stage
from harmony_core.times import rfc3339

from .book import Book
from .decoding import Decoded, Decoder
from .desired import Desired
from .ledger import Ledger
from .poison import Poison
from .queue import Done, LookAgain, Next, Retry, WorkQueue

__all__ = ["Device", "Interpreter"]

log = logging.getLogger(__name__)

DEADLINE_S = 300.0
"""For one interpretation, unless the Score's policy says otherwise. Interpreting never waits, so this
only ends what hangs."""


@attrs.frozen(kw_only=True)
class Device:
    """What a Score is interpreted on: what is offered, what is allowed, what is known."""

    offers: Offers
    missing: Mapping[str, str]
    """What is not offered here, and why."""
    policy: Policy
    facts: Facts
    agent_id: str


@attrs.frozen(kw_only=True)
class Interpreter:
    """Does the work of the queue. `work` is what the queue calls."""

    device: Device
    decoder: Decoder
    desired: Desired
    ledger: Ledger
    book: Book
    poison: Poison
    audit: AuditLog

    def begin(self) -> None:
        """A manifest has come into force."""
        if self.desired.current is not None:
            self.decoder.forget_all_but(self.desired.entries)
            self.book.accept(self.desired.current.manifest)

    def concerned(self) -> set[str]:
        """Every id that there is something to do for: wanted, or made once and not wanted any more."""
        return {*self.desired.entries, *self.ledger.scores(), *self.book.known}

    async def work(self, score_id: str, queue: WorkQueue) -> Next:
        """Look at *score_id* as the newest manifest wants it."""
        entry = self.desired.entries.get(score_id)
        if entry is None:
            return await self._take_away(score_id, queue)
        waits_for = [name for name in entry.after if not self.book.converged(name)]
        if waits_for and entry.id not in self.desired.faults:
            message = f"waits for {', '.join(waits_for)}"
            self._enter(entry, Running(reason="Blocked", message=message), queue)
            return Done()
        generation = self.desired.generation
        verdict, stage = await self._interpreted(entry)
        if generation != self.desired.generation:
            return Done()  # a newer manifest came meanwhile and has asked for another look
        return self._judged(entry, verdict, stage, queue)

    async def _interpreted(self, entry: SerializedScore) -> tuple[Verdict, Stage | None]:
        """Errors of decoding and checking are verdicts like any other."""
        try:
            self._refuse_fault(entry)
            decoded = self.decoder.decode(entry)
            self._refuse_unoffered(decoded.score)
            self.poison.check(entry.id, decoded.spec_hash)
        except HarmonyError as error:
            return failure_of(error), None
        stage = Stage(
            offers=self.device.offers,
            policy=self.device.policy,
            claims=self.ledger.claims(entry.id),
            audit=self.audit.of(entry.id, self.desired.generation),
        )
        return await self._on_stage(decoded, stage), stage

    async def _on_stage(self, decoded: Decoded, stage: Stage) -> Verdict:
        inventory = Inventory(
            agent_id=self.device.agent_id, facts=self.device.facts, labels=self.desired.labels
        )
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await self.poison.marked(
                    decoded.entry.id,
                    decoded.spec_hash,
                    interpret(decoded.score, inventory, stage),
                )
        except TimeoutError:
            return failure_of(
                TimedOut(
                    f"interpreting did not end within {DEADLINE_S:g} s; "
                    "a Score must not wait, but raise what is not ready"
                )
            )
        finally:
            # The effect of a verb under way lands even when its caller was cancelled.
            await stage.settled()

    def _refuse_fault(self, entry: SerializedScore) -> None:
        if fault := self.desired.faults.get(entry.id):
            raise fault

    def _refuse_unoffered(self, score: AnyScore) -> None:
        if score.requires <= self.device.offers.keys():
            return
        for name in sorted(score.requires - self.device.offers.keys()):
            reason = self.device.missing.get(name, "nothing installed here provides it")
            raise MissingCapability(f"{score.kind} needs {name}, which is not offered: {reason}")

    def _judged(
        self, entry: SerializedScore, verdict: Verdict, stage: Stage | None, queue: WorkQueue
    ) -> Next:
        """Enter the Outcome, and say when to look again."""
        if stage is not None and (stage.changes or self.ledger.interrupted(entry.id)):
            self.book.mark_changed(entry.id, verdict.told)
        outcome, following = self._retried(entry, verdict, queue)
        changed = self.book.changed(entry.id)
        if isinstance(outcome, Success | Noop):
            if changed is not None:
                outcome = Success(message=outcome.message or changed)
            self.book.save_with(self.ledger.finish(entry.id))
        self._enter(entry, outcome, queue, stage)
        return following

    def _retried(
        self, entry: SerializedScore, verdict: Verdict, queue: WorkQueue
    ) -> tuple[Outcome, Next]:
        outcome = verdict.outcome
        if isinstance(outcome, Failure) and not verdict.permanent:
            wait_s = verdict.retry_after_s or queue.backoff_s(entry.id)
            retry_at = rfc3339(datetime.now(UTC) + timedelta(seconds=wait_s))
            error = attrs.evolve(outcome.error, retry_at=retry_at)
            return attrs.evolve(outcome, error=error), Retry(wait_s)
        if verdict.look_again_s is not None:
            return outcome, LookAgain(verdict.look_again_s)
        return outcome, Done()

    def _enter(
        self,
        entry: SerializedScore,
        outcome: Outcome,
        queue: WorkQueue,
        stage: Stage | None = None,
    ) -> None:
        had_converged = self.book.converged(entry.id)
        self.book.enter(
            entry,
            outcome,
            generation=self.desired.generation,
            attempts=queue.attempts(entry.id) + isinstance(outcome, Failure),
            states=stage.states if stage is not None else None,
        )
        if not had_converged and self.book.converged(entry.id):
            for follower in self.desired.followers.get(entry.id, ()):
                queue.add(follower)

    async def _take_away(self, score_id: str, queue: WorkQueue) -> Next:
        """Remove what *score_id* made, newest first. Works without its package: from the ledger alone."""
        made = self.ledger.made_by(score_id)
        if made:
            self.book.removing(score_id, f"{len(made)} to remove")
        audit = self.audit.of(score_id, self.desired.generation)
        for resource_type, ids in groupby(made, key=lambda rid: rid.partition(":")[0]):
            try:
                await _to_its_end(self._remove(score_id, resource_type, list(ids), audit))
            except CapabilityError as error:
                self.book.removing(score_id, f"{error.code}: {error.message}")
                return Retry(queue.backoff_s(score_id))
            except NotReady as signal:
                self.book.removing(score_id, signal.message)
                return LookAgain(signal.look_again_s)
        self.book.remove(score_id)
        return Done()

    async def _remove(
        self, score_id: str, resource_type: str, ids: list[str], audit: ScoreAudit
    ) -> None:
        alone = [rid for rid in ids if not self.ledger.shared(rid, score_id)]
        await self.ledger.release(score_id, [rid for rid in ids if rid not in alone])
        reconciler = self._reconciler(resource_type)
        results = await reconciler.remove([rid.partition(":")[2] for rid in alone], apply=True)
        kept: dict[str, Exception] = {}
        for rid, result in zip(alone, results, strict=True):
            if isinstance(result, Change) and result.changed:
                audit.record(result)
            if (why_not := self._why_not_gone(rid, result)) is not None:
                kept[rid] = why_not
        await self.ledger.release(score_id, [rid for rid in alone if rid not in kept])
        if kept:
            raise min(kept.values(), key=lambda each: isinstance(each, NotReady))

    def _why_not_gone(self, rid: str, result: Change | Exception) -> Exception | None:
        """None also for what was claimed and then never made, because of what stood in its place."""
        match result:
            case Change(pending=pending):
                return pending
            case NotOurs():
                return None
            case UnsafePath() if self.ledger.get(rid) is None:
                return None
            case _:
                return result

    def _reconciler(self, resource_type: str) -> AnyReconciler:
        for reconciler in self.device.offers.values():
            if reconciler.resource_type.resource_type == resource_type:
                return reconciler
        raise CapabilityUnavailable(
            f"nothing on this device can remove a {resource_type} any more; "
            "bring back what provided it"
        )


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Await *work*; cancelled meanwhile, still wait for its end, since its effect lands all the same."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    finally:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # whoever cancelled it does not ask


@attrs.frozen
class AuditLog:
    """Tells every change to the journal, one line each, with who wanted it."""

    def of(self, score_id: str, generation: int) -> ScoreAudit:
        return ScoreAudit(score_id, generation)


@attrs.frozen
class ScoreAudit:
    """`harmony_core.stage.Audit` of one interpretation."""

    _score: str
    _generation: int

    def record(self, change: Change) -> None:
        log.info(
            "%s (generation %d): %s %s",
            self._score,
            self._generation,
            change.resource,
            ", ".join(change.actions),
        )
