"""Units of a real systemd, over D-Bus: the reconciler behind `SystemdHost`.

    look at all: unit files and what they use (in one thread call), systemd's own view, our record
    what is due, by `harmony_pi_topology.systemd.plan`          -> a dry run ends here
    note what is about to be done        a record each, durable, before any effect
    disable, write all, enable           files in one batch; what has taken the place of ours goes
    reload                               once for all of them
    start, restart, stop                 side by side, each waited for a few seconds
    judge, by `.health_rules`: NotReady, UnitFailed, or probe it; note what runs now

Killed at any instruction, the same steps lead to the same end. What systemd has read is noted only after
the reload, what an invocation was started from only after its start, and an invocation that is in no
record counts as started from what systemd had loaded then, as far as that can be told.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import TypeAlias

import attrs

from harmony_core.change import Change
from harmony_core.errors import CapabilityError
from harmony_core.logs import LogLine
from harmony_core.reconciler import Availability, Backups, OnChange, Records
from harmony_core.resources import SystemdUnit, UnitState, resource_id
from harmony_core.wire.times import rfc3339
from harmony_pi_topology.common.gather import gather_results
from harmony_pi_topology.common.liveness import LIVENESS_EVERY_S, Liveness
from harmony_pi_topology.posix.root import Root

from .enabling import Enabling
from .health import Judge
from .identities import unit_identities
from .journal import Journal, JournalTail
from .plan import takes_precedence
from .queued_jobs import JOB_WAIT_S, Jobs
from .records import UnitRecord
from .removal import Remover
from .sdbus import ANSWER_WITHIN_S, RELOAD_WITHIN_S, SystemdBus
from .unit_files import OnDisk, UnitFiles
from .unit_plan import UnitPlan, plan_unit
from .watch import UnitWatcher

__all__ = ["SdbusSystemd"]

_TICK_S = 0.02
"""By so much the time of a file's change may be behind the clock: the kernel's tick, and some."""

_Passes: TypeAlias = Sequence[UnitPlan | Exception]


def _monotonic_s() -> float:
    """The clock of systemd's own monotonic times."""
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
        originals: Backups,
        address: str | None = None,
        files: Root | None = None,
        unit_directory: str = "/etc/systemd/system",
        journal: Journal | None = None,
        journal_tail: JournalTail | None = None,
        probe_address: str = "127.0.0.1",
        job_wait_s: float = JOB_WAIT_S,
        answer_within_s: float = ANSWER_WITHIN_S,
        reload_within_s: float = RELOAD_WITHIN_S,
        monotonic_s: Callable[[], float] = _monotonic_s,
        liveness_every_s: float = LIVENESS_EVERY_S,
    ) -> None:
        self._records = records
        self._originals = originals
        self._bus = SystemdBus(
            address, answer_within_s=answer_within_s, reload_within_s=reload_within_s
        )
        files = files or Root("/")
        self._files = UnitFiles(files, unit_directory)
        self._watcher = UnitWatcher(
            address, files.path, unit_directory, answer_within_s=answer_within_s
        )
        self._journal = journal or Journal()
        self._enabling = Enabling(self._bus, self._files)
        self._jobs = Jobs(self._bus, wait_s=job_wait_s)
        self._liveness = Liveness(liveness_every_s)
        self._judge = Judge(
            jobs=self._jobs,
            records=records,
            journal_tail=journal_tail or self._journal.tail,
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
            originals=originals,
        )
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @property
    def resource_class(self) -> type[SystemdUnit]:
        return SystemdUnit

    async def converge(
        self, resources: Sequence[SystemdUnit], *, apply: bool
    ) -> Sequence[Change | Exception]:
        """As `Reconciler.converge`. Ends within seconds of the slowest answer, never waits for a unit.

        `UnitFailed` and `NotReadyInTime` end with the unit's last lines. `PolicyRefused` for a masked
        unit, `InvalidResource` for one that systemd refuses or that cannot be enabled.
        """
        self._watcher.note(resources)
        results: dict[int, Change | Exception] = {}
        for numbers in _rounds([unit.name for unit in resources]):
            units = [resources[number] for number in numbers]
            async with self._lock(unit.name for unit in units):
                changes = await self._converge(units, apply=apply)
            results.update(zip(numbers, changes, strict=True))
        return [_of(results[n], unit.name) for n, unit in enumerate(resources)]

    async def identities(self, resource: SystemdUnit) -> frozenset[str]:
        """Return all names of *resource*, as ``unit:NAME``, and ``path:…`` of its file, if we write that."""
        found = await self._bus.look(resource.name)
        return unit_identities(resource, found, self._files.path(resource.name))

    async def observe(self, key: str) -> UnitState | None:
        """As `Reconciler.observe`."""
        return (await self._bus.look(key)).state

    async def remove(self, keys: Sequence[str], *, apply: bool) -> Sequence[Change | Exception]:
        """As `Reconciler.remove`. A unit that had been there before is left, and the Change says so."""
        results: dict[int, Change | Exception] = {}
        for numbers in _rounds(keys):
            names = [keys[number] for number in numbers]
            async with self._lock(names):
                changes = await self._remover.remove(names, apply=apply)
            if apply:
                self._watcher.forget(names)
                self._judge.forget(names)
            results.update(zip(numbers, changes, strict=True))
        return [_of(results[n], key) for n, key in enumerate(keys)]

    async def availability(self) -> Availability:
        """As `Reconciler.availability`; within four seconds."""
        await self._watcher.mend()
        try:
            await self._bus.ping()
        except CapabilityError as error:
            return Availability(available=False, reason=error.message)
        return Availability(available=True)

    async def watch(self, keys: Collection[str], on_change: OnChange) -> None:
        """As `Reconciler.watch`: systemd's own signals, the unit files and drop-ins on the disk, and that
        a unit that was ready answers no more."""
        self._liveness.watch(keys, on_change)
        await self._watcher.watch(keys, on_change)

    async def logs(
        self, key: str, *, lines: int, since: datetime | None = None, after: str | None = None
    ) -> Sequence[LogLine]:
        """As `Logged.logs`: what the journal has of the unit, and what systemd has to say of it."""
        return await self._journal.lines(key, lines=lines, since=since, after=after)

    async def close(self) -> None:
        """As `Reconciler.close`."""
        await self._liveness.close()
        await self._watcher.close()
        self._bus.close()
        self._files.close()

    async def _converge(
        self, units: Sequence[SystemdUnit], *, apply: bool
    ) -> list[Change | Exception]:
        on_disk = await self._files.read(units)
        passes: _Passes = await gather_results(
            list(zip(units, on_disk, strict=True)), self._plan_unit
        )
        if not apply:
            return await gather_results(passes, self._plan_one)
        await self._files.sweep()
        passes = await gather_results(passes, self._judge.tell_what_failed)
        for phase in (self._note, self._disable):
            passes = await gather_results(passes, phase)
        passes = await self._write(passes)
        passes = await gather_results(passes, self._enable)
        if any(isinstance(this, UnitPlan) and this.reloads for this in passes):
            passes = await gather_results(passes, self._reload)
        passes = await gather_results(passes, self._run_job)
        return await gather_results(passes, self._evaluate_health)

    async def _plan_unit(self, looked: tuple[SystemdUnit, OnDisk | Exception]) -> UnitPlan:
        unit, on_disk = looked
        if isinstance(on_disk, Exception):
            raise on_disk
        found = await self._bus.look(unit.name)
        written = self._records.get(unit.id)
        this = plan_unit(
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
            prior=on_disk.prior,
            obstacle=on_disk.obstacle,
            gives_way=on_disk.gives_way,
        )
        if this.replaces_another_s and on_disk.unrestorable is not None:
            raise on_disk.unrestorable
        return this

    async def _plan_one(self, this: UnitPlan) -> Change:
        if this.seen is not None:
            await self._records.put(this.unit.id, this.seen.written)
        return self._judge.plan(this, now=rfc3339(datetime.now(UTC)))

    async def _note(self, this: UnitPlan) -> UnitPlan:
        if this.replaces_another_s and this.before is not None:
            await self._originals.keep(this.unit.id, this.before)
        if this.steps.enable or this.steps.disable:
            texts = (this.unit.content or "", (this.before or b"").decode(errors="replace"))
            others = await self._enabling.others(this.unit.name, this.found, *texts)
            this = attrs.evolve(this, also=others)
        if this.acts:
            await self._records.put(this.unit.id, this.noted.written)
        return this

    async def _disable(self, this: UnitPlan) -> UnitPlan:
        # Before its file is replaced: the new one may no longer say where it is linked from.
        if this.steps.disable:
            await self._bus.disable(this.unit.name)
        if this.giving_back:
            await self._enabling.give_back(this.giving_back)
        return this

    async def _write(self, passes: _Passes) -> _Passes:
        due = [
            this for this in passes if isinstance(this, UnitPlan) and this.steps.write is not None
        ]
        if not due:
            return passes
        taken = [this.unit.name for this in due if this.steps.make_way]
        errors = await self._files.write([this.unit for this in due], taken)
        failed = {this.unit.name: error for this, error in zip(due, errors, strict=True) if error}
        return [
            failed.get(this.unit.name, this) if isinstance(this, UnitPlan) else this
            for this in passes
        ]

    async def _enable(self, this: UnitPlan) -> UnitPlan:
        if this.steps.enable:
            await self._bus.enable(this.unit.name, anew=this.unit.content is not None)
        return this

    async def _reload(self, this: UnitPlan) -> UnitPlan:
        # All of them ask at once, and share one.
        if this.reloads:
            await self._bus.reload()
        return this

    async def _run_job(self, this: UnitPlan) -> UnitPlan:
        if this.steps.job is None:
            return this
        result = await self._jobs.run(this.steps.job, this.unit.name)
        return attrs.evolve(this, job_result=result)

    async def _evaluate_health(self, this: UnitPlan) -> Change:
        found = await self._bus.look(this.unit.name) if this.acts else this.found
        return await self._judge.judge(this, found)

    @asynccontextmanager
    async def _lock(self, names: Iterable[str]) -> AsyncGenerator[None]:
        """One converge or removal of a unit at a time."""
        async with AsyncExitStack() as held:
            for name in sorted(names):  # in one order, or two might wait for each other
                await held.enter_async_context(self._locks[name])
            yield


def _rounds(names: Sequence[str]) -> list[list[int]]:
    """The numbers of *names*, such that no name comes twice in a round."""
    rounds: list[list[int]] = []
    count: defaultdict[str, int] = defaultdict(int)
    for number, name in enumerate(names):
        if count[name] == len(rounds):
            rounds.append([])
        rounds[count[name]].append(number)
        count[name] += 1
    return rounds


def _of(result: Change | Exception, name: str) -> Change | Exception:
    """An error says whose it is. A copy does: several may have met the same one."""
    if isinstance(result, CapabilityError) and result.resource is None:
        result = copy.copy(result)
        result.resource = resource_id(SystemdUnit.resource_type, name)
    return result
