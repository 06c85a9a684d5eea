"""Taking units away: what the record says was done here is undone, and nothing else.

stop (waited for a few seconds; while it is still stopping: NotReady, and nothing else yet)
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
from harmony_pi_topology.common.gather import gather_results

from .enabling import Enabling
from .health_rules import frozen, how_its_job_ended, how_its_stop_ended
from .plan import Removal, removal_due, state_after_removal
from .queued_jobs import GOOD_ENDS, Jobs
from .records import FoundUnit, UnitRecord
from .sdbus import SystemdBus
from .unit_files import UnitFiles

__all__ = ["Remover"]

_LOOK_AGAIN_S = 1.0
_NOTHING: Mapping[str, bool] = {}


@attrs.frozen(kw_only=True)
class _Leaving:
    """One unit on its way out."""

    name: str
    found: FoundUnit
    record: UnitRecord | None
    due: Removal
    file: bytes | None = None
    original: bytes | None = None
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
            stopping = ("stopped",) if self.due.stop else ()
            pending = _still_stopping(self)
            return Change(
                resource=self.id, actions=stopping, before=before, after=before, pending=pending
            )
        words = self.due.words
        if self.not_back:
            brought_back = ("started", "restarted: its file changed")
            words = tuple(each for each in words if each not in brought_back)
            words = (*words, f"left as it is: {self.name} {self.not_back}")
        return Change(resource=self.id, actions=words, before=before, after=self.left)

    @property
    def expected(self) -> UnitState | None:
        """What is left to be seen once what is due is done."""
        stays = not self.ours or self.due.job is not None
        return state_after_removal(self.found, self.due) if stays else None


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
        originals: Backups,
    ) -> None:
        self._bus = bus
        self._files = files
        self._enabling = enabling
        self._jobs = jobs
        self._records = records
        self._originals = originals

    async def remove(self, names: Sequence[str], *, apply: bool) -> list[Change | Exception]:
        """Take away what was made under each of *names*. Idempotent."""
        if apply:
            await self._files.sweep()
        files = await self._files.contents(names)
        leaving = await gather_results(list(zip(names, files, strict=True)), self._look_at)
        if not apply:
            return [
                this
                if isinstance(this, Exception)
                else attrs.evolve(this, left=this.expected).change
                for this in leaving
            ]
        leaving = await gather_results(leaving, self._stop)
        leaving = await gather_results(leaving, self._note_others)
        leaving = await gather_results(leaving, self._undo)
        if any(isinstance(this, _Leaving) and this.reloads for this in leaving):
            leaving = await gather_results(leaving, self._reload)
        leaving = await gather_results(leaving, self._bring_back)
        leaving = await gather_results(leaving, self._forget)
        leaving = await gather_results(leaving, self._seen)
        await asyncio.gather(*map(self._forget_original, names))
        return [this if isinstance(this, Exception) else this.change for this in leaving]

    async def _look_at(self, named: tuple[str, bytes | Exception | None]) -> _Leaving:
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
            return _Leaving(name=name, found=found, record=None, due=Removal())
        if found.unit_id not in {"", name}:
            # Somebody has made our name another one of theirs: what that unit is, or does, is not ours.
            due = Removal(leave=f"left: it is another name of {found.unit_id}")
            return _Leaving(name=name, found=found, record=None, due=due)
        record = UnitRecord.read(written)
        original = await self._original(name, record)
        due = removal_due(found, record, file=file, original=original)
        return _Leaving(
            name=name, found=found, record=record, due=due, file=file, original=original
        )

    async def _original(self, name: str, record: UnitRecord) -> bytes | None:
        if record.prior is None or record.left:
            return None
        return await self._originals.get(resource_id(SystemdUnit.resource_type, name))

    async def _stop(self, this: _Leaving) -> _Leaving:
        acts = this.ours or this.due.stop or this.due.job is not None
        if acts and this.found.frozen and not this.found.is_dead:
            raise UnitFailed(f"{this.name} {frozen(this.name)}")
        if this.due.stop:
            result = await self._jobs.run("stop", this.name)
            now = await self._bus.look(this.name)
            if result is not None and result not in GOOD_ENDS and not now.is_dead:
                raise UnitFailed(f"{this.name} {how_its_stop_ended(result, this.name)}")
            return attrs.evolve(this, stopping=not now.is_dead)
        dying = this.ours and this.due.job is None and not this.found.is_dead
        return attrs.evolve(this, stopping=dying)

    async def _note_others(self, this: _Leaving) -> _Leaving:
        """Note, before the deed, what of others is enabled or not once this is taken away."""
        links = this.due.disable or this.due.enable or this.due.relink
        if this.stopping or this.record is None:
            return this
        if not links:
            return attrs.evolve(this, giving_back=this.record.giving_back)
        texts = [(each or b"").decode(errors="replace") for each in (this.file, this.original)]
        others = await self._enabling.others(this.name, this.found, *texts)
        wanted = this.record.also_wanted(others)
        if wanted:
            record = attrs.evolve(this.record, giving_back=wanted)
            await self._records.put(this.id, record.written)
            return attrs.evolve(this, giving_back=wanted, record=record)
        return this

    async def _undo(self, this: _Leaving) -> _Leaving:
        if not this.stopping:
            if this.due.disable:
                await self._bus.disable(this.name)
            if this.due.remove_file:
                await self._files.remove(this.name)
            if this.ours and this.name.endswith(".timer"):
                await self._files.remove_stamp(this.name)
            if this.due.put_back and this.original is not None and this.record is not None:
                await self._files.put_back(this.name, this.original, this.record.prior or {})
        return this

    async def _reload(self, this: _Leaving) -> _Leaving:
        if this.reloads:
            await self._bus.reload()
        return this

    async def _bring_back(self, this: _Leaving) -> _Leaving:
        if this.stopping:
            return this
        if this.due.enable or this.due.relink:
            await self._bus.enable(this.name, anew=True)
        await self._enabling.give_back(this.giving_back)
        if this.due.job is not None:
            if not this.reloads and (await self._bus.look(this.name)).is_outdated:
                await self._bus.reload()
            # Whether it then stays up is its owner's affair again: nobody waits for that here.
            result = await self._jobs.run(this.due.job, this.name)
            if result is not None and result not in GOOD_ENDS:
                now = await self._bus.look(this.name)
                return attrs.evolve(this, not_back=how_its_job_ended(result, now))
        return this

    async def _forget(self, this: _Leaving) -> _Leaving:
        if this.record is None and this.due.leave:
            await self._records.forget(this.id)
        if this.stopping or this.record is None:
            return this
        if this.due.job is None and (this.ours or this.due.stop):
            await self._bus.let_go(this.name)
            await self._bus.reset_failed(this.name)
        if not this.ours and this.found.exists:
            # So that doing it again finds nothing to do, rather than a stranger's unit.
            await self._records.put(
                this.id, attrs.evolve(this.record, left=True, giving_back=_NOTHING).written
            )
        else:
            await self._records.forget(this.id)
        return this

    async def _seen(self, this: _Leaving) -> _Leaving:
        """What is told of it in the end is what is there."""
        acted = bool(this.due.words) or this.reloads
        now = await self._bus.look(this.name) if acted and not this.stopping else this.found
        return attrs.evolve(this, left=now.state)

    async def _forget_original(self, name: str) -> None:
        """Last: as long as the record says that it is there, it is. Also one that no record ever spoke of,
        or does not any more: whoever was here before may have been killed in between."""
        rid = resource_id(SystemdUnit.resource_type, name)
        written = self._records.get(rid)
        if written is None or UnitRecord.read(written).left:
            await self._originals.forget(rid)


def _still_stopping(this: _Leaving) -> NotReady:
    return NotReady(
        f"{this.name} is being stopped",
        resource=this.id,
        reason="Progressing",
        look_again_s=_LOOK_AGAIN_S,
    )
