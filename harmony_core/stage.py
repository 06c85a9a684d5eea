"""The Stage: what a Score acts through. One for each interpretation.

It offers the very capabilities that the Score asked for, and nothing else. Behind each verb::

    policy -> ownership, in the ledger (durable) -> reconciler -> audit

so every Score, a third party's included, gets policy, ownership, dry run and audit without knowing.
The Stage remembers every change, error and signal that it passed on: whatever the author of a Score
catches or returns, the Outcome is never better than what the Stage saw (`harmony_core.interpretation`).

Cancellation acts between verbs. A verb under way is not interrupted, since its effect would land all
the same; `settled` waits for it, and must be awaited before the same Score is interpreted again.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType, SimpleNamespace
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, cast

import attrs

from .capabilities import offers_of
from .change import Change, Changes, NotReady, UnknownUntilApplied
from .errors import (
    CapabilityError,
    CapabilityUnavailable,
    HarmonyError,
    InterpretationFailed,
    InvalidResource,
    MissingCapability,
    PolicyRefused,
    TimedOut,
    TransientError,
)
from .reconciler import Offers, Reconciler
from .resources import PresentAt, Resource, ResourceId, State, resource_id
from .secret_values import find_words_within
from .steps import Wrote
from .unexpected import as_harmony_error, without_exit

__all__ = ["Audit", "Claims", "Policy", "Stage"]

ResourceT = TypeVar("ResourceT", bound=Resource)
StateT = TypeVar("StateT", bound=State)
P = ParamSpec("P")
T = TypeVar("T")

_UNANSWERED = (CapabilityUnavailable, TimedOut)
"""After these there is nobody to ask."""


class Policy(Protocol):
    """What this device allows, whoever signed it."""

    def refusal(self, resource: Resource) -> str | None:
        """Return why *resource* may not be touched here, with the remedy; None when it may."""

    def removal_refusal(self, resource_id: str, resource_class: type[Resource]) -> str | None:
        """Return why *resource_id* may not be removed here, with the remedy; None when it may. Only its class
        and id are known."""


class Claims(Protocol):
    """One Score's side of the ledger."""

    async def claim(
        self,
        resources: Sequence[Resource],
        identities: Mapping[str, frozenset[str]] = MappingProxyType({}),
    ) -> None:
        """Note that this Score makes *resources*; durable once this returns. Free when already noted.

        *identities* are the names beside their own by which the device knows them, by id.

        `OwnershipConflict` when one of them is another Score's; `NotReady` while that is not decided.
        """

    async def may_remove(self, resource_ids: Sequence[str]) -> None:
        """Return when nobody else wants any of these. What has no owner counts as nobody's.

        Raise `OwnershipConflict` when another Score wants one; if this one shared it, it has released it
        then. Raise `NotReady` while that is not decided, or another has not released it yet.
        """

    async def release(self, resource_ids: Sequence[str]) -> None:
        """Note that these are gone."""


class Audit(Protocol):
    """Where every change is told, as typed data."""

    def record(self, change: Change) -> None: ...


class Stage:
    """Stands between one interpretation and the device. ``apply=False`` is the dry run.

    In a dry run, *planned* is what the Scores that come before this one are going to bring about, by id, and
    *rewritten* are the files whose content they change; *awaits_changes* says whether they change anything,
    so that what fails now need not fail then. In earnest, *identities* are what a dry run has found: only
    what it has not come to is asked for. *unprepared* are the errors of what could not be prepared, by id:
    each is raised in place of an effect.
    """

    def __init__(
        self,
        *,
        offers: Offers,
        policy: Policy,
        claims: Claims,
        audit: Audit,
        apply: bool = True,
        planned: Mapping[str, State] = MappingProxyType({}),
        rewritten: Collection[str] = (),
        awaits_changes: bool = False,
        identities: Mapping[str, frozenset[str]] = MappingProxyType({}),
        unprepared: Mapping[str, HarmonyError] = MappingProxyType({}),
        secret_words: Collection[str] = (),
    ) -> None:
        self.apply = apply
        self.rewritten = set(rewritten)
        """In a dry run, the files that will have other content by then."""
        self.wanted: dict[str, Resource] = {}
        """What was asked to be, by id; refused or not."""
        self.unwanted: set[str] = set()
        """The ids of what was asked to be gone, and not asked to be since."""
        self.identities = dict(identities) if apply else {}
        """By id, the other names by which the device knows what was asked to be."""
        self.referenced: set[str] = set()
        """The ids of what was asked to be, or looked at, and not asked to be gone since."""
        self.only_ensured = True
        """Whether no question was asked but "is this so?", and nothing was asked to be gone."""
        self.changes: list[Change] = []
        self.errors: list[HarmonyError] = []
        self.signals: list[NotReady] = []
        self.states: dict[str, State] = {}
        """What was last seen of each resource touched, by id, in the order of first touch."""
        self._awaits_changes = awaits_changes
        self._planned = planned
        self._unprepared = unprepared
        self._planned_away: set[str] = set()
        """In a dry run, the ids of what would have been taken away."""
        self._unknown: set[str] = set()
        """In a dry run, the ids of what would be changed into nobody knows what."""
        self._offers = offers
        self._policy = policy
        self._claims = claims
        self._audit = audit
        self._secret_words = frozenset(secret_words)
        """What may stand for secrets here: those of this Score."""
        self._under_way: set[asyncio.Future[Any]] = set()
        self._called: list[tuple[str, Coroutine[Any, Any, Any]]] = []
        """Every verb that was called, as it is written, and what has to be awaited for it to be done."""

    def topology(self, needs: type) -> Any:
        """Return an object with exactly the capabilities that *needs* names, each behind this Stage."""
        return SimpleNamespace(
            **{name: self._stage_capability(name, each) for name, each in offers_of(needs).items()}
        )

    async def wait_idle(self) -> None:
        """Wait until no verb of this Stage is under way. A verb's own failure does not cut this short."""
        if any(_is_not_begun(work) for _, work in self._called):
            await asyncio.sleep(0)  # what has become a task of its own has its turn now
        while self._under_way:
            await asyncio.wait(self._under_way)

    def called(self, verb: str, work: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
        """Remember that *verb*, such as ``topology.files.ensure``, was called. Return *work*, to be
        awaited."""
        self._called.append((verb, work))
        return work

    def forgotten(self) -> InterpretationFailed | None:
        """Return the error of a verb that was called and never awaited; None when there is none.

        Nothing of such a verb was done, and nothing of it is done any more. Call this once, after
        `wait_idle`.
        """
        forgotten = [(verb, work) for verb, work in self._called if _is_not_begun(work)]
        self._called.clear()
        for _, work in forgotten:
            work.close()
        if not forgotten:
            return None
        verb = forgotten[0][0]
        return InterpretationFailed(
            f"{verb}(…) was called and not awaited, so nothing was done; write: await {verb}(…)"
        )

    def lost_secret(self) -> InterpretationFailed | None:
        """Return the error of a secret that no requested resource contains; None when there is none. Call
        this once the Score has ended."""
        placed = {word for each in self.wanted.values() for word in each.find_secret_words()}
        if lost := sorted(self._secret_words - placed):
            return InterpretationFailed(
                f"{', '.join(lost)}: the Score refers to it, and no resource has it: its code has left "
                "it out, or has changed the text in which it stood (cut, upper case, base64, XML), and then "
                "its value does not come; put the text in as it is, or take the reference out"
            )
        return None

    def _stage_capability(self, name: str, capability: type) -> _Staged[Any, Any]:
        reconciler = self._offers.get(capability.__name__)
        if reconciler is None:
            raise MissingCapability(f"this device does not offer {capability.__name__}")
        return _Staged(self, f"topology.{name}", reconciler)

    async def ensure(
        self, reconciler: Reconciler[ResourceT, StateT], resources: Sequence[ResourceT]
    ) -> Changes:
        return await self._verb(self._ensure, reconciler, resources)

    async def absent(
        self, reconciler: Reconciler[ResourceT, StateT], keys: Sequence[str]
    ) -> Changes:
        return await self._verb(self._absent, reconciler, keys)

    async def observe(self, reconciler: Reconciler[ResourceT, StateT], key: str) -> StateT | None:
        return await self._verb(self._observe, reconciler, key)

    async def _ensure(
        self, reconciler: Reconciler[ResourceT, StateT], resources: Sequence[ResourceT]
    ) -> Changes:
        for resource in resources:
            # Asked here, where what it raises is this Score's: those who ask later do so for all Scores.
            _ = resource.spec_hash, resource.exclusive
            self.wanted[resource.id] = resource
            self.unwanted.discard(resource.id)
            self.referenced.add(resource.id)
            self._refuse_misplaced_secret(resource)
            if refusal := self._policy.refusal(resource):
                raise PolicyRefused(refusal, resource=resource.id)
            if (error := self._unprepared.get(resource.id)) is not None:
                raise error
        if self.apply:
            await self._identify(reconciler, resources)
            await self._claims.claim(resources, self.identities)
        if self._planned_away:
            self._planned_away.difference_update(resource.id for resource in resources)
        results = await reconciler.converge(resources, apply=self.apply)
        if not self.apply:
            # Afterwards, so that what was just looked at need not be looked at again.
            await self._identify(reconciler, resources)
            if self.rewritten:
                results = [
                    self._preview(resource, result)
                    for resource, result in zip(resources, results, strict=True)
                ]
        for resource, result in zip(resources, results, strict=True):
            if isinstance(result, Exception) and not isinstance(result, _UNANSWERED):
                await self._look_at(reconciler, resource)
        return self._remember_all([each.id for each in resources], results)

    def _refuse_misplaced_secret(self, resource: Resource) -> None:
        """Raise `InvalidResource` where the word for a secret is in a place where its value would not be put
        in, or is that of a secret of another Score."""
        if not self._secret_words and not resource.secret_fields:
            return
        if self._secret_words:
            rest = {name: each for name, each in resource if name not in resource.secret_fields}
            if find_words_within(rest):
                where = ", ".join(sorted(resource.secret_fields)) or "none of its fields"
                raise InvalidResource(
                    f"a secret cannot stand here: of a {resource.resource_type}, {where} can have one; put "
                    "it into a file, or among the credentials of a service, and have that read",
                    resource=resource.id,
                )
        if resource.find_secret_words() - self._secret_words:
            raise InvalidResource(
                "it has the word for a secret that this Score does not have; write ${secret.NAME}",
                resource=resource.id,
            )

    async def _identify(
        self, reconciler: Reconciler[Any, State], resources: Sequence[Resource]
    ) -> None:
        """Remember the other names of *resources*, if *reconciler* is `Identifying`.

        A resource whose names cannot be read now has none: whoever looks at it reports that failure.
        """
        # No isinstance: asked for each verb, and a Protocol's takes as long as all else here.
        ask: Callable[[Any], Awaitable[frozenset[str]]] | None
        ask = getattr(reconciler, "identities", None)
        if ask is None:
            return
        asked = [each for each in resources if not (self.apply and each.id in self.identities)]
        if len(asked) == 1:  # as most Scores have it: no task of its own
            with suppress(CapabilityError):
                self.identities[asked[0].id] = await ask(asked[0])
            return
        answers = await asyncio.gather(*(ask(each) for each in asked), return_exceptions=True)
        for resource, answer in zip(asked, answers, strict=True):
            if isinstance(answer, CapabilityError):
                continue
            if isinstance(answer, BaseException):
                raise answer
            self.identities[resource.id] = answer

    def _preview(self, resource: Resource, result: Change | Exception) -> Change | Exception:
        """Return *result* as it will be once files have other content than the reconciler has found."""
        if isinstance(result, Exception):
            return result
        steps = resource.preview_steps(result.steps, result.before, self.rewritten)
        return attrs.evolve(result, steps=steps) if steps != result.steps else result

    async def _look_at(self, reconciler: Reconciler[Any, State], resource: Resource) -> None:
        """Remember the state of a resource that could not be converged, so that it can be reported."""
        try:
            state = await without_exit(reconciler.observe, resource.key)
        except Exception:  # noqa: BLE001 - what was done meanwhile is still to be remembered
            return  # the failure itself says more
        if state is not None:
            self.states[resource.id] = state

    async def _absent(
        self, reconciler: Reconciler[ResourceT, StateT], keys: Sequence[str]
    ) -> Changes:
        self.only_ensured = False
        rids = [resource_id(reconciler.resource_class.resource_type, key) for key in keys]
        for rid in rids:
            self.wanted.pop(rid, None)
            self.referenced.discard(rid)
            self.unwanted.add(rid)
            if refusal := self._policy.removal_refusal(rid, reconciler.resource_class):
                raise PolicyRefused(refusal, resource=rid)
        if self.apply:
            await self._claims.may_remove(rids)
        results = await reconciler.remove(keys, apply=self.apply)
        let_go = [each for each in results if isinstance(each, Change) and each.pending is None]
        if self.apply:
            # Also beside an error: what is gone is nobody's any more.
            await self._claims.release([change.resource for change in let_go])
        else:
            self._planned_away.update(each.resource for each in let_go if each.after is None)
        return self._remember_all(rids, results)

    async def _observe(self, reconciler: Reconciler[ResourceT, StateT], key: str) -> StateT | None:
        rid = resource_id(reconciler.resource_class.resource_type, key)
        self.referenced.add(rid)
        self.only_ensured = False
        if rid in self._planned_away:
            return None
        if rid in self._unknown:
            raise UnknownUntilApplied(
                f"the rest depends on how {rid} will be, which only the change can tell",
                resource=rid,
            )
        if not self.apply and (planned := self.states.get(rid) or self._planned.get(rid)):
            # A reconciler put it there itself, under this id.
            return cast("StateT", planned)
        try:
            return await reconciler.observe(key)
        except CapabilityError as error:
            raise as_harmony_error(error, resource=rid) from error.__cause__

    def _remember_all(self, rids: Sequence[str], results: Sequence[Change | Exception]) -> Changes:
        """Remember the result of each of *rids*, then raise the first error, else the first signal."""
        changes: list[Change] = []
        failures: list[Exception] = []
        unknown: list[UnknownUntilApplied] = []
        signals: list[NotReady] = []
        others_change = not self.apply and (self._awaits_changes or bool(self.changes))
        for rid, result in zip(rids, results, strict=True):
            if isinstance(result, Change) and (others_change or result.doubt is None):
                self._remember(result)
                changes.append(result)
                if result.pending is not None:
                    signals.append(result.pending)
                continue
            if isinstance(result, NotReady):
                signals.append(result)
                continue
            why = (result.doubt or result) if isinstance(result, Change) else result
            assert isinstance(why, Exception)
            error = as_harmony_error(why, resource=rid)
            if others_change and _may_pass(error):
                unknown.append(_unknown_after(error, rid))
                continue
            self.errors.append(error)
            failures.append(error if isinstance(why, HarmonyError) else why)
        # Each is waited for, whatever is raised.
        self.signals += signals
        if failures:
            raise failures[0]
        if unknown:
            raise unknown[0]
        if signals:
            raise signals[0]
        return Changes.of(changes)

    def _remember(self, change: Change) -> None:
        if change.after is not None:
            self.states[change.resource] = change.after
        else:
            self.states.pop(change.resource, None)
            if not self.apply and change.changed and change.resource in self.wanted:
                self._unknown.add(change.resource)
        if change.changed:
            self.changes.append(change)
            if self.apply:
                self._audit.record(change)
            elif _is_rewritten(change):
                self.rewritten.add(ResourceId.parse(change.resource).key)

    async def _verb(
        self, verb: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        task = asyncio.get_running_loop().create_task(without_exit(verb, *args, **kwargs))
        self._under_way.add(task)
        task.add_done_callback(self._on_done)
        return await asyncio.shield(task)

    def _on_done(self, task: asyncio.Future[Any]) -> None:
        self._under_way.discard(task)
        if task.cancelled():
            return
        # Asked for here, so that a verb that outlives its cancelled caller is remembered too.
        error = task.exception()
        if isinstance(error, NotReady):
            if not any(each is error for each in self.signals):
                self.signals.append(error)
        elif isinstance(error, Exception) and not self._has_seen(error):
            self.errors.append(as_harmony_error(error))

    def _has_seen(self, error: Exception) -> bool:
        """Return whether *error* is the answer of a reconciler, which was remembered with its resource."""
        return any(each is error or each.__cause__ is error for each in self.errors)


def _may_pass(error: HarmonyError) -> bool:
    """Return whether the Scores before this one may change what *error* is about."""
    return isinstance(error, TransientError) and not isinstance(error, _UNANSWERED)


def _unknown_after(error: HarmonyError, rid: str) -> UnknownUntilApplied:
    return UnknownUntilApplied(
        f"{rid} depends on what is changed before it; as the device is now: {error.message}",
        resource=rid,
    )


def _is_not_begun(work: Coroutine[Any, Any, Any]) -> bool:
    return inspect.getcoroutinestate(work) == inspect.CORO_CREATED


def _is_rewritten(change: Change) -> bool:
    """Return whether a file has other content afterwards."""
    before, after = change.before, change.after
    if not isinstance(after, PresentAt):
        return isinstance(before, PresentAt)
    if not isinstance(before, PresentAt):
        return True
    if before.sha256 and after.sha256:
        return before.sha256 != after.sha256
    # Of a secret, or of what is too large, no hash is told.
    return any(isinstance(each, Wrote) for each in change.steps)


class _Staged(Generic[ResourceT, StateT]):
    """One capability, behind a Stage. Satisfies every capability Protocol of these two types."""

    def __init__(self, stage: Stage, name: str, reconciler: Reconciler[ResourceT, StateT]) -> None:
        self._stage = stage
        self._name = name
        self._reconciler = reconciler

    # Not `async`: a verb that is called and not awaited must be known of, and the body of a coroutine is not
    # even begun then.
    def ensure(self, *resources: ResourceT) -> Coroutine[Any, Any, Changes]:
        work = self._stage.ensure(self._reconciler, resources)
        return self._stage.called(f"{self._name}.ensure", work)

    def absent(self, *keys: str) -> Coroutine[Any, Any, Changes]:
        work = self._stage.absent(self._reconciler, keys)
        return self._stage.called(f"{self._name}.absent", work)

    def observe(self, key: str) -> Coroutine[Any, Any, StateT | None]:
        work = self._stage.observe(self._reconciler, key)
        return self._stage.called(f"{self._name}.observe", work)
