"""Whether a unit is now as wished, after whatever was done: a Change, or a failure with its last lines."""

from __future__ import annotations

from collections.abc import Callable

from harmony_core.change import Change, NotReady
from harmony_core.container_changes import LOG_TAIL_LINES, log_tail
from harmony_core.errors import InvalidResource, UnitFailed
from harmony_core.reconciler import Records
from harmony_core.resources import SystemdUnit
from harmony_core.unit_judgement import (
    Broken,
    how_it_ended,
    how_its_job_ended,
    judged,
    not_ready,
    not_ready_in_time,
)
from harmony_core.unit_pass import UnitPass
from harmony_core.unit_records import FoundUnit

from ._journal import JournalTail
from ._probes import probe
from ._systemd_bus import LOST
from ._systemd_jobs import Jobs

__all__ = ["Judge"]

_GOOD_ENDS = frozenset({"done", LOST})
"""Of jobs: what became of a lost one is to be seen from its unit."""


class Judge:
    """Also remembers which failure has been told, so that the next look starts the unit again."""

    def __init__(
        self,
        *,
        jobs: Jobs,
        records: Records,
        journal_tail: JournalTail,
        probe_address: str,
        monotonic_s: Callable[[], float],
    ) -> None:
        self._jobs = jobs
        self._records = records
        self._journal_tail = journal_tail
        self._probe_address = probe_address
        self._monotonic_s = monotonic_s
        self._told: dict[str, str] = {}

    async def tell_what_failed(self, this: UnitPass) -> UnitPass:
        """Raise `UnitFailed` when *this* failed since the last look, and has not been told.

        Else it would only be started again, over and over, and nobody would hear of it.
        """
        name, found = this.unit.name, this.found
        result = self._jobs.result(name)
        if this.only_starts and result is not None and result not in _GOOD_ENDS:
            raise await self._failed(this.unit, found, how_its_job_ended(result, found))
        if this.has_just_failed(self._told.get(name)):
            raise await self._failed(this.unit, found, how_it_ended(found))
        self._jobs.forget(name)
        return this

    def plan(self, this: UnitPass, *, now: str) -> Change:
        """What would become of *this*. How a unit fares is no business of a plan, so it raises nothing."""
        if this.steps:
            return this.planned(now=now)
        verdict = judged(this.unit, this.found, this.record, now_s=self._monotonic_s())
        return this.change(this.found, verdict if isinstance(verdict, NotReady) else None)

    async def judge(self, this: UnitPass, found: FoundUnit) -> Change:
        """What became of *this*, *found* being how the unit is now. Notes what runs."""
        unit = this.unit
        if unit.content is not None and found.load in {"bad-setting", "error"}:
            raise InvalidResource(f"systemd refuses {unit.name}: {found.problem}; correct its file")
        verdict = judged(unit, found, this.record, now_s=self._monotonic_s())
        if unit.state == "running":
            verdict = self._of_its_job(this, found) or verdict
        await self._records.put(unit.id, this.after(found).written)
        if isinstance(verdict, Broken):
            raise await self._failed(unit, found, verdict.how)
        pending = verdict or await self._probed(unit, found)
        return this.change(found, pending)

    def _of_its_job(self, this: UnitPass, found: FoundUnit) -> Broken | None:
        unit, result = this.unit, this.job_result
        if result is not None and result not in _GOOD_ENDS:
            return Broken(how_its_job_ended(result, found))
        if self._jobs.under_way_s(unit.name) > unit.start_timeout_s:
            return Broken(f"has not started within {unit.start_timeout_s:g} s")
        return None

    async def _failed(self, unit: SystemdUnit, found: FoundUnit, how: str) -> UnitFailed:
        self._told[unit.name] = found.invocation
        self._jobs.forget(unit.name)
        tail = await self._tail(unit.name)
        return UnitFailed(f"{unit.name} {how}{tail}", resource=unit.id)

    async def _probed(self, unit: SystemdUnit, found: FoundUnit) -> NotReady | None:
        if unit.ready is None or not found.is_up:
            return None
        reason = await probe(unit.ready, address=self._probe_address)
        if reason is None:
            return None
        if self._monotonic_s() - found.up_since_s < unit.ready.within_s:
            return not_ready(unit, unit.ready, reason)
        tail = await self._tail(unit.name)
        raise not_ready_in_time(unit, unit.ready, reason, tail)

    async def _tail(self, name: str) -> str:
        return log_tail((await self._journal_tail(name, LOG_TAIL_LINES)).encode())
