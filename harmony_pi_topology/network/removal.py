"""Remove network profiles: ours go, one that was taken over is put back as it was.

    look -> not in use:  delete or restore                               -> forgotten, last
         -> in use:      the same on trial, by `harmony_pi_topology.network.trial` -> confirmed -> forgotten
                                                                         -> taken back: it stays, and is told

Works from the record alone. What somebody has changed since we wrote it is left as it is. The private
key that the device made for a WireGuard link goes with its profile.
"""

from __future__ import annotations

import attrs

from harmony_core.change import Change, NotReady
from harmony_core.errors import CapabilityError, DidNotStick, NotOurs
from harmony_core.reconciler import Backups, Reachability, Records
from harmony_core.resources import NetworkProfile, NetworkState, ResourceId, resource_id
from harmony_core.steps import Did, PutBack, Removed, Step
from harmony_pi_topology.common.confirmation import make_rolled_back, make_unreachable

from .daemon import CheckpointTaken, NetworkDaemon, SecretFiles
from .desired import own_key_of, profile_uuid
from .plan import CONFIRMED, LEFT
from .records import TAKING_AWAY, FoundProfile, NetworkRecord
from .settings import differences
from .trial import Trials

__all__ = ["NetworkRemover"]

_LOOK_AGAIN_S = 1.0


@attrs.frozen(kw_only=True)
class _ProfileRemoval:
    """One profile on its way out."""

    name: str
    record: NetworkRecord
    there: FoundProfile
    backup: bytes | None
    """What it was before it was taken over."""

    @property
    def id(self) -> str:
        return resource_id(NetworkProfile.resource_type, self.name)

    @property
    def is_released(self) -> bool:
        """Whether the profile was there before Harmony, and is no longer what Harmony wrote."""
        changed = differences(self.there.settings, self.record.wrote, self.record.wrote)
        return not self.record.made and (self.backup is None or bool(changed))

    @property
    def steps(self) -> tuple[Step, ...]:
        if self.is_released:
            return (LEFT,)
        down = (Did("took down"),) if self.goes_down else ()
        return (*down, Removed() if self.record.made else PutBack("as it was"))

    @property
    def goes_down(self) -> bool:
        return self.there.use != "down" and (self.record.made or not self.record.was_up)

    def plan_change(self) -> Change:
        stays = self.is_released or not self.record.made
        return self.change(self.steps, self.there.state if stays else None)

    def change(
        self,
        steps: tuple[Step, ...],
        after: NetworkState | None,
        pending: NotReady | None = None,
    ) -> Change:
        return Change(
            resource=self.id,
            steps=steps,
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
        backups: Backups,
        reachability: Reachability,
        secrets: SecretFiles,
    ) -> None:
        self._daemon = daemon
        self._trials = trials
        self._records = records
        self._backups = backups
        self._reachability = reachability
        self._secrets = secrets

    async def remove(self, name: str, *, apply: bool) -> Change:
        """Remove what was made under *name*. Idempotent."""
        rid = resource_id(NetworkProfile.resource_type, name)
        written = self._records.get(rid)
        record = NetworkRecord.read(written) if written is not None else await self._adopt(name)
        if record is None:
            if apply:
                await self._secrets.forget_own(
                    own_key_of(name)
                )  # it is made before anything is noted
            return Change(resource=rid)
        if apply and record.trial is not None and record.trial.spec != TAKING_AWAY:
            record = await self._trials.give_up(rid, record)
        if record.trial is not None and apply:
            return await self._finish(name, record)
        return await self._take_away(name, record, apply=apply)

    async def _adopt(self, name: str) -> NetworkRecord | None:
        """Return a new record where the record is lost, but a profile is labelled as Harmony's; None when
        there is no profile. Raise `NotOurs` for a profile without that label."""
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
                await self._forget_all(rid)
            return Change(resource=rid)
        backup = await self._backups.get(rid)
        removal = _ProfileRemoval(name=name, record=record, there=there, backup=backup)
        if record.left:
            return removal.change((), there.state)
        if not apply:
            return removal.plan_change()
        if removal.is_released:
            await self._let_go(removal)
            return removal.change(removal.steps, there.state)
        if there.use == "down":
            await self._undo_it(removal, keep=True)
            after = await self._observe(name, record)
            if not await self._is_undone(name, record):
                raise DidNotStick(
                    f"the network profile {name}",
                    field="state",
                    wanted="removed" if record.made else "as it was before",
                    found="nothing" if after is None else after.state,
                    remedy=f"see on the device: nmcli connection show '{name}'",
                )
            await self._let_go(removal)
            return removal.change(removal.steps, after)
        return await self._start_trial(removal)

    async def _start_trial(self, removal: _ProfileRemoval) -> Change:
        """Start a trial of the removal: the profile is in use, so the device must prove that it is reachable
        without it."""
        if removal.record.refused == TAKING_AWAY:
            raise make_rolled_back(removal.id, removal.record.refusal)
        if not await self._reachability.reachable():
            raise make_unreachable(removal.id)
        kept = await self._trials.keep(removal.id, removal.there)
        try:
            checkpoint = await self._daemon.checkpoint(
                {removal.there.interface}, within_s=removal.record.within_s
            )
        except CheckpointTaken:
            return removal.change(
                (),
                removal.there.state,
                _waits(removal.id, "another change waits to be confirmed"),
            )
        trial = attrs.evolve(kept, checkpoint=checkpoint, spec=TAKING_AWAY)
        record = attrs.evolve(removal.record, trial=trial)
        await self._records.put(removal.id, record.written)
        try:
            await self._undo_it(removal, keep=False)
        except CapabilityError:
            await self._trials.give_up(removal.id, record)
            raise
        return removal.change(
            removal.steps,
            await self._observe(removal.name, record),
            _waits(removal.id, f"{removal.name} is being taken down"),
        )

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
        await self._records.put(rid, record.record_rollback(TAKING_AWAY, told).written)
        raise make_rolled_back(rid, told)

    async def _is_undone(self, name: str, record: NetworkRecord) -> bool:
        """Return whether the profile is gone, or as it was before Harmony."""
        there = (await self._daemon.look(name, record.uuid, None)).profile
        if record.made or there is None:
            return there is None
        backup = await self._backups.get(resource_id(NetworkProfile.resource_type, name))
        return backup is not None and dict(there.settings) == dict(self._daemon.settings_in(backup))

    async def _waiting(self, name: str, record: NetworkRecord) -> Change:
        rid = resource_id(NetworkProfile.resource_type, name)
        state = await self._observe(name, record)
        pending = _waits(rid, f"the control plane is not reached without {name} yet")
        return Change(resource=rid, before=state, after=state, pending=pending)

    async def _confirm(self, name: str, record: NetworkRecord) -> Change:
        rid = resource_id(NetworkProfile.resource_type, name)
        there = (await self._daemon.look(name, record.uuid, None)).profile
        backup = await self._backups.get(rid)
        if there is not None and backup is not None:
            await self._daemon.restore(backup, keep=True)
        await self._trials.forget(rid)
        if there is None:
            await self._forget_all(rid)
            return Change(resource=rid, steps=(CONFIRMED,))
        after = await self._observe(name, record)
        await self._let_go(
            _ProfileRemoval(name=name, record=record.over, there=there, backup=backup)
        )
        return Change(resource=rid, steps=(CONFIRMED,), before=there.state, after=after)

    async def _observe(self, name: str, record: NetworkRecord) -> NetworkState | None:
        """Return the present state in NetworkManager; None once the profile is gone."""
        there = (await self._daemon.look(name, record.uuid, None)).profile
        return there.state if there is not None else None

    async def _undo_it(self, removal: _ProfileRemoval, *, keep: bool) -> None:
        uuid = removal.record.uuid
        if removal.record.made:
            await self._daemon.delete(uuid)
            return
        assert removal.backup is not None
        await self._daemon.restore(removal.backup, keep=keep)
        if removal.goes_down:
            await self._daemon.deactivate(uuid)
        elif removal.there.use != "down" and not await self._daemon.apply(uuid):
            await self._daemon.activate(uuid, None)

    async def _let_go(self, removal: _ProfileRemoval) -> None:
        if removal.record.made and not removal.is_released:
            await self._forget_all(removal.id)
            return
        # So that doing it again finds nothing to do, rather than a stranger's profile.
        await self._records.put(removal.id, attrs.evolve(removal.record, left=True).written)
        await self._secrets.forget_own(own_key_of(removal.name))
        await self._backups.forget(removal.id)
        await self._trials.forget(removal.id)

    async def _forget_all(self, rid: str) -> None:
        await self._secrets.forget_own(own_key_of(ResourceId.parse(rid).key))
        await self._backups.forget(rid)
        await self._trials.forget(rid)
        await self._records.forget(rid)


def _waits(rid: str, message: str) -> NotReady:
    return NotReady(message, resource=rid, reason="Progressing", look_again_s=_LOOK_AGAIN_S)
