"""A change of the network on trial: it stays only if the control plane is reached anew, else it goes back.

    reachable now? -> checkpoint -> noted -> written, for this boot only -> brought up
        up, and reached by a new connection -> commit -> noted as confirmed -> written to disk
        failed, or given up                 -> rolled back by us
        not reached in time                 -> rolled back by the daemon itself
                                               -> what it leaves behind is put in order -> `NetworkRolledBack`

The daemon holds the checkpoint, so it ends in time whatever becomes of the agent. Until a change is confirmed
nothing of it is on disk, and nothing brings it up by itself: a device that loses its power meanwhile comes
back as it was. What was confirmed once is not tried again, and what was taken back is refused until it is
changed. A change is begun only while the control plane can be reached: it could not be confirmed otherwise,
and would be blamed for what it did not do.

An interface that comes with its profile, such as a bridge, is first made without addresses, so that there is
something to go back to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import attrs

from harmony_core.change import Change, NotReady
from harmony_core.errors import (
    CapabilityError,
    CapabilityUnavailable,
    NetworkRolledBack,
    TimedOut,
)
from harmony_core.reconciler import Backups, Reachability, Records

from .daemon import CheckpointTaken, NetworkDaemon
from .health import NetworkUse
from .plan import CONFIRMED
from .profile_plan import NetworkPlan, plan_profile
from .records import FoundProfile, NetworkRecord, Trial
from .settings import bare

__all__ = ["Trials", "rolled_back", "unreachable"]

_TRY_AGAIN_S = 1.0
_UNREACHABLE_S = 30.0
_COMES_BACK_WITHIN_S = 30.0

_Result: TypeAlias = Change | Exception


class Trials:
    """Begins, settles and gives up changes on trial."""

    def __init__(
        self,
        *,
        daemon: NetworkDaemon,
        use: NetworkUse,
        records: Records,
        originals: Backups,
        reachability: Reachability,
        monotonic_s: Callable[[], float],
    ) -> None:
        self._daemon = daemon
        self._use = use
        self._records = records
        self._originals = originals
        self._reachability = reachability
        self._monotonic_s = monotonic_s
        self._comes_back_s = 0.0

    async def begin(self, passes: Sequence[NetworkPlan]) -> list[_Result]:
        """Put *passes* on trial together. Each result waits, or is what kept it from being tried."""
        if not await self._reachability.reachable():
            if self._monotonic_s() < self._comes_back_s:
                return [_waits(this, "what was before comes back first") for this in passes]
            return [unreachable(this.id) for this in passes]
        bare_ones = {
            this.id: await self._remove_all_addresses(this) for this in passes if this.is_unmade
        }
        if bare_ones:
            return [bare_ones.get(this.id) or _waits(this, None) for this in passes]
        try:
            passes = await self._note_all(passes)
        except CheckpointTaken:
            return [_waits(this, "another change waits to be confirmed") for this in passes]
        return await self._try(passes)

    async def settle(self, passes: Sequence[NetworkPlan]) -> list[_Result]:
        """Look at *passes*, which are on one trial, and end it if it can be."""
        checkpoint = _trial(passes[0].record).checkpoint
        if not await self._daemon.waits(checkpoint):
            return [await self._on_rolled_back(this) for this in passes]
        for this in passes:
            if why := self._use.why_not(this):
                why = f"{this.profile.name} did not come up ({why})"
                return await self._take_back(passes, why)
        if any(this.steps for this in passes):
            return await self._try(passes)  # we were killed before all of it was done
        if (waiting := await self._waiting_for(passes)) is not None:
            return waiting
        if not await self._daemon.commit(checkpoint):
            return [await self._on_rolled_back(this) for this in passes]
        return [await self._confirm(this) for this in passes]

    async def by_use(self, this: NetworkPlan) -> Change:
        """Prove *this*, which is in use as wished, though nobody has tried it: somebody brought it up."""
        if await self._reachability.reachable():
            # What was in use before the connection proves nothing, unless it still is.
            this = await self._look_again(this)
            if this.proves_itself:
                return await self._confirm(this)
        return this.change(this.found, _not_proven(this) if this.is_short_of_its_wish else None)

    async def give_up(self, resource_id: str, record: NetworkRecord) -> NetworkRecord:
        """End a trial that nobody wants any more: the record without it."""
        await self._daemon.roll_back(_trial(record).checkpoint)
        self._comes_back_s = self._monotonic_s() + _COMES_BACK_WITHIN_S
        await self.undo(resource_id, record)
        record = record.over
        await self._records.put(resource_id, record.written)
        return record

    async def undo(self, resource_id: str, record: NetworkRecord) -> None:
        """Put in order what a rollback leaves behind. Idempotent.

        The daemon puts back what was in use. A profile that was not, or is new, it leaves as it is; and if
        it was itself started anew meanwhile, everything.
        """
        trial, uuid = _trial(record), record.uuid
        name = resource_id.partition(":")[2]
        self._use.forget(uuid)
        self._use.is_gone(name)
        there = (await self._daemon.look(name, uuid, None)).profile
        before = await self._originals.get(_backup_key(resource_id))
        if trial.fresh:
            await self._daemon.delete(uuid)
        elif before is not None:
            known = self._daemon.settings_in(before)
            if there is None or dict(there.settings) != dict(known):
                await self._daemon.restore(before, keep=trial.saved)
                if trial.was_up and (there is None or there.use != "down"):
                    await self._daemon.activate(uuid, None)
            if not trial.was_up:
                await self._daemon.deactivate(uuid)
        await self._originals.forget(_backup_key(resource_id))

    async def keep(self, resource_id: str, there: FoundProfile) -> Trial:
        """Keep what is there, for `undo`: a trial that still has no checkpoint."""
        snapshot = await self._daemon.snapshot(there.uuid)
        await self._originals.keep(_backup_key(resource_id), snapshot)
        return Trial(saved=there.saved, was_up=there.use != "down")

    async def forget(self, resource_id: str) -> None:
        """What was kept for `undo` is not needed any more."""
        await self._originals.forget(_backup_key(resource_id))

    async def _waiting_for(self, passes: Sequence[NetworkPlan]) -> list[_Result] | None:
        """What keeps the trial from ending well; None when nothing does."""
        pending = [self._use.pending(this, this.found) for this in passes]
        if any(pending):
            return [_waits(this, each) for this, each in zip(passes, pending, strict=True)]
        if not await self._reachability.reachable():
            return [_waits(this, _not_reached(this)) for this in passes]
        return None

    async def _remove_all_addresses(self, this: NetworkPlan) -> _Result:
        name, interface = this.profile.name, this.profile.link.interface
        await self._records.put(this.id, this.record.written)
        try:
            if this.there is None:
                await self._daemon.add(this.uuid, name, bare(this.desired), None, keep=False)
            if this.there is None or this.there.use == "down":
                await self._daemon.activate(this.uuid, interface)
        except CapabilityError as error:
            await self._daemon.delete(this.uuid)
            return error
        return _waits(this, f"{interface} is being made")

    async def _note_all(self, passes: Sequence[NetworkPlan]) -> list[NetworkPlan]:
        """Everything that is needed to go back, before anything is touched."""
        trials = [await self._make_trial(this) for this in passes]
        checkpoint = await self._daemon.checkpoint(
            {name for this in passes for name in this.interfaces},
            within_s=max(this.profile.confirm_within_s for this in passes),
        )
        noted = list[NetworkPlan]()
        for this, kept in zip(passes, trials, strict=True):
            trial = attrs.evolve(kept, checkpoint=checkpoint, spec=this.desired.spec)
            record = attrs.evolve(this.record, trial=trial, within_s=this.profile.confirm_within_s)
            await self._records.put(this.id, record.written)
            noted.append(attrs.evolve(this, record=record))
        return noted

    async def _make_trial(self, this: NetworkPlan) -> Trial:
        if this.there is None or this.is_fresh:
            return Trial(fresh=True)
        return await self.keep(this.id, this.there)

    async def _try(self, passes: Sequence[NetworkPlan]) -> list[_Result]:
        """Write all, and only then bring up: what cannot be written has not disturbed anything yet."""
        for this in passes:
            try:
                await self._write(this)
            except CapabilityError as error:
                await self._daemon.commit(_trial(this.record).checkpoint)
                return await self._not_begun(passes, this, error)
        for this in sorted(passes, key=lambda each: each.rank):
            try:
                await self._use.bring_up(this)
            except (CapabilityUnavailable, TimedOut):
                raise  # nobody has refused it: the next look goes on, while there is time
            except CapabilityError as error:
                return await self._take_back(passes, f"{this.profile.name}: {error.message}")
        return [_waits(this, f"{this.profile.name} is being brought up") for this in passes]

    async def _write(self, this: NetworkPlan) -> None:
        settings = {**this.steps.write, "connection.autoconnect": False}
        if this.there is None:
            await self._daemon.add(this.uuid, this.profile.name, settings, this.psk, keep=False)
        elif this.steps.change or this.there.settings.get("connection.autoconnect", True):
            await self._daemon.change(this.uuid, settings, this.psk, keep=False)

    async def _not_begun(
        self, passes: Sequence[NetworkPlan], culprit: NetworkPlan, error: CapabilityError
    ) -> list[_Result]:
        for this in passes:
            await self.undo(this.id, this.record)
            await self._records.put(this.id, this.record.over.written)
        return [
            error if this is culprit else _waits(this, f"{culprit.profile.name} comes first")
            for this in passes
        ]

    async def _take_back(self, passes: Sequence[NetworkPlan], why: str) -> list[_Result]:
        await self._daemon.roll_back(_trial(passes[0].record).checkpoint)
        return [
            await self._refuse(this, f"{why}, and the change was taken back") for this in passes
        ]

    async def _on_rolled_back(self, this: NetworkPlan) -> _Result:
        """The checkpoint is gone, and it was not us: it was rolled back, or the daemon began anew.

        Which of them is seen by looking now: what was seen before may have been taken back meanwhile, and
        then a connection says nothing of it.
        """
        this = await self._look_again(this)
        if this.there is not None and not this.steps:
            pending = self._use.pending(this, this.found)
            if pending is not None and (this.found.settling or this.there.use != "down"):
                return _waits(this, pending)
            if pending is None and await self._reachability.reachable():
                return await self._confirm(this)
        within = f"within {this.profile.confirm_within_s} s"
        return await self._refuse(
            this,
            f"the change cut this device off: its control plane was not reached anew {within}, so "
            "the change was taken back",
        )

    async def _look_again(self, this: NetworkPlan) -> NetworkPlan:
        found = await self._daemon.look(this.profile.name, this.uuid, this.profile.link.interface)
        return plan_profile(this.desired, found, this.record, this.before)

    async def _refuse(self, this: NetworkPlan, why: str) -> Exception:
        await self.undo(this.id, this.record)
        told = f"{why}; correct the profile, or remove the Score and push it anew to try again"
        record = this.record.taken_back(this.desired.spec, told)
        await self._records.put(this.id, record.written)
        return rolled_back(this.id, told)

    async def _confirm(self, this: NetworkPlan) -> Change:
        """In this order: what is confirmed and not yet on disk is written there by the next look."""
        wrote = dict(this.desired.settings)
        record = attrs.evolve(this.wrote, wrote=wrote).proven(this.desired.spec)
        await self._records.put(this.id, record.written)
        await self._daemon.change(this.uuid, this.desired.settings, None, keep=True)
        await self.forget(this.id)
        return attrs.evolve(this.change(this.found, None), actions=(CONFIRMED,), diff=None)


def unreachable(resource_id: str) -> CapabilityUnavailable:
    """Why a change is not begun now."""
    return CapabilityUnavailable(
        "the control plane is not reachable, so that a change of the network could not be confirmed; "
        "it is made once it is",
        resource=resource_id,
        retry_after_s=_UNREACHABLE_S,
    )


def rolled_back(resource_id: str, told: str) -> NetworkRolledBack:
    """What is told of a change that was taken back, at once and at every later look."""
    return NetworkRolledBack(told, resource=resource_id)


def _trial(record: NetworkRecord) -> Trial:
    assert record.trial is not None
    return record.trial


def _backup_key(resource_id: str) -> str:
    """Beside what was there before us, which is kept under the id itself."""
    return f"{resource_id}#trial"


def _not_proven(this: NetworkPlan) -> NotReady:
    return NotReady(
        f"{this.profile.name} is in use, and whether it is at the next boot is settled once the control "
        "plane is reached by it",
        resource=this.id,
        reason="Progressing",
        look_again_s=_UNREACHABLE_S,
    )


def _not_reached(this: NetworkPlan) -> NotReady:
    return NotReady(
        "the control plane is not reached anew yet; "
        f"unless it is within {this.profile.confirm_within_s} s, the change is taken back",
        resource=this.id,
        reason="Progressing",
        look_again_s=_TRY_AGAIN_S,
    )


def _waits(this: NetworkPlan, why: NotReady | str | None) -> Change:
    if not isinstance(why, NotReady):
        message = why or "the others of its change come first"
        why = NotReady(message, resource=this.id, reason="Progressing", look_again_s=0.5)
    return this.change(this.found, why)
