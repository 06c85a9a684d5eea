"""A change of the network on trial: it stays only if the control plane is reached anew, else it goes back.

    reachable now? -> checkpoint -> noted -> written, for this boot only -> brought up
        is not as it was written            -> put back, untried: `DidNotStick`
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
    TimedOut,
)
from harmony_core.reconciler import Backups, Reachability, Records
from harmony_core.resources import ResourceId
from harmony_pi_topology.common.confirmation import (
    UNREACHABLE_S,
    make_not_reached,
    make_rolled_back,
    make_unreachable,
    say_cut_off,
    say_remedy,
)

from .daemon import CheckpointTaken, NetworkDaemon
from .desired import bare
from .health import NetworkUse
from .plan import CONFIRMED
from .profile_plan import NetworkPlan, plan_profile
from .records import FoundNetwork, FoundProfile, NetworkRecord, Trial

__all__ = ["Trials"]

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
        backups: Backups,
        reachability: Reachability,
        monotonic_s: Callable[[], float],
    ) -> None:
        self._daemon = daemon
        self._use = use
        self._records = records
        self._backups = backups
        self._reachability = reachability
        self._monotonic_s = monotonic_s
        self._comes_back_s = 0.0

    async def begin(self, plans: Sequence[NetworkPlan]) -> list[_Result]:
        """Put *plans* on trial together. Each result waits, or is the error that prevented the trial."""
        if not await self._reachability.reachable():
            if self._monotonic_s() < self._comes_back_s:
                return [
                    _waits(plan, "it is begun once the change before it is taken back")
                    for plan in plans
                ]
            return [make_unreachable(plan.id) for plan in plans]
        bare_ones = {
            plan.id: await self._remove_all_addresses(plan) for plan in plans if plan.is_unmade
        }
        if bare_ones:
            return [bare_ones.get(plan.id) or _waits(plan, None) for plan in plans]
        try:
            plans = await self._note_all(plans)
        except CheckpointTaken:
            return [_waits(plan, "another change waits to be confirmed") for plan in plans]
        return await self._try(plans)

    async def settle(self, plans: Sequence[NetworkPlan]) -> list[_Result]:
        """Look at *plans*, which share one trial, and end it if that is possible."""
        # The daemon alone knows whether something is still to be decided: where its checkpoint is gone, it
        # has rolled back. A profile that did not come up ends the trial at once, for all. Steps still due
        # mean that we were killed half-way: they are done again, which is harmless. Then all have to be up,
        # and the control plane reached by a connection made since; only that earns a commit.
        checkpoint = _trial(plans[0].record).checkpoint
        if not await self._daemon.waits(checkpoint):
            return [await self._on_rolled_back(plan) for plan in plans]
        for plan in plans:
            if why := self._use.why_not(plan):
                why = (
                    f"{plan.profile.name} did not come up ({why}; see on the device: "
                    "journalctl -u NetworkManager)"
                )
                return await self._take_back(plans, why)
        if any(plan.steps for plan in plans):
            return await self._try(plans)  # we were killed before all of it was done
        if (waiting := await self._waiting_for(plans)) is not None:
            return waiting
        if not await self._daemon.commit(checkpoint):
            return [await self._on_rolled_back(plan) for plan in plans]
        return [await self._confirm(plan) for plan in plans]

    async def prove_by_use(self, plan: NetworkPlan) -> _Result:
        """Prove *plan*, which is in use as desired because somebody activated it, without a trial."""
        if await self._reachability.reachable():
            # What was in use before the connection proves nothing, unless it still is.
            plan = await self._look_again(plan)
            if plan.proves_itself:
                return await self._confirm(plan)
        return plan.change(plan.found, _not_proven(plan) if plan.is_short_of_its_wish else None)

    async def give_up(self, resource_id: str, record: NetworkRecord) -> NetworkRecord:
        """Roll back a trial that is no longer desired. Return the record without it."""
        await self._daemon.roll_back(_trial(record).checkpoint)
        self._comes_back_s = self._monotonic_s() + _COMES_BACK_WITHIN_S
        await self.undo(resource_id, record)
        record = record.over
        await self._records.put(resource_id, record.written)
        return record

    async def undo(self, resource_id: str, record: NetworkRecord) -> None:
        """Repair what a rollback leaves behind. Idempotent.

        The daemon restores profiles that were in use. It does not restore one that was not in use, or is new;
        and if the daemon was restarted meanwhile, it restores nothing.
        """
        trial, uuid = _trial(record), record.uuid
        name = ResourceId.parse(resource_id).key
        self._use.forget(uuid)
        self._use.is_gone(name)
        there = (await self._daemon.look(name, uuid, None)).profile
        before = await self._backups.get(_backup_key(resource_id))
        if trial.fresh:
            await self._daemon.delete(uuid)
        elif before is not None:
            known, secrets = self._daemon.settings_in(before), self._daemon.secrets_in(before)
            if (
                there is None
                or dict(there.settings) != dict(known)
                or dict(there.secrets) != dict(secrets)
            ):
                await self._daemon.restore(before, keep=trial.saved)
                if trial.was_up and (there is None or there.use != "down"):
                    await self._daemon.activate(uuid, None)
            if not trial.was_up:
                await self._daemon.deactivate(uuid)
        await self._backups.forget(_backup_key(resource_id))

    async def keep(self, resource_id: str, there: FoundProfile) -> Trial:
        """Store a snapshot of *there* for `undo`. Return a trial that has no checkpoint yet."""
        snapshot = await self._daemon.snapshot(there.uuid)
        await self._backups.keep(_backup_key(resource_id), snapshot)
        return Trial(saved=there.saved, was_up=there.use != "down")

    async def forget(self, resource_id: str) -> None:
        """Delete what was stored for `undo`."""
        await self._backups.forget(_backup_key(resource_id))

    async def _waiting_for(self, plans: Sequence[NetworkPlan]) -> list[_Result] | None:
        """Return what prevents the trial from succeeding now; None when nothing does."""
        pending = [self._use.pending(plan, plan.found) for plan in plans]
        if any(pending):
            return [_waits(plan, each) for plan, each in zip(plans, pending, strict=True)]
        if not await self._reachability.reachable():
            return [
                _waits(plan, make_not_reached(plan.id, plan.profile.confirm_within_s))
                for plan in plans
            ]
        return None

    async def _remove_all_addresses(self, plan: NetworkPlan) -> _Result:
        name, interface = plan.profile.name, plan.profile.link.interface
        await self._records.put(plan.id, plan.record.written)
        try:
            if plan.there is None:
                await self._daemon.add(
                    plan.uuid, name, bare(plan.desired), plan.secrets, keep=False
                )
            if plan.there is None or plan.there.use == "down":
                await self._daemon.activate(plan.uuid, interface)
        except CapabilityError as error:
            await self._daemon.delete(plan.uuid)
            return error
        return _waits(plan, f"{interface} is being made")

    async def _note_all(self, plans: Sequence[NetworkPlan]) -> list[NetworkPlan]:
        """Record everything that is needed to go back, before anything is changed."""
        trials = [await self._make_trial(plan) for plan in plans]
        checkpoint = await self._daemon.checkpoint(
            {name for plan in plans for name in plan.interfaces},
            within_s=max(plan.profile.confirm_within_s for plan in plans),
        )
        noted = list[NetworkPlan]()
        for plan, kept in zip(plans, trials, strict=True):
            trial = attrs.evolve(kept, checkpoint=checkpoint, spec=plan.desired.attempt)
            record = attrs.evolve(plan.record, trial=trial, within_s=plan.profile.confirm_within_s)
            await self._records.put(plan.id, record.written)
            noted.append(attrs.evolve(plan, record=record))
        return noted

    async def _make_trial(self, plan: NetworkPlan) -> Trial:
        if plan.there is None or plan.is_fresh:
            return Trial(fresh=True)
        return await self.keep(plan.id, plan.there)

    async def _try(self, plans: Sequence[NetworkPlan]) -> list[_Result]:
        """Write all profiles, and only then activate them: where one cannot be written, nothing was disturbed
        yet."""
        for plan in plans:
            try:
                await self._write(plan)
            except CapabilityError as error:
                await self._daemon.commit(_trial(plan.record).checkpoint)
                return await self._not_begun(plans, plan, error)
        for plan in sorted(plans, key=lambda each: each.rank):
            try:
                await self._use.bring_up(plan)
            except (CapabilityUnavailable, TimedOut):
                raise  # nobody has refused it: the next look goes on, while there is time
            except CapabilityError as error:
                return await self._take_back(plans, f"{plan.profile.name}: {error.message}")
        return [_waits(plan, f"{plan.profile.name} is being brought up") for plan in plans]

    async def _write(self, plan: NetworkPlan) -> None:
        settings = {**plan.steps.write, "connection.autoconnect": False}
        if plan.there is None:
            await self._daemon.add(plan.uuid, plan.profile.name, settings, plan.secrets, keep=False)
        elif plan.steps.changed or plan.there.settings.get("connection.autoconnect", True):
            await self._daemon.change(plan.uuid, settings, plan.secrets, keep=False)
        else:
            return
        found = await self._look(plan)
        error = plan.find_what_did_not_stick(found, settings, on_disk=False)
        if error is not None:
            raise error

    async def _not_begun(
        self, plans: Sequence[NetworkPlan], culprit: NetworkPlan, error: CapabilityError
    ) -> list[_Result]:
        for plan in plans:
            await self.undo(plan.id, plan.record)
            await self._records.put(plan.id, plan.record.over.written)
        return [
            error
            if plan is culprit
            else _waits(
                plan, f"it is changed together with {culprit.profile.name}, which has failed"
            )
            for plan in plans
        ]

    async def _take_back(self, plans: Sequence[NetworkPlan], why: str) -> list[_Result]:
        await self._daemon.roll_back(_trial(plans[0].record).checkpoint)
        return [await self._refuse(plan, f"{why}, and the change was taken back") for plan in plans]

    async def _on_rolled_back(self, plan: NetworkPlan) -> _Result:
        """Return the result for a checkpoint that is gone without the agent's doing: it was rolled back, or
        the daemon was restarted.

        Look again to see which: what was seen before may have been rolled back meanwhile, and then a
        connection proves nothing.
        """
        plan = await self._look_again(plan)
        if plan.there is not None and not plan.steps:
            pending = self._use.pending(plan, plan.found)
            if pending is not None and (plan.found.settling or plan.there.use != "down"):
                return _waits(plan, pending)
            if pending is None and await self._reachability.reachable():
                return await self._confirm(plan)
        return await self._refuse(plan, say_cut_off(plan.profile.confirm_within_s))

    async def _look_again(self, plan: NetworkPlan) -> NetworkPlan:
        return plan_profile(plan.desired, await self._look(plan), plan.record, plan.before)

    async def _look(self, plan: NetworkPlan) -> FoundNetwork:
        return await self._daemon.look(plan.profile.name, plan.uuid, plan.profile.interface)

    async def _refuse(self, plan: NetworkPlan, why: str) -> Exception:
        await self.undo(plan.id, plan.record)
        told = say_remedy(why, "the profile")
        record = plan.record.record_rollback(plan.desired.attempt, told)
        await self._records.put(plan.id, record.written)
        return make_rolled_back(plan.id, told)

    async def _confirm(self, plan: NetworkPlan) -> _Result:
        """Record the proof, and then write the profile to disk: if this is interrupted in between, the next
        look writes it."""
        wrote = dict(plan.desired.settings)
        record = attrs.evolve(plan.wrote, wrote=wrote).record_proof(plan.desired.spec)
        await self._records.put(plan.id, record.written)
        await self._daemon.change(plan.uuid, plan.desired.settings, {}, keep=True)
        await self.forget(plan.id)
        found = await self._look(plan)
        error = plan.find_what_did_not_stick(found, plan.desired.settings, on_disk=True)
        if error is not None:
            return error
        pending = self._use.pending(plan, found)
        return attrs.evolve(plan.change(found, pending), steps=(CONFIRMED,), diff=None)


def _trial(record: NetworkRecord) -> Trial:
    assert record.trial is not None
    return record.trial


def _backup_key(resource_id: str) -> str:
    """Return the id under which `undo`'s snapshot is stored: the id itself has what was there before
    Harmony."""
    return f"{resource_id}#trial"


def _not_proven(plan: NetworkPlan) -> NotReady:
    return NotReady(
        f"{plan.profile.name} is in use, and whether it is at the next boot is settled once the control "
        "plane is reached by it",
        resource=plan.id,
        reason="Progressing",
        look_again_s=UNREACHABLE_S,
    )


def _waits(plan: NetworkPlan, why: NotReady | str | None) -> Change:
    if not isinstance(why, NotReady):
        message = why or "the profiles that are changed together with it are made first"
        why = NotReady(message, resource=plan.id, reason="Progressing", look_again_s=0.5)
    return plan.change(plan.found, why)
