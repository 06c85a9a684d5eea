"""Check whether a unit is now as desired, after what was done: a Change, or a failure with its last lines.

The rules are in `.health_rules`, shared with every other reconciler of units; here systemd's jobs, the
journal and the unit's probe are asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import attrs

from harmony_core.change import Change, NotReady
from harmony_core.errors import InvalidResource, UnitFailed
from harmony_core.reconciler import Records
from harmony_core.resources import SystemdUnit
from harmony_pi_topology.common.journal import JournalTail
from harmony_pi_topology.common.liveness import Liveness
from harmony_pi_topology.common.log_tail import LOG_TAIL_LINES, log_tail
from harmony_pi_topology.common.probes import probe

from .health_rules import (
    Broken,
    describe_end,
    describe_frozen,
    describe_job_end,
    describe_stop_end,
    evaluate_health,
    make_not_ready,
    make_not_ready_in_time,
    to_pending,
)
from .queued_jobs import GOOD_ENDS, Jobs
from .records import FoundUnit
from .unit_plan import UnitPlan

__all__ = ["HealthCheck"]


@attrs.frozen
class _Answered:
    """That the probe of a unit has been answered, in this invocation of it."""

    invocation: str
    now: bool = attrs.field(kw_only=True)
    """And still is."""


class HealthCheck:
    """Also remembers which failure has been told, so that the next look starts the unit again."""

    def __init__(
        self,
        *,
        jobs: Jobs,
        records: Records,
        journal_tail: JournalTail,
        probe_address: str,
        liveness: Liveness,
        monotonic_s: Callable[[], float],
    ) -> None:
        self._jobs = jobs
        self._records = records
        self._journal_tail = journal_tail
        self._probe_address = probe_address
        self._liveness = liveness
        self._monotonic_s = monotonic_s
        self._told: dict[str, str] = {}
        self._answered: dict[str, _Answered] = {}

    async def tell_what_failed(self, plan: UnitPlan) -> UnitPlan:
        """Raise `UnitFailed` when *plan* failed since the last look and this was not reported.

        Otherwise it would only be started again, over and over, and nobody would notice.
        """
        name, found = plan.unit.name, plan.found
        if plan.unit.state is not None and found.frozen:
            raise await self._make_failure(plan.unit, found, describe_frozen(name))
        result = self._jobs.result(name)
        if plan.only_starts and result is not None and result not in GOOD_ENDS:
            raise await self._make_failure(plan.unit, found, describe_job_end(result, found))
        if plan.has_just_failed(self._told.get(name)):
            raise await self._make_failure(plan.unit, found, describe_end(found))
        self._jobs.forget(name)
        return plan

    def plan(self, plan: UnitPlan, *, now: str) -> Change:
        """Return the result of *plan*. A plan does not depend on how a unit fares, so this raises nothing;
        but a unit that does not stay up is not in order."""
        if plan.steps:
            return plan.preview(now=now)
        verdict = evaluate_health(plan.unit, plan.found, plan.record, now_s=self._monotonic_s())
        pending = to_pending(plan.unit, verdict) or self._unproven(plan.unit, plan.found)
        pending = pending or plan.unmet(plan.found)
        return plan.change(plan.found, pending)

    def _unproven(self, unit: SystemdUnit, found: FoundUnit) -> NotReady | None:
        """Return what the unit was not seen to do since its start, since a dry run asks nothing."""
        if unit.ready is None or not found.is_up:
            return None
        if self._answered.get(unit.name) == _Answered(found.invocation, now=True):
            return None
        return NotReady(f"{unit.name} is not known to be ready", resource=unit.id)

    async def evaluate(self, plan: UnitPlan, found: FoundUnit) -> Change:
        """Return the result of *plan*; *found* is the state of the unit now. Record what runs."""
        unit = plan.unit
        if unit.content is not None and found.load in {"bad-setting", "error"}:
            raise InvalidResource(f"systemd refuses {unit.name}: {found.problem}; correct its file")
        plan.check_effective(found)
        verdict = evaluate_health(unit, found, plan.record, now_s=self._monotonic_s())
        verdict = self._of_its_job(plan, found) or verdict
        await self._records.put(unit.id, plan.after(found).written)
        if isinstance(verdict, Broken):
            raise await self._make_failure(unit, found, verdict.how)
        pending = verdict or await self._probe(unit, found)
        return plan.change(found, pending)

    def _of_its_job(self, plan: UnitPlan, found: FoundUnit) -> Broken | None:
        unit, result = plan.unit, plan.job_result
        ended_badly = result is not None and result not in GOOD_ENDS
        if unit.state != "running":
            stands = plan.steps.job == "stop" and ended_badly and not found.is_dead
            return Broken(describe_stop_end(result or "", unit.name)) if stands else None
        if ended_badly:
            return Broken(describe_job_end(result or "", found))
        if self._jobs.under_way_s(unit.name) > unit.start_timeout_s:
            return Broken(f"has not started within {unit.start_timeout_s:g} s")
        return None

    async def _make_failure(self, unit: SystemdUnit, found: FoundUnit, how: str) -> UnitFailed:
        self._told[unit.name] = found.invocation
        self._jobs.forget(unit.name)
        tail = await self._tail(unit.name)
        return UnitFailed(f"{unit.name} {how}{tail}", resource=unit.id)

    async def _probe(self, unit: SystemdUnit, found: FoundUnit) -> NotReady | None:
        if unit.ready is None or not found.is_up:
            self._liveness.forget(unit.name)
            return None
        address = self._probe_address
        reason = await probe(unit.ready, address=address)
        self._liveness.record_probe(unit.name, unit.ready, address=address, answers=reason is None)
        if reason is None:
            self._answered[unit.name] = _Answered(found.invocation, now=True)
            return None
        if self._monotonic_s() - found.up_since_s < unit.ready.within_s:
            return make_not_ready(unit, unit.ready, reason)
        tail = await self._tail(unit.name)
        answered = self._answered.get(unit.name)
        was_ready = answered is not None and answered.invocation == found.invocation
        if was_ready:
            self._answered[unit.name] = _Answered(found.invocation, now=False)
        raise make_not_ready_in_time(unit, unit.ready, reason, tail, was_ready=was_ready)

    def forget(self, names: Iterable[str]) -> None:
        """Forget *names*, which are gone."""
        for name in names:
            self._told.pop(name, None)
            self._answered.pop(name, None)
            self._liveness.forget(name)

    async def _tail(self, name: str) -> str:
        return log_tail((await self._journal_tail(name, LOG_TAIL_LINES)).encode())
