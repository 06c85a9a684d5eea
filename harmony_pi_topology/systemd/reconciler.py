"""Units of a real systemd, over D-Bus: the reconciler behind `SystemdHost`.

    observe                         unit files and what they use, systemd's view, our record
    plan (`.unit_plan`, `.plan`)    what is due, step by step -> a dry run ends here
    apply  record                   what is about to be done, durable, before any effect
           disable, write, enable   files in one batch; what has taken the place of ours goes
           reload                   once for all of them
           start, restart, stop     side by side, each waited for a few seconds
    check (`.health`)               look again: NotReady, UnitFailed, or probe it; record what runs now

Killed at any instruction, the same steps lead to the same end. What systemd has read is noted only after
the reload, what an invocation was started from only after its start, and an invocation that is in no
record counts as started from what systemd had loaded then, as far as that can be told.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TypeAlias

import attrs

from harmony_core.change import Change
from harmony_core.key_locks import KeyLocks
from harmony_core.logs import LogLine
from harmony_core.reconciler import Availability, Backups, OnChange, Records
from harmony_core.resources import SystemdUnit, UnitState, resource_id
from harmony_core.wire.times import rfc3339
from harmony_pi_topology.common.availability import availability_by
from harmony_pi_topology.common.gather import gather_results, name_resource
from harmony_pi_topology.common.journal import Journal, JournalTail
from harmony_pi_topology.common.liveness import LIVENESS_EVERY_S, Liveness
from harmony_pi_topology.posix.root import Root

from .enabling import Enabling
from .health import HealthCheck
from .identities import unit_identities
from .plan import takes_precedence
from .queued_jobs import JOB_WAIT_S, Jobs
from .records import FoundUnit, UnitRecord
from .removal import Remover
from .sdbus import ANSWER_WITHIN_S, RELOAD_WITHIN_S, SystemdBus
from .unit_files import OnDisk, UnitFiles
from .unit_plan import UnitPlan, plan_unit
from .verification import UnitVerifier
from .waker import Waker
from .watch import UnitWatcher

__all__ = ["SdbusSystemd"]

_TICK_S = 0.02
"""By so much the time of a file's change may be behind the clock: the kernel's tick, and some."""

_Plans: TypeAlias = Sequence[UnitPlan | Exception]


def _monotonic_s() -> float:
    """Return the time of the clock that systemd's monotonic times use."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


class SdbusSystemd:
    """The systemd on the bus at *address*, or this machine's.

    Unit files are written into *unit_directory* beneath *files*; ``uses`` are read beneath it too.
    Connects when first asked.
    """

    def __init__(
        self,
        *,
        records: Records,
        backups: Backups,
        address: str | None = None,
        files: Root | None = None,
        unit_directory: str = "/etc/systemd/system",
        journal: Journal | None = None,
        journal_tail: JournalTail | None = None,
        verifier: UnitVerifier | None = None,
        probe_address: str = "127.0.0.1",
        job_wait_s: float = JOB_WAIT_S,
        answer_within_s: float = ANSWER_WITHIN_S,
        reload_within_s: float = RELOAD_WITHIN_S,
        monotonic_s: Callable[[], float] = _monotonic_s,
        liveness_every_s: float = LIVENESS_EVERY_S,
    ) -> None:
        self._records = records
        self._backups = backups
        files = files or Root("/")
        self._bus = SystemdBus(
            address,
            waker=Waker(files.path),
            answer_within_s=answer_within_s,
            reload_within_s=reload_within_s,
        )
        self._files = UnitFiles(files, unit_directory)
        self._watcher = UnitWatcher(
            address, files.path, unit_directory, answer_within_s=answer_within_s
        )
        self._journal = journal or Journal()
        self._verifier = verifier or UnitVerifier(files)
        self._enabling = Enabling(self._bus, self._files)
        self._jobs = Jobs(self._bus, wait_s=job_wait_s)
        self._liveness = Liveness(liveness_every_s)
        journal_tail = journal_tail or self._journal.tail
        self._health = HealthCheck(
            jobs=self._jobs,
            records=records,
            journal_tail=journal_tail,
            probe_address=probe_address,
            liveness=self._liveness,
            monotonic_s=monotonic_s,
        )
        self._remover = Remover(
            bus=self._bus,
            files=self._files,
            enabling=self._enabling,
            jobs=self._jobs,
            records=records,
            backups=backups,
            journal_tail=journal_tail,
        )
        self._locks = KeyLocks()
        """One converge or removal of a unit at a time."""

    @property
    def resource_class(self) -> type[SystemdUnit]:
        return SystemdUnit

    async def converge(
        self, resources: Sequence[SystemdUnit], *, apply: bool
    ) -> Sequence[Change | Exception]:
        """Converge *resources*. End within seconds of the slowest answer; never wait for a unit.

        `UnitFailed` and `NotReadyInTime` end with the unit's last lines. `PolicyRefused` for a masked unit,
        `InvalidResource` for one that systemd refuses or that cannot be enabled.
        """
        self._watcher.note(resources)
        results: dict[int, Change | Exception] = {}
        for numbers in _rounds([unit.name for unit in resources]):
            units = [resources[number] for number in numbers]
            async with self._locks.take(unit.name for unit in units):
                changes = await self._converge(units, apply=apply)
            results.update(zip(numbers, changes, strict=True))
        return [name_resource(results[n], unit.id) for n, unit in enumerate(resources)]

    async def identities(self, resource: SystemdUnit) -> frozenset[str]:
        """Return all names of *resource*, as ``unit:NAME``, and ``path:…`` of its file, if we write that."""
        found = await self._bus.look(resource.name)
        return unit_identities(resource, found, self._files.path(resource.name))

    async def observe(self, key: str) -> UnitState | None:
        return (await self._bus.look(key)).state

    async def remove(self, keys: Sequence[str], *, apply: bool) -> Sequence[Change | Exception]:
        """Remove *keys*. A unit that was there before us is left, and the Change says so."""
        results: dict[int, Change | Exception] = {}
        for numbers in _rounds(keys):
            names = [keys[number] for number in numbers]
            async with self._locks.take(names):
                changes = await self._remover.remove(names, apply=apply)
            if apply:
                self._watcher.forget(names)
                self._health.forget(names)
            results.update(zip(numbers, changes, strict=True))
        return [
            name_resource(results[n], resource_id(SystemdUnit.resource_type, key))
            for n, key in enumerate(keys)
        ]

    async def availability(self) -> Availability:
        """Return whether systemd answers, within four seconds."""
        await self._watcher.mend()
        return await availability_by(self._bus.ping)

    async def watch(self, keys: Collection[str], on_change: OnChange) -> None:
        """Watch systemd's own signals, the unit files and drop-ins on the disk, and whether a unit that was
        ready stops answering."""
        self._liveness.watch(keys, on_change)
        await self._watcher.watch(keys, on_change)

    async def logs(
        self, key: str, *, lines: int, since: datetime | None = None, after: str | None = None
    ) -> Sequence[LogLine]:
        """Return what the journal has of the unit, and what systemd says about it."""
        return await self._journal.lines(key, lines=lines, since=since, after=after)

    async def close(self) -> None:
        await self._liveness.close()
        await self._watcher.close()
        self._bus.close()
        self._files.close()

    async def _converge(
        self, units: Sequence[SystemdUnit], *, apply: bool
    ) -> list[Change | Exception]:
        on_disk = await self._files.read(units)
        plans: _Plans = await gather_results(
            list(zip(units, on_disk, strict=True)), partial(self._plan_unit, apply=apply)
        )
        if not apply:
            return await gather_results(plans, self._plan_one)
        # Each phase is done for all units before the next begins, and a unit that fails in one takes no part
        # in those after it. The record comes before every effect. A unit is disabled while its old file still
        # says where it is linked from, and enabled once its new one does. systemd reads all files once, and
        # only then does anything start: what runs is what was written.
        await self._files.sweep()
        plans = await gather_results(plans, self._health.tell_what_failed)
        for phase in (self._note, self._disable):
            plans = await gather_results(plans, phase)
        plans = await self._write(plans)
        plans = await gather_results(plans, self._enable)
        if any(isinstance(plan, UnitPlan) and plan.reloads for plan in plans):
            plans = await gather_results(plans, self._reload)
        plans = await gather_results(plans, self._run_job)
        return await gather_results(plans, self._evaluate_health)

    async def _plan_unit(
        self, looked: tuple[SystemdUnit, OnDisk | Exception], *, apply: bool
    ) -> UnitPlan:
        unit, on_disk = looked
        if isinstance(on_disk, Exception):
            raise on_disk
        found = await self._look(unit)
        may_come = not found.exists and await self._is_unread(on_disk)
        if may_come and apply:
            # All of them ask at once, and share one.
            await self._bus.reload()
            found, may_come = await self._look(unit), False
        written = self._records.get(unit.id)
        plan = plan_unit(
            unit,
            found,
            UnitRecord.read(written) if written is not None else None,
            file=on_disk.file,
            as_ours=on_disk.as_ours,
            uses=on_disk.uses,
            path=self._files.path(unit.name),
            untouched={
                path
                for path, changed_at_s in on_disk.uses_changed_at_s.items()
                if changed_at_s + _TICK_S < found.began_at_s
            },
            override_is_gone=found.is_outdated
            and takes_precedence(found.fragment)
            and not await self._files.is_there(found.fragment),
            attributes=on_disk.attributes,
            obstacle=on_disk.obstacle,
            gives_way=on_disk.gives_way,
            settings=on_disk.settings,
            may_come=may_come,
        )
        if plan.replaces_another_s and on_disk.unrestorable is not None:
            raise on_disk.unrestorable
        if plan.is_new_content:
            await self._verifier.verify(unit)
        return plan

    async def _is_unread(self, on_disk: OnDisk) -> bool:
        """Return whether something that the unit uses has changed since systemd read all files: a generator
        may make the unit from it, as from a Quadlet."""
        if not on_disk.uses_changed_at_s:
            return False
        changed_at_s = max(on_disk.uses_changed_at_s.values())
        return changed_at_s + _TICK_S >= await self._bus.ask_read_at_s()

    async def _plan_one(self, plan: UnitPlan) -> Change:
        if plan.seen is not None:
            await self._records.put(plan.unit.id, plan.seen.written)
        return self._health.plan(plan, now=rfc3339(datetime.now(UTC)))

    async def _note(self, plan: UnitPlan) -> UnitPlan:
        if plan.replaces_another_s and plan.before is not None:
            await self._backups.keep(plan.unit.id, plan.before)
        if plan.steps.enable or plan.steps.disable:
            texts = (plan.unit.content or "", (plan.before or b"").decode(errors="replace"))
            others = await self._enabling.others(plan.unit.name, plan.found, *texts)
            plan = attrs.evolve(plan, also=others)
        if plan.acts:
            await self._records.put(plan.unit.id, plan.noted.written)
        return plan

    async def _disable(self, plan: UnitPlan) -> UnitPlan:
        # Before its file is replaced: the new one may no longer say where it is linked from.
        if plan.steps.disable:
            await self._bus.disable(plan.unit.name)
        if plan.giving_back:
            await self._enabling.give_back(plan.giving_back)
        return plan

    async def _write(self, plans: _Plans) -> _Plans:
        due = [
            plan for plan in plans if isinstance(plan, UnitPlan) and plan.steps.write is not None
        ]
        if not due:
            return plans
        taken = [plan.unit.name for plan in due if plan.steps.make_way]
        errors = await self._files.write([plan.unit for plan in due], taken)
        failed = {plan.unit.name: error for plan, error in zip(due, errors, strict=True) if error}
        return [
            failed.get(plan.unit.name, plan) if isinstance(plan, UnitPlan) else plan
            for plan in plans
        ]

    async def _enable(self, plan: UnitPlan) -> UnitPlan:
        if plan.steps.enable:
            await self._bus.enable(plan.unit.name, anew=plan.unit.content is not None)
        return plan

    async def _reload(self, plan: UnitPlan) -> UnitPlan:
        # All of them ask at once, and share one.
        if plan.reloads:
            await self._bus.reload()
        return plan

    async def _run_job(self, plan: UnitPlan) -> UnitPlan:
        verb = plan.steps.job
        if verb is None:
            return plan
        result = await self._jobs.run(verb, plan.unit.name)
        return attrs.evolve(plan, job_result=result)

    async def _evaluate_health(self, plan: UnitPlan) -> Change:
        found = await self._look(plan.unit) if plan.acts else plan.found
        return await self._health.evaluate(plan, found)

    async def _look(self, unit: SystemdUnit) -> FoundUnit:
        found = await self._bus.look(unit.name)
        if found.load != "loaded" or "@." in unit.name:
            return found  # of a template, only its instances have either
        if unit.credentials:
            credentials = await self._bus.look_at_credentials(unit.name)
            found = attrs.evolve(found, credentials=credentials)
        if unit.slice is not None:
            found = attrs.evolve(found, slice=await self._bus.look_at_slice(unit.name))
        return found


def _rounds(names: Sequence[str]) -> list[list[int]]:
    """Return the numbers of *names*, such that no name comes twice in a round."""
    rounds: list[list[int]] = []
    count: defaultdict[str, int] = defaultdict(int)
    for number, name in enumerate(names):
        if count[name] == len(rounds):
            rounds.append([])
        rounds[count[name]].append(number)
        count[name] += 1
    return rounds
