"""Taking network profiles away: ours go, one that was taken over is put back as it was.

    look -> not in use:  delete or restore                               -> forgotten, last
         -> in use:      the same on trial, by `harmony_pi_topology.network.trial` -> confirmed -> forgotten
                                                                         -> taken back: it stays, and is told

Works from the record alone. What somebody has changed since we wrote it is left as it is.
"""

from __future__ import annotations

import attrs

from harmony_core.change import Change, NotReady
from harmony_core.errors import CapabilityError, NotOurs
from harmony_core.reconciler import Backups, Reachability, Records
from harmony_core.resources import NetworkProfile, resource_id

from .daemon import CheckpointTaken, NetworkDaemon
from .plan import CONFIRMED, LEFT
from .records import TAKING_AWAY, FoundProfile, NetworkRecord
from .settings import differences, profile_uuid
from .trial import Trials, rolled_back, unreachable

__all__ = ["NetworkRemover"]

_LOOK_AGAIN_S = 1.0


@attrs.frozen(kw_only=True)
class _Leaving:
    """One profile on its way out."""

    name: str
    record: NetworkRecord
    there: FoundProfile
    prior: bytes | None
    """What it was before it was taken over."""

    @property
    def id(self) -> str:
        return resource_id(NetworkProfile.resource_type, self.name)

    @property
    def is_left(self) -> bool:
        """It was there before us, and is not what we wrote."""
        changed = differences(self.there.settings, self.record.wrote, self.record.wrote)
        return not self.record.made and (self.prior is None or bool(changed))

    @property
    def words(self) -> tuple[str, ...]:
        if self.is_left:
            return (LEFT,)
        down = ("took down",) if self.goes_down else ()
        return (*down, "removed" if self.record.made else "put back as it was")

    @property
    def goes_down(self) -> bool:
        return self.there.use != "down" and (self.record.made or not self.record.was_up)

    def change(self, actions: tuple[str, ...], pending: NotReady | None = None) -> Change:
        stays = self.is_left or not self.record.made
        after = self.there.state if stays or pending is not None else None
        return Change(
            resource=self.id,
            actions=actions,
            before=self.there.state,
            after=after,
            pending=pending,
        )


class NetworkRemover:
    """Needs nothing but the records, and what was kept: neither the Scores nor what they wished for."""

    def __init__(
        self,
        *,
        daemon: NetworkDaemon,
        trials: Trials,
        records: Records,
        originals: Backups,
        reachability: Reachability,
    ) -> None:
        self._daemon = daemon
        self._trials = trials
        self._records = records
        self._originals = originals
        self._reachability = reachability

    async def remove(self, name: str, *, apply: bool) -> Change:
        """Take away what was made under *name*. Idempotent."""
        rid = resource_id(NetworkProfile.resource_type, name)
        written = self._records.get(rid)
        record = NetworkRecord.read(written) if written is not None else await self._adopt(name)
        if record is None:
            return Change(resource=rid)
        if apply and record.trial is not None and record.trial.spec != TAKING_AWAY:
            record = await self._trials.give_up(rid, record)
        if record.trial is not None and apply:
            return await self._finish(name, record)
        return await self._take_away(name, record, apply=apply)

    async def _adopt(self, name: str) -> NetworkRecord | None:
        """Our record is lost, but a profile says that it is ours; None when there is none at all."""
        found = await self._daemon.look(name, profile_uuid(name), None)
        if found.profile is not None and found.profile.label:
            return NetworkRecord(uuid=found.profile.uuid, made=True)
        if found.profile is not None or found.namesakes:
            raise NotOurs(
                f"a network profile {name} is there that Harmony did not make; remove it by hand, "
                "or leave it out of the Score"
            )
        return None

    async def _take_away(self, name: str, record: NetworkRecord, *, apply: bool) -> Change:
        rid = resource_id(NetworkProfile.resource_type, name)
        there = (await self._daemon.look(name, record.uuid, None)).profile
        if there is None:
            if apply:
                await self._forgotten(rid)
            return Change(resource=rid)
        prior = await self._originals.get(rid)
        this = _Leaving(name=name, record=record, there=there, prior=prior)
        if record.left:
            return this.change(())
        if not apply:
            return this.change(this.words)
        if this.is_left or there.use == "down":
            if not this.is_left:
                await self._undone(this, keep=True)
            await self._let_go(this)
            return this.change(this.words)
        return await self._start_trial(this)

    async def _start_trial(self, this: _Leaving) -> Change:
        """It is in use, so what is without it must prove itself."""
        if this.record.refused == TAKING_AWAY:
            raise rolled_back(this.id, this.record.refusal)
        if not await self._reachability.reachable():
            raise unreachable(this.id)
        kept = await self._trials.keep(this.id, this.there)
        try:
            checkpoint = await self._daemon.checkpoint(
                {this.there.interface}, within_s=this.record.within_s
            )
        except CheckpointTaken:
            return this.change((), _waits(this.id, "another change waits to be confirmed"))
        trial = attrs.evolve(kept, checkpoint=checkpoint, spec=TAKING_AWAY)
        record = attrs.evolve(this.record, trial=trial)
        await self._records.put(this.id, record.written)
        try:
            await self._undone(this, keep=False)
        except CapabilityError:
            await self._trials.give_up(this.id, record)
            raise
        return this.change(this.words, _waits(this.id, f"{this.name} is being taken down"))

    async def _finish(self, name: str, record: NetworkRecord) -> Change:
        rid = resource_id(NetworkProfile.resource_type, name)
        assert record.trial is not None
        if await self._daemon.waits(record.trial.checkpoint):
            if not await self._reachability.reachable():
                return await self._waiting(name, record)
            if await self._daemon.commit(record.trial.checkpoint):
                return await self._confirm(name, record)
        # The checkpoint is gone, and it was not us. Only a look from now on says what that has come to.
        elif await self._is_undone(name, record) and await self._reachability.reachable():
            return await self._confirm(name, record)  # killed after the commit
        await self._trials.undo(rid, record)
        told = (
            f"without {name} the control plane was not reached within {record.within_s} s, so the "
            "profile was put back; bring the device there by another way first, or remove the "
            f"profile on the device, with nmcli connection delete '{name}'"
        )
        await self._records.put(rid, record.taken_back(TAKING_AWAY, told).written)
        raise rolled_back(rid, told)

    async def _is_undone(self, name: str, record: NetworkRecord) -> bool:
        """Whether it is away, or as it was before us."""
        there = (await self._daemon.look(name, record.uuid, None)).profile
        if record.made or there is None:
            return there is None
        prior = await self._originals.get(resource_id(NetworkProfile.resource_type, name))
        return prior is not None and dict(there.settings) == dict(self._daemon.settings_in(prior))

    async def _waiting(self, name: str, record: NetworkRecord) -> Change:
        rid = resource_id(NetworkProfile.resource_type, name)
        there = (await self._daemon.look(name, record.uuid, None)).profile
        state = there.state if there is not None else None
        pending = _waits(rid, f"the control plane is not reached without {name} yet")
        return Change(resource=rid, before=state, after=state, pending=pending)

    async def _confirm(self, name: str, record: NetworkRecord) -> Change:
        rid = resource_id(NetworkProfile.resource_type, name)
        there = (await self._daemon.look(name, record.uuid, None)).profile
        prior = await self._originals.get(rid)
        if there is not None and prior is not None:
            await self._daemon.restore(prior, keep=True)
        await self._trials.forget(rid)
        if there is None:
            await self._forgotten(rid)
            return Change(resource=rid, actions=(CONFIRMED,))
        await self._let_go(_Leaving(name=name, record=record.over, there=there, prior=prior))
        return Change(resource=rid, actions=(CONFIRMED,), before=there.state, after=there.state)

    async def _undone(self, this: _Leaving, *, keep: bool) -> None:
        uuid = this.record.uuid
        if this.record.made:
            await self._daemon.delete(uuid)
            return
        assert this.prior is not None
        await self._daemon.restore(this.prior, keep=keep)
        if this.goes_down:
            await self._daemon.deactivate(uuid)
        elif this.there.use != "down" and not await self._daemon.apply(uuid):
            await self._daemon.activate(uuid, None)

    async def _let_go(self, this: _Leaving) -> None:
        if this.record.made and not this.is_left:
            await self._forgotten(this.id)
            return
        # So that doing it again finds nothing to do, rather than a stranger's profile.
        await self._records.put(this.id, attrs.evolve(this.record, left=True).written)
        await self._originals.forget(this.id)
        await self._trials.forget(this.id)

    async def _forgotten(self, rid: str) -> None:
        await self._originals.forget(rid)
        await self._trials.forget(rid)
        await self._records.forget(rid)


def _waits(rid: str, message: str) -> NotReady:
    return NotReady(message, resource=rid, reason="Progressing", look_again_s=_LOOK_AGAIN_S)
