"""A firewall, reconciled: all of it but for nft and systemd, so that every reconciler judges alike.

    look: what the kernel lists, and how it would list what is wished for (loaded where it filters nothing)
      alike, and confirmed once      -> its unit is, too, and nothing is loaded
      confirmed once, and otherwise  -> loaded again, also where the control plane is away
      never confirmed                -> reachable now? -> on trial:
        systemd keeps what was there, and loads -> noted -> looked at: `DidNotStick`, put back
          -> reached by a new connection -> commit -> noted as confirmed -> its unit written, for each boot
          -> not reached in time         -> put back by systemd -> `NetworkRolledBack`

Until a change is confirmed nothing of it is on disk: a device that loses its power meanwhile comes back as it
was, and tries it once more. What was taken back is refused until it is changed.

The table and the unit have names of ours. So what is there under them, and not known, as of an agent that has
lost what it had noted, is ours: the wish is put on trial in its place.

A device has one firewall, so there is one record: ``confirmed``, the hash of rules; ``refused``, that of a
wish; ``refusal``, what was told of that; ``trial``, and ``trial_of``, its wish; ``proven``, that the control
plane was reached in it; ``cut_short``, the hash of a wish whose trial a boot has ended.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any, Protocol, Self

import attrs

from harmony_core.change import Change, NotReady
from harmony_core.errors import CapabilityError, DidNotStick
from harmony_core.reconciler import JsonRecord, Reachability, Reconciler, Records
from harmony_core.resources import Filtering, Firewall, SystemdUnit, UnitState, resource_id
from harmony_core.steps import Created, Did, Removed, Step, Wrote
from harmony_pi_topology.common.confirmation import (
    make_not_reached,
    make_rolled_back,
    make_unreachable,
    say_cut_off,
    say_cut_short,
    say_remedy,
)
from harmony_pi_topology.common.gather import require_changes
from harmony_pi_topology.files.plan import diff_of
from harmony_pi_topology.systemd.records import UnitRecord

from .listening import find_shut
from .rules import DELETE, TABLE, UNIT, make_rules, make_state, make_unit

__all__ = ["CONFIRMED", "RECORD_ID", "Firewalls", "Listed", "PacketFilter"]

CONFIRMED = Did("confirmed: the control plane was reached by a new connection")
RULES = "its rules"
RECORD_ID = resource_id(Firewall.resource_type, "device")
_UNIT_ID = resource_id(SystemdUnit.resource_type, UNIT)
_LOOK_AGAIN_S = 0.1
_REMEDY = "something else changes it at the same time; see on the device: nft monitor"


@attrs.frozen(kw_only=True)
class Listed:
    """What the kernel lists: of the table that is there, and of one that is wished for."""

    found: str | None
    """None where there is no such table."""
    wanted: str | None = None
    listening: frozenset[int] = frozenset()
    """The TCP ports on which something listens for others."""


class PacketFilter(Protocol):
    """What the rules need of the kernel. Every verb: a `CapabilityError` for what it will not do."""

    async def look(self, rules: str | None) -> Listed:
        """Return the rules that the kernel lists; with *rules*, what it would list if they were loaded."""
        ...

    async def load(self, rules: str) -> None:
        """Load *rules* in one step. Roll a trial back first."""

    async def begin(self, rules: str, within_s: int) -> str:
        """Load *rules* on trial. Return the name of the trial.

        After *within_s*, and whatever happens to this agent, the earlier rules are restored, unless `commit`
        comes first. Roll an earlier trial back.
        """
        ...

    async def waits(self, trial: str) -> bool:
        """Return whether *trial* can still be committed. If not, its end is already decided."""
        ...

    async def is_of_this_boot(self, trial: str) -> bool:
        """Return whether *trial* was begun since the last boot."""
        ...

    async def commit(self, trial: str) -> bool:
        """Commit *trial*. Return False where it was rolled back already."""
        ...

    async def roll_back(self, trial: str) -> None:
        """Restore the rules from before *trial*. Idempotent."""


@attrs.frozen(kw_only=True)
class _Record:
    """What must be remembered, whatever becomes of the agent."""

    confirmed: str = ""
    refused: str = ""
    refusal: str = ""
    trial: str = ""
    trial_of: str = ""
    proven: bool = False
    cut_short: str = ""

    @classmethod
    def read(cls, record: JsonRecord) -> Self:
        """Return what `attrs.asdict` gave, without fields that a newer agent wrote."""
        known: dict[str, Any] = {each.name: None for each in attrs.fields(cls)}
        return cls(**{name: value for name, value in record.items() if name in known})

    @property
    def over(self) -> Self:
        """The same without its trial, which has ended."""
        return attrs.evolve(self, trial="", trial_of="", proven=False)


@attrs.frozen(kw_only=True)
class _Plan:
    """A firewall on its way through one converge."""

    firewall: Firewall
    rules: str
    listed: Listed
    unit_steps: tuple[Step, ...]

    @property
    def id(self) -> str:
        return self.firewall.id

    @property
    def rules_hash(self) -> str:
        return hashlib.sha256(self.rules.encode()).hexdigest()

    @property
    def is_in_force(self) -> bool:
        return self.listed.found == self.listed.wanted

    @property
    def loading(self) -> tuple[Step, ...]:
        if self.is_in_force:
            return ()
        loads = Created(RULES) if self.listed.found is None else Wrote(RULES)
        shut = find_shut(self.listed.listening, self.firewall.allow)
        if not shut:
            return (loads,)
        ports = ", ".join(f"{each}/tcp" for each in shut)
        return (loads, Did(f"lets nobody in to {ports}, where something listens"))

    def change(self, pending: NotReady | None = None) -> Change:
        """Return the Change: the kernel then has the rules as it would list them."""
        found, wanted = self.listed.found or "", self.listed.wanted or ""
        return Change(
            resource=self.id,
            steps=(*self.loading, *self.unit_steps),
            before=_state(self.listed.found),
            after=make_state(wanted),
            diff=diff_of(f"/{TABLE}", found.encode(), wanted.encode()),
            pending=pending,
        )


class Firewalls:
    """The verbs of a `Reconciler` of firewalls, but for who is told of changes.

    *units* is of the systemd that loads the rules at boot, and *unit_records* what that notes.
    """

    def __init__(
        self,
        packet_filter: PacketFilter,
        units: Reconciler[SystemdUnit, UnitState],
        records: Records,
        unit_records: Records,
        reachability: Reachability,
    ) -> None:
        self._filter = packet_filter
        self.units = units
        self._records = records
        self._unit_records = unit_records
        self._reachability = reachability
        self._one_at_a_time = asyncio.Lock()

    @property
    def resource_class(self) -> type[Firewall]:
        return Firewall

    async def observe(self, key: str) -> Filtering | None:  # noqa: ARG002 - there is one
        async with self._one_at_a_time:
            return _state((await self._filter.look(None)).found)

    async def converge(
        self, resources: Sequence[Firewall], *, apply: bool
    ) -> Sequence[Change | Exception]:
        """Converge *resources*. A change on trial is NotReady until it is confirmed."""
        results: list[Change | Exception] = []
        for firewall in resources:
            async with self._one_at_a_time:
                try:
                    results.append(await self._converge_one(firewall, apply=apply))
                except CapabilityError as error:
                    results.append(error.with_resource(firewall.id))
        return results

    async def remove(self, keys: Sequence[str], *, apply: bool) -> Sequence[Change | Exception]:
        """Remove *keys*. Nothing is restored, because nothing of what was there before is kept."""
        results: list[Change | Exception] = []
        for key in keys:
            rid = resource_id(Firewall.resource_type, key)
            async with self._one_at_a_time:
                try:
                    results.append(await self._remove_one(rid, apply=apply))
                except CapabilityError as error:
                    results.append(error.with_resource(rid))
        return results

    async def _converge_one(self, firewall: Firewall, *, apply: bool) -> Change:
        record = self._read_record() or _Record()
        if apply and record.trial and record.trial_of != firewall.spec_hash:
            # Nobody wants it any more: what was there before counts from here on.
            await self._filter.roll_back(record.trial)
            record = await self._note(record.over)
        # In this order: what is seen after a trial has ended stays so.
        waits = apply and record.trial and await self._filter.waits(record.trial)
        plan = await self._plan(firewall)
        if record.refused == firewall.spec_hash:
            raise make_rolled_back(firewall.id, record.refusal)
        if not apply:
            return plan.change()
        if record.trial:
            return await (self._settle if waits else self._on_rolled_back)(plan, record)
        if record.confirmed == plan.rules_hash:
            return await self._repair(plan, record)
        return await self._try(plan, record)

    async def _plan(self, firewall: Firewall) -> _Plan:
        rules = make_rules(firewall)
        listed = await self._filter.look(rules)
        (change,) = require_changes(
            await self.units.converge([make_unit(firewall, rules)], apply=False)
        )
        return _Plan(firewall=firewall, rules=rules, listed=listed, unit_steps=change.steps)

    async def _try(self, plan: _Plan, record: _Record) -> Change:
        """Begin a trial. Record it only once it has begun: if we are killed in between, we begin again and
        blame nobody."""
        if not await self._reachability.reachable():
            raise make_unreachable(plan.id)
        await self._note(record)
        trial = await self._filter.begin(plan.rules, plan.firewall.confirm_within_s)
        await self._note(attrs.evolve(record, trial=trial, trial_of=plan.firewall.spec_hash))
        waits = NotReady(
            "its rules are loaded, and wait to be confirmed by a new connection to the control plane",
            resource=plan.id,
            reason="Progressing",
            look_again_s=_LOOK_AGAIN_S,
        )
        return attrs.evolve(plan.change(waits), steps=plan.loading)

    async def _settle(self, plan: _Plan, record: _Record) -> Change:
        """End the trial, if that is possible."""
        if not plan.is_in_force:
            if not await self._filter.waits(record.trial):  # its time was over while we looked
                return await self._on_rolled_back(plan, record)
            await self._filter.roll_back(record.trial)
            await self._note(record.over)
            raise self._did_not_stick(plan)
        if not await self._reachability.reachable():
            waits = make_not_reached(plan.id, plan.firewall.confirm_within_s)
            return attrs.evolve(plan.change(waits), steps=())
        # Noted before: what is in force and was never proven is not confirmed, whoever has loaded it.
        record = await self._note(attrs.evolve(record, proven=True))
        if not await self._filter.commit(record.trial):
            return await self._on_rolled_back(await self._plan(plan.firewall), record)
        return await self._confirm(plan, record)

    async def _on_rolled_back(self, plan: _Plan, record: _Record) -> Change:
        """Return what to do about a trial that we did not end: it was rolled back, or we were killed right
        after its commit, or the device was rebooted."""
        if record.proven and plan.is_in_force:
            return await self._confirm(plan, record)
        refused, why = plan.firewall.spec_hash, say_cut_off(plan.firewall.confirm_within_s)
        if not await self._filter.is_of_this_boot(record.trial):
            if record.cut_short != refused:
                return await self._try(plan, attrs.evolve(record.over, cut_short=refused))
            why = say_cut_short()
        told = say_remedy(why, "what is allowed")
        await self._note(attrs.evolve(record.over, refused=refused, refusal=told))
        raise make_rolled_back(plan.id, told)

    async def _confirm(self, plan: _Plan, record: _Record) -> Change:
        """Confirm the rules, in this order: the next look writes what is confirmed and not yet on disk."""
        record = attrs.evolve(
            record.over, confirmed=plan.rules_hash, refused="", refusal="", cut_short=""
        )
        change = await self._repair(plan, await self._note(record))
        return attrs.evolve(change, steps=(CONFIRMED, *change.steps))

    async def _repair(self, plan: _Plan, record: _Record) -> Change:
        """Load again what was once confirmed, and have it loaded at each boot."""
        await self._note(record)
        change = plan.change()
        if not change.changed:
            return change
        if not plan.is_in_force:
            await self._filter.load(plan.rules)
        if self._unit_records.get(_UNIT_ID) is None:
            ours = UnitRecord(wrote=True, enabled=True, started=True)
            await self._unit_records.put(_UNIT_ID, ours.written)
        unit = make_unit(plan.firewall, plan.rules)
        (done,) = require_changes(await self.units.converge([unit], apply=True))
        if (pending := done.pending) is not None:
            pending.resource = plan.id
            return attrs.evolve(change, pending=pending)
        after = await self._plan(plan.firewall)
        if not after.is_in_force:
            raise self._did_not_stick(after)
        return change

    async def _remove_one(self, rid: str, *, apply: bool) -> Change:
        record = self._read_record()
        if record is None:
            return Change(resource=rid)  # nothing was made
        found = (await self._filter.look(None)).found
        planned = require_changes(await self.units.remove([UNIT], apply=False))
        is_there = found is not None or any(each.changed for each in planned)
        steps = (Removed(),) if is_there else ()
        change = Change(resource=rid, steps=steps, before=_state(found))
        if not apply:
            return change
        if record.trial:
            await self._filter.roll_back(record.trial)
        for done in require_changes(await self.units.remove([UNIT], apply=True)):
            if (pending := done.pending) is not None:
                pending.resource = rid
                return attrs.evolve(change, after=change.before, pending=pending)
        await self._filter.load(DELETE)
        if (left := (await self._filter.look(None)).found) is not None:
            raise DidNotStick(
                f"the removal of table {TABLE}",
                field="rules",
                wanted="none",
                found=str(make_state(left).rules),
                remedy=_REMEDY,
            )
        await self._records.forget(RECORD_ID)
        return change

    def _did_not_stick(self, plan: _Plan) -> DidNotStick:
        return DidNotStick(
            f"table {TABLE}",
            field="rules",
            wanted=_name(plan.listed.wanted),
            found=_name(plan.listed.found),
            remedy=_REMEDY,
        )

    def _read_record(self) -> _Record | None:
        record = self._records.get(RECORD_ID)
        return None if record is None else _Record.read(record)

    async def _note(self, record: _Record) -> _Record:
        await self._records.put(RECORD_ID, attrs.asdict(record))
        return record


def _state(listing: str | None) -> Filtering | None:
    return None if listing is None else make_state(listing)


def _name(listing: str | None) -> str:
    if listing is None:
        return "none"
    state = make_state(listing)
    return f"{state.rules} rules ({state.sha256[:12]})"
