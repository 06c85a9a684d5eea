"""Remove units: what the record says was done here is undone, and nothing else.

stop (waited for a few seconds; while it is still stopping: NotReady, and nothing else yet; where that takes
back what was done, one that does not run is started for it, and it has to succeed)
disable, remove our unit file or put back the one before -> one reload -> enable, start what was so before
-> let systemd forget it -> forget the record, last
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import attrs

from harmony_core.change import Change, NotReady
from harmony_core.errors import NotOurs, UnitFailed
from harmony_core.reconciler import Backups, Records
from harmony_core.resources import SystemdUnit, UnitState, resource_id
from harmony_core.steps import Did, Left, Stopped
from harmony_pi_topology.common.gather import gather_results
from harmony_pi_topology.common.journal import JournalTail
from harmony_pi_topology.common.log_tail import LOG_TAIL_LINES, log_tail

from .enabling import Enabling
from .health_rules import (
    describe_end,
    describe_frozen,
    describe_held_socket,
    describe_job_end,
    describe_stop_end,
)
from .plan import Removal, plan_removal, predict_state_after_removal
from .queued_jobs import GOOD_ENDS, Jobs
from .records import FoundUnit, UnitRecord
from .sdbus import SystemdBus
from .unit_files import UnitFiles

__all__ = ["Remover"]

_LOOK_AGAIN_S = 1.0
_NOTHING: Mapping[str, bool] = {}


@attrs.frozen(kw_only=True)
class _UnitRemoval:
    """One unit on its way out."""

    name: str
    found: FoundUnit
    record: UnitRecord | None
    due: Removal
    file: bytes | None = None
    backup: bytes | None = None
    stopping: bool = False
    giving_back: Mapping[str, bool] = attrs.field(factory=dict[str, bool])
    """What is to be enabled or not besides, in the end."""
    not_back: str = ""
    """Why it does not run again as it did before us."""
    left: UnitState | None = None
    """How it was found in the end."""

    @property
    def id(self) -> str:
        return resource_id(SystemdUnit.resource_type, self.name)

    @property
    def ours(self) -> bool:
        return self.record is not None and self.record.wrote and not self.record.existed

    @property
    def reloads(self) -> bool:
        # Also when the file is gone already: we may have been killed before systemd was told.
        return not self.stopping and (self.ours or self.due.reloads)

    @property
    def change(self) -> Change:
        before = self.found.state
        if self.stopping:
            stopping = (Stopped(),) if self.due.stop else ()
            pending = _still_stopping(self)
            return Change(
                resource=self.id, steps=stopping, before=before, after=before, pending=pending
            )
        steps = self.due.in_order
        if self.not_back:
            others = attrs.evolve(self.due, job=None).in_order
            steps = (*others, Did(f"left as it is: {self.name} {self.not_back}"))
        return Change(resource=self.id, steps=steps, before=before, after=self.left)

    @property
    def expected(self) -> UnitState | None:
        """What is left to be seen once what is due is done."""
        stays = not self.ours or self.due.job is not None or bool(self.found.members)
        return predict_state_after_removal(self.found, self.due) if stays else None


class Remover:
    """Needs nothing but the records: neither the Scores nor what they wished for."""

    def __init__(
        self,
        *,
        bus: SystemdBus,
        files: UnitFiles,
        enabling: Enabling,
        jobs: Jobs,
        records: Records,
        backups: Backups,
        journal_tail: JournalTail,
    ) -> None:
        self._bus = bus
        self._files = files
        self._enabling = enabling
        self._jobs = jobs
        self._records = records
        self._backups = backups
        self._journal_tail = journal_tail
        self._slow_to_stop: set[str] = set()

    async def remove(self, names: Sequence[str], *, apply: bool) -> list[Change | Exception]:
        """Remove what was made under each of *names*. Idempotent."""
        if apply:
            await self._files.sweep()
        files = await self._files.list_contents(names)
        removals = await gather_results(list(zip(names, files, strict=True)), self._look_at)
        if not apply:
            return [
                removal
                if isinstance(removal, Exception)
                else attrs.evolve(removal, left=removal.expected).change
                for removal in removals
            ]
        removals = await gather_results(removals, self._stop)
        removals = await gather_results(removals, self._note_others)
        removals = await gather_results(removals, self._undo)
        if any(isinstance(removal, _UnitRemoval) and removal.reloads for removal in removals):
            removals = await gather_results(removals, self._reload)
        removals = await gather_results(removals, self._bring_back)
        removals = await gather_results(removals, self._forget)
        removals = await gather_results(removals, self._observe)
        await asyncio.gather(*map(self._forget_backup, names))
        return [
            removal if isinstance(removal, Exception) else removal.change for removal in removals
        ]

    async def _look_at(self, named: tuple[str, bytes | Exception | None]) -> _UnitRemoval:
        name, file = named
        if isinstance(file, Exception):
            raise file
        found = await self._bus.look(name)
        written = self._records.get(resource_id(SystemdUnit.resource_type, name))
        if written is None:
            if found.exists:
                raise NotOurs(
                    f"{name} is there, and Harmony did not touch it; remove it by hand, "
                    "or leave it out of the Score"
                )
            return _UnitRemoval(name=name, found=found, record=None, due=Removal())
        if found.unit_id not in {"", name}:
            # Somebody has made our name another one of theirs: what that unit is, or does, is not ours.
            due = Removal(leave=Left(f"it is another name of {found.unit_id}"))
            return _UnitRemoval(name=name, found=found, record=None, due=due)
        record = UnitRecord.read(written)
        backup = await self._backup(name, record)
        due = plan_removal(found, record, file=file, backup=backup)
        return _UnitRemoval(
            name=name, found=found, record=record, due=due, file=file, backup=backup
        )

    async def _backup(self, name: str, record: UnitRecord) -> bytes | None:
        if record.prior is None or record.left:
            return None
        return await self._backups.get(resource_id(SystemdUnit.resource_type, name))

    async def _stop(self, removal: _UnitRemoval) -> _UnitRemoval:
        acts = removal.ours or removal.due.stop or removal.due.job is not None
        if acts and removal.found.frozen and not removal.found.is_dead:
            raise UnitFailed(f"{removal.name} {describe_frozen(removal.name)}")
        if removal.due.stop:
            name, takes_back = removal.name, removal.due.takes_back
            # What has ended well since our last look has run already what takes back.
            has_ended = name in self._slow_to_stop and removal.found.active == "inactive"
            self._slow_to_stop.discard(name)
            if takes_back and removal.found.is_dead and not has_ended:
                await self._jobs.run("start", name)
                # Of one that does not run, systemd runs nothing when it is stopped.
                if (begun := await self._bus.look(name)).is_dead:
                    raise await self._make_not_taken_back(name, begun)
            result = await self._jobs.run("stop", name)
            now = await self._bus.look(name)
            if result is not None and result not in GOOD_ENDS and not now.is_dead:
                raise UnitFailed(f"{name} {describe_stop_end(result, name)}")
            if takes_back and now.active == "failed":
                raise await self._make_not_taken_back(name, now)
            if not now.is_dead:
                self._slow_to_stop.add(name)
            return attrs.evolve(removal, stopping=not now.is_dead)
        dying = removal.ours and removal.due.job is None and not removal.found.is_dead
        return attrs.evolve(removal, stopping=dying and not removal.found.is_slice)

    async def _make_not_taken_back(self, name: str, found: FoundUnit) -> UnitFailed:
        tail = log_tail((await self._journal_tail(name, LOG_TAIL_LINES)).encode())
        return UnitFailed(f"{name} has not taken back what was done: {describe_end(found)}{tail}")

    async def _note_others(self, removal: _UnitRemoval) -> _UnitRemoval:
        """Record, before the change, which other units are enabled or not once this one is removed."""
        links = removal.due.disable or removal.due.enable or removal.due.relink
        if removal.stopping or removal.record is None:
            return removal
        if not links:
            return attrs.evolve(removal, giving_back=removal.record.giving_back)
        texts = [(each or b"").decode(errors="replace") for each in (removal.file, removal.backup)]
        others = await self._enabling.others(removal.name, removal.found, *texts)
        wanted = removal.record.also_wanted(others)
        if wanted:
            record = attrs.evolve(removal.record, giving_back=wanted)
            await self._records.put(removal.id, record.written)
            return attrs.evolve(removal, giving_back=wanted, record=record)
        return removal

    async def _undo(self, removal: _UnitRemoval) -> _UnitRemoval:
        if not removal.stopping:
            if removal.due.disable:
                await self._bus.disable(removal.name)
            if removal.due.remove_file:
                await self._files.remove(removal.name)
            if removal.ours and removal.name.endswith(".timer"):
                await self._files.remove_stamp(removal.name)
            if removal.due.put_back and removal.backup is not None and removal.record is not None:
                await self._files.put_back(removal.name, removal.backup, removal.record.prior or {})
        return removal

    async def _reload(self, removal: _UnitRemoval) -> _UnitRemoval:
        if removal.reloads:
            await self._bus.reload()
        return removal

    async def _bring_back(self, removal: _UnitRemoval) -> _UnitRemoval:
        if removal.stopping:
            return removal
        if removal.due.enable or removal.due.relink:
            await self._bus.enable(removal.name, anew=True)
        await self._enabling.give_back(removal.giving_back)
        if removal.due.job is not None:
            if not removal.reloads and (await self._bus.look(removal.name)).is_outdated:
                await self._bus.reload()
            if held := (await self._bus.look(removal.name)).running_services:
                return attrs.evolve(removal, not_back=describe_held_socket(removal.name, held))
            # Whether it then stays up is its owner's affair again: nobody waits for that here.
            result = await self._jobs.run(removal.due.job, removal.name)
            if result is not None and result not in GOOD_ENDS:
                now = await self._bus.look(removal.name)
                return attrs.evolve(removal, not_back=describe_job_end(result, now))
        return removal

    async def _forget(self, removal: _UnitRemoval) -> _UnitRemoval:
        if removal.record is None and removal.due.leave:
            await self._records.forget(removal.id)
        if removal.stopping or removal.record is None:
            return removal
        if removal.due.job is None and (removal.ours or removal.due.stop):
            await self._bus.let_go(removal.name)
            await self._bus.reset_failed(removal.name)
        if not removal.ours and removal.found.exists:
            # So that doing it again finds nothing to do, rather than a stranger's unit.
            await self._records.put(
                removal.id, attrs.evolve(removal.record, left=True, giving_back=_NOTHING).written
            )
        else:
            await self._records.forget(removal.id)
        return removal

    async def _observe(self, removal: _UnitRemoval) -> _UnitRemoval:
        """Look at the unit after the removal, since what is reported in the end is what is there."""
        acted = bool(removal.due.in_order) or removal.reloads
        now = (
            await self._bus.look(removal.name) if acted and not removal.stopping else removal.found
        )
        return attrs.evolve(removal, left=now.state)

    async def _forget_backup(self, name: str) -> None:
        """Forget the backup, after everything else: as long as the record says that it exists, it does.

        Forget also one that no record mentions, or mentions no longer: an earlier run may have been killed in
        between.
        """
        rid = resource_id(SystemdUnit.resource_type, name)
        written = self._records.get(rid)
        if written is None or UnitRecord.read(written).left:
            await self._backups.forget(rid)


def _still_stopping(removal: _UnitRemoval) -> NotReady:
    return NotReady(
        f"{removal.name} is being stopped",
        resource=removal.id,
        reason="Progressing",
        look_again_s=_LOOK_AGAIN_S,
    )
