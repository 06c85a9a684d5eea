"""Reboots: boot the device anew for what only that brings into force, when its rule says that it may be.

    what Scores await, what the system awaits -> nothing? -> no condition
        |
    a rule, and now? nothing under way, nobody holds, nobody inhibits? -> else told in RebootRequired: why not
        |
    noted (for what, in which boot) -> an event -> told to the bus -> asked of the device
        |
    the next boot: an event, if it was lost
        |
    still awaited by a Score that was looked at since? -> in vain: never asked for again
        |
    awaited again after two boots within a day that did help? -> in vain: somebody undoes it, again and again

Somebody asks for one by a request -> may that one? in this very boot? nothing under way, nobody holds or
inhibits? -> noted, told, asked of the device, as above; else told to who asks: why not

Looked at with the heartbeat. A boot is asked for once for each cause. One that did not come within some
minutes is in vain too: asking again would not bring it. One that is refused is asked for again later and
later. Where what is noted does not outlive a boot, none is asked for: it would never come to an end.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import attrs

from harmony_agent.clock import find_zone, monotonic_s, timestamp
from harmony_agent.plan.device import find_reconciler
from harmony_agent.store.events import Events
from harmony_agent.store.ledger import Ledger
from harmony_agent.store.report_due import AT_ONCE_S
from harmony_agent.store.status import StatusStore
from harmony_core.calendars import last_begin
from harmony_core.change import Change
from harmony_core.errors import (
    BootedSince,
    CapabilityError,
    MissingCapability,
    RebootPostponed,
)
from harmony_core.reboots import Rebooting, RebootNote
from harmony_core.reconciler import Offers
from harmony_core.resources import RebootRule, RebootRuleAt, resource_id
from harmony_core.steps import Did
from harmony_core.wire.replies import RebootAsked
from harmony_core.wire.times import parse_rfc3339

from .holds import AppHolds
from .queue import WorkQueue

__all__ = ["HAPPENS_WITHIN_S", "Reboots"]

log = logging.getLogger(__name__)

HAPPENS_WITHIN_S = 300.0
"""Longer than a unit may take to stop, as systemd has it by default, and some do so one after the other."""
_IDLE_WITHIN_S = 5.0
_TOLD_WITHIN_S = 2.0
"""So long the report has to leave, before the device goes down; it is told afterwards in any case."""
_HELPED_WITHIN_S = 86_400.0
_HELPED_MOST = 2
"""How often a boot may help one cause within that: who changes something, and changes it back, is no loop."""
_REFUSED_FIRST_S = 60.0
_REFUSED_LAST_S = 3_600.0
_NAMED_MOST = 5
_RULE = resource_id(RebootRule.resource_type, "device")
_SYSTEM = "the system"
_UNDER_WAY = "until no Score is under way"
_BY_HAND = "boot it by `harmony reboot`"
_NO_RULE = f"no Score says when it may be: push a RebootScore, or {_BY_HAND}"
_REQUEST = "a request"


@attrs.frozen
class _Wait:
    """Why the device is not booted now, in one word and in words."""

    reason: str
    words: str


@attrs.frozen(kw_only=True)
class _Order:
    """For what the device is booted."""

    causes: Mapping[str, str]
    """Who awaits it, with words for each: what is looked at afterwards."""
    signed_by: Sequence[str] = ()
    """Who has asked for it by a request; nobody where it is by the rule."""

    @property
    def words(self) -> str:
        if self.signed_by:
            return "somebody has asked for it by a request"
        return f"a boot is awaited by {_name(self.causes)}"


@attrs.define(kw_only=True)
class Reboots:
    """Looks, and boots."""

    offers: Offers
    ledger: Ledger
    statuses: StatusStore
    holds: AppHolds
    events: Events
    queue: WorkQueue
    flush: Callable[[], Awaitable[None]]
    """Make durable what was noted so far."""
    now_at_least: Callable[[], datetime]
    """The time that an operator has vouched for."""
    why_not_kept: Callable[[], str]
    """Why what the agent notes does not outlive a boot; empty where it does. Called in a thread."""
    permit: Callable[[Sequence[str]], None]
    """Raise `OutOfScope` or `PolicyRefused` where these keys may not have the device booted by a request."""
    _refused: int = attrs.field(default=0, init=False)
    """How often in a row it was refused."""
    _refusal: str = attrs.field(default="", init=False)
    _not_before_s: float = attrs.field(default=0.0, init=False)
    """When it is asked for again, after that; on the loop's clock."""
    _asked_at: float | None = attrs.field(default=None, init=False)
    """When a boot was asked for in this one, or that was found noted; on the loop's clock."""
    _paused: ExitStack = attrs.field(factory=ExitStack, init=False)
    """Nothing is begun from the asking on."""
    _lock: asyncio.Lock = attrs.field(factory=asyncio.Lock, init=False)
    """One of those who boot it at a time: a look, or a request."""

    async def look(self) -> None:
        """Report what needs a reboot, and request one where it is allowed."""
        async with self._lock:
            rebooting = self._find_rebooting()
            causes = await self._find_causes(rebooting)
            if rebooting is not None:
                await self._judge(rebooting, causes)
            wait = self._find_asked(rebooting)
            if wait is None and causes:
                wait = await self._find_wait(rebooting, causes)
                if wait is None and rebooting is not None:
                    wait = await self._reboot(rebooting, _Order(causes=causes))
            self._tell(wait, causes)

    async def answer(
        self, boot_id: str, signed_by: Sequence[str], *, if_needed: bool
    ) -> AsyncGenerator[RebootAsked]:
        """Reboot the device out of the boot *boot_id*, as *signed_by* have asked. Yield how it is, just
        before.

        *if_needed* reboots only where something needs it, and none was in vain. The rule is about reboots
        that nobody asks for. Raise what `permit` does, `MissingCapability`, `BootedSince`, `RebootPostponed`
        while something is under way, somebody says "not now", or the device refuses.
        """
        async with self._lock:
            self.permit(signed_by)
            if (rebooting := self._find_rebooting()) is None:
                raise MissingCapability("it cannot be booted by its agent: it offers no RebootHost")
            if boot_id != (now := self.statuses.identity.boot_id):
                raise BootedSince(
                    f"it was to end the boot {boot_id}, and is in {now}; to boot it once more, ask again"
                )
            causes = await self._find_causes(rebooting)
            if self.statuses.is_at_rest:
                await self._judge(rebooting, causes)
            note = rebooting.read_note()
            due = {each: causes[each] for each in causes if each not in note.in_vain}
            named = tuple(sorted(due.values())[:_NAMED_MOST])
            if note.boot_id == now:
                yield RebootAsked(begun=True, at=note.at, awaited_by=named)
                return
            if not self.statuses.is_at_rest:
                raise RebootPostponed(self._find_under_way())
            if if_needed and not due:
                yield RebootAsked(begun=False)
                return
            if (wait := await self._find_users_wait(rebooting)) is not None:
                raise RebootPostponed(wait.words)
            yield RebootAsked(begun=True, at=timestamp(), awaited_by=named)
            wait = await self._reboot(rebooting, _Order(causes={}, signed_by=signed_by))
            if wait.reason != "Rebooting":
                raise RebootPostponed(wait.words)

    def _find_under_way(self) -> str:
        """Return in words what is waited for."""
        names = self.statuses.list_under_way()
        named = ", ".join(names[:_NAMED_MOST]) + (" …" if len(names) > _NAMED_MOST else "")
        return f"{_UNDER_WAY}: {named}" if named else _UNDER_WAY

    def _tell(self, wait: _Wait | None, causes: Mapping[str, str]) -> None:
        told = ("", "")
        if wait is not None:
            told = (wait.reason, f"{_name(causes) or _REQUEST}; {wait.words}")
        self.statuses.device.set_reboot_required(*told)

    async def _find_causes(self, rebooting: Rebooting | None) -> dict[str, str]:
        """Return everything that needs a reboot, with words for each."""
        causes = dict(self._list_of_scores())
        if rebooting is not None:
            for each in await rebooting.find_system_reasons():
                causes[f"{_SYSTEM} {each}"] = f"{_SYSTEM} ({each})"
        return causes

    def _find_asked(self, rebooting: Rebooting | None) -> _Wait | None:
        """Return the reboot that was requested in this boot and has not come yet; None where there is
        none."""
        note = rebooting.read_note() if rebooting is not None else RebootNote()
        if note.boot_id != self.statuses.identity.boot_id:
            return None
        return _Wait("Rebooting", f"a boot was asked for at {note.at}")

    def _find_rebooting(self) -> Rebooting | None:
        reconciler: object = find_reconciler(self.offers, RebootRule.resource_type)
        return reconciler if isinstance(reconciler, Rebooting) else None

    def _list_of_scores(self) -> Mapping[str, str]:
        """Return each resource that needs a reboot, with words for it."""
        return {
            f"{score} {resource} {_digest(state)}": f"{score} ({resource})"
            for score, resource, state in self.statuses.list_awaiting_reboot()
        }

    async def _judge(self, rebooting: Rebooting, causes: Collection[str]) -> None:
        """Note what a reboot did not help, once that is known; and forget what no longer needs one."""
        note = before = rebooting.read_note()
        if note.boot_id == self.statuses.identity.boot_id:
            self._asked_at = monotonic_s() if self._asked_at is None else self._asked_at
            if monotonic_s() < self._asked_at + HAPPENS_WITHIN_S:
                return
            self._paused.close()
            self._asked_at = None
            why = f"a boot was asked for at {note.at}, and the device has not gone down"
            log.warning("%s", why)
            note = _conclude(note, in_vain=note.causes, why=why if note.causes else note.why)
        elif note.boot_id and self.statuses.is_at_rest:
            if note.words and not note.is_told:
                self._record(rebooting, note)
            left = tuple(each for each in note.causes if each in causes)
            why = f"the device was booted for it, asked at {note.at}, and it is not in force"
            note = _conclude(note, in_vain=left, why=why if left else note.why)
        elif note.boot_id:
            return
        helped = _keep_recent(note.helped)
        again = tuple(each for each in causes if len(helped.get(each, ())) >= _HELPED_MOST)
        if again and not set(again) <= set(note.in_vain):
            last = max(helped[each][-1] for each in again)
            why = (
                f"the device was booted for it {_HELPED_MOST} times within a day, the last time at {last}, "
                "and it is awaited again: something on the device undoes it"
            )
            note = _conclude(note, in_vain=again, why=why)
        still = tuple(each for each in dict.fromkeys(note.in_vain) if each in causes)
        if self.statuses.is_at_rest or not note.in_vain:
            note = attrs.evolve(note, in_vain=still, why=note.why if still else "")
        note = attrs.evolve(note, helped=_keep_recent(note.helped))
        if note == before:
            return
        await rebooting.note(note)
        await self.flush()
        for score in self._find_owners():
            self.queue.enqueue(score)  # it tells of it

    async def _find_wait(
        self, rebooting: Rebooting | None, causes: Collection[str]
    ) -> _Wait | None:
        """Return why the device must not be rebooted now for *causes*; None where it may."""
        rule = rebooting.read_rule() if rebooting is not None else None
        if rebooting is None or rule is None:
            return _Wait("NoRule", _NO_RULE)
        note = rebooting.read_note()
        return (
            self._find_noted_wait(note, causes)
            or self._find_rule_wait(rule)
            or await self._find_lasting_wait()
            or await self._find_users_wait(rebooting)
        )

    async def _find_lasting_wait(self) -> _Wait | None:
        """Return why a reboot may not be requested at all, or not yet, whatever the rule says."""
        if why := await asyncio.to_thread(self.why_not_kept):
            words = (
                f"{why}: after a boot the agent would know of none, and boot for ever; {_BY_HAND}"
            )
            return _Wait("NotKept", words)
        return _Wait("Waiting", self._refusal) if monotonic_s() < self._not_before_s else None

    def _find_noted_wait(self, note: RebootNote, causes: Collection[str]) -> _Wait | None:
        if set(causes) <= set(note.in_vain):
            return _Wait("InVain", "a boot has not brought it into force; see the RebootScore")
        if note.causes or not self.statuses.is_at_rest:
            return _Wait("Waiting", _UNDER_WAY)
        return None

    async def _find_users_wait(self, rebooting: Rebooting) -> _Wait | None:
        for score in sorted(self.statuses.known):
            if (held := await self.holds.find_hold(score)) is not None:
                return _Wait("Held", f"{score}: {held.message}")
        try:
            obstacles = await rebooting.find_obstacles()
        except CapabilityError as error:
            return _Wait("Waiting", error.message)
        return _Wait("Inhibited", "; ".join(obstacles)) if obstacles else None

    def _find_rule_wait(self, rule: RebootRuleAt) -> _Wait | None:
        if rule.when == "never":
            return _Wait("Never", f"a RebootScore says that it never is by itself: {_BY_HAND}")
        if rule.when == "now":
            return None
        vouched_for = self.now_at_least()
        now = datetime.now(UTC)
        if now < vouched_for:
            return _Wait("InWindow", "the device's clock is behind; it waits for a time server")
        find_zone()  # somebody may have set another since the agent began
        if last_begin(rule.window, now, None, timedelta(seconds=rule.lasts_s)) is not None:
            return None
        words = f"it is booted in its window: {rule.window}, for {rule.lasts_s} s"
        return _Wait("InWindow", words)

    async def _reboot(self, rebooting: Rebooting, order: _Order) -> _Wait:
        """Request a reboot; return the result."""
        with ExitStack() as stack:
            stack.enter_context(self.queue.pause())
            await self.queue.wait_idle(within_s=_IDLE_WITHIN_S)
            if self.queue.busy or not self.statuses.is_at_rest:
                return _Wait("Waiting", _UNDER_WAY)
            note = rebooting.read_note()
            asked = attrs.evolve(
                note,
                boot_id=self.statuses.identity.boot_id,
                at=timestamp(),
                causes=tuple(each for each in order.causes if each not in note.in_vain),
                words=order.words,
                signed_by=tuple(order.signed_by),
                is_told=False,
            )
            await rebooting.note(asked)
            self._asked_at = monotonic_s()
            told = _Wait("Rebooting", f"a boot was asked for at {asked.at}")
            self._tell(told, order.causes)
            try:
                await self.flush()
                self.statuses.due.mark(AT_ONCE_S)
                await asyncio.sleep(_TOLD_WITHIN_S)
                # Somebody may have begun to install meanwhile.
                wait = await self._find_users_wait(rebooting)
            except BaseException:
                # Who is ended before it has asked has asked for nothing.
                await asyncio.shield(self._take_back(rebooting, note))
                raise
            if wait is not None:
                await self._take_back(rebooting, note)
                return wait
            log.warning("rebooting, since %s", order.words)
            try:
                await rebooting.reboot()
            except CapabilityError as error:
                await self._take_back(rebooting, note)
                return self._note_refusal(error)
            self._paused = stack.pop_all()
            # Not before: of one that was refused, the audit would tell what never was.
            self._record(rebooting, asked)
            await rebooting.note(attrs.evolve(asked, is_told=True))  # in one with the event
            await self.flush()
            self._refused = 0
            return told

    async def _take_back(self, rebooting: Rebooting, note: RebootNote) -> None:
        """Restore the note from before: the device is not rebooted."""
        await rebooting.note(note)
        self._asked_at = None

    def _note_refusal(self, error: CapabilityError) -> _Wait:
        """Return what is reported of the refusal, until the reboot is requested again."""
        self._refusal = f"it was refused: {error.message}"
        later_s = min(_REFUSED_FIRST_S * 2**self._refused, _REFUSED_LAST_S)
        self._refused, self._not_before_s = self._refused + 1, monotonic_s() + later_s
        return _Wait("Waiting", self._refusal)

    def _record(self, rebooting: Rebooting, note: RebootNote) -> None:
        rule = rebooting.read_rule()
        done = Did(f"rebooting the device because {note.words}")
        change = Change(resource=_RULE, steps=(done,), before=rule, after=rule)
        owners = self._find_owners()
        if note.signed_by:
            self.events.record_request(owners[0] if owners else "", change, note.signed_by)
            return
        for score in owners:
            self.events.record_reboot(score, change)

    def _find_owners(self) -> list[str]:
        return sorted(
            score for score in self.ledger.scores() if _RULE in self.ledger.owned_by(score)
        )


def _conclude(note: RebootNote, *, in_vain: Iterable[str], why: str) -> RebootNote:
    """Return *note* without the request, with those *in_vain* and those that the reboot has helped."""
    in_vain = tuple(in_vain)
    helped = {
        each: (*note.helped.get(each, ()), note.at) for each in note.causes if each not in in_vain
    }
    return RebootNote(in_vain=(*note.in_vain, *in_vain), why=why, helped={**note.helped, **helped})


def _keep_recent(helped: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Return those of *helped* that are less than a day old, also where the clock was set back since."""
    now = datetime.now(UTC)
    late = {
        each: tuple(
            at for at in times if abs((now - parse_rfc3339(at)).total_seconds()) < _HELPED_WITHIN_S
        )
        for each, times in helped.items()
    }
    return {each: times for each, times in late.items() if times}


def _name(causes: Mapping[str, str]) -> str:
    named = sorted(causes.values())
    more = f" and {len(named) - _NAMED_MOST} more" if len(named) > _NAMED_MOST else ""
    return ", ".join(named[:_NAMED_MOST]) + more


def _digest(state: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]
